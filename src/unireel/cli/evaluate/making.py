"""What the benchmarks that make films share: options, the model, the folder, progress."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.cli.options import (
    add_fast_option,
    add_model_options,
    check_writable,
    chosen_speed,
    load_model,
    real_number,
    whole_number,
)

if TYPE_CHECKING:
    from unireel.evaluation.sampling import Wanted


def add_sampling_options(parser: Any, batch: int) -> None:
    """Add the options of the sampler and ``--fast``; ``batch`` is the default of ``--batch``."""
    parser.add_argument("--seed", type=whole_number(0, 2**63 - 1), default=0, metavar="S", help="default: 0")
    parser.add_argument("--steps", type=whole_number(1, 1000), metavar="K", help="sampling steps")
    parser.add_argument("--guidance", type=real_number(0, 100), metavar="G", help="guidance scale")
    parser.add_argument(
        "--batch",
        type=whole_number(1, 1024),
        default=batch,
        metavar="B",
        help="films at once (default: %(default)s)",
    )
    add_fast_option(parser)


def add_making_options(parser: Any, batch: int = 8) -> None:
    """Add the options of the model, the sampler and the folder."""
    add_model_options(parser)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the films and results go")
    add_sampling_options(parser, batch)
    parser.add_argument(
        "--scale", type=whole_number(1, 64), default=1, metavar="INT", help="enlarge every pixel"
    )
    add_shard_option(parser)


def add_shard_option(parser: Any) -> None:
    """Add ``--shard``."""
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="do only every N-th item, from the I-th: one process for each device, all with one folder",
    )


def prepare_folder(folder: Path) -> None:
    """Raise a :class:`UserError` unless ``folder`` is there or can be made."""
    if not folder.is_dir():
        check_writable(folder.parent / "new")


def make_films(
    args: argparse.Namespace, wanted: "Sequence[Wanted]", identity: dict[str, Any], frames: int | None = None
) -> tuple[int, list[dict[str, Any]]]:
    """Make what is missing of this shard in ``args.out / "samples"``.

    Args:
        wanted: all films of the benchmark.
        identity: what makes two runs the same, besides model and sampler.
        frames: length of the films; None leaves it to the model.

    Returns:
        How many films are still missing of the whole, and those that were refused in this run.
    """
    from unireel.evaluation.fingerprint import fingerprint
    from unireel.evaluation.journal import Journal, claim
    from unireel.evaluation.progress import resumable
    from unireel.evaluation.sampling import Options, make, missing, shard
    from unireel.evaluation.shards import Shard
    from unireel.hub import find_model

    mine = shard(wanted, args.shard)
    card = {name: getattr(args, name) for name in ("model", "seed", "steps", "guidance", "scale")}
    card |= {"fast": chosen_speed(args)} if chosen_speed(args) else {}
    claim(args.out, identity | card | {"weights": fingerprint(find_model(args.model))})
    folder = args.out / "samples"
    folder.mkdir(exist_ok=True)
    todo = len(missing(mine, folder))
    if todo < len(mine):
        print(f"going on in {args.out}: {len(mine) - todo} films are done, {todo} are left", file=sys.stderr)
    if todo:
        name = "failures.jsonl" if args.shard is None else Shard.read(args.shard).file("failures.jsonl")
        failures = Journal(args.out / name)
        options = Options(frames, args.steps, args.guidance, args.batch, args.scale)
        with resumable({"films": todo}, args.out, failures) as progress:
            make(
                load_model(args),
                mine,
                folder,
                options,
                failures,
                lambda done, left, seconds: progress.advance("films", done, left, seconds),
            )
    return len(missing(wanted, folder)), refused(args.out, folder)


def refused(out: Path, folder: Path) -> list[dict[str, Any]]:
    """What the model refused in any run and shard, and has not made since."""
    from unireel.evaluation.journal import read_records

    # Other shards may be writing theirs: these files are looked at and never mended here.
    paths = sorted(out.glob("failures*.jsonl"))
    found = {record["id"]: record for path in paths for record in read_records(path)}
    return [record for name, record in found.items() if not (folder / name).exists()]


def say_what_is_missing(left: int, failures: list[dict[str, Any]]) -> None:
    """Tell on the standard error how complete the films are."""
    if failures:
        first = failures[0]
        print(
            f"{len(failures)} films were refused, the first: '{first['prompt']}': {first['error']}",
            file=sys.stderr,
        )
    if left > len(failures):
        print(f"{left - len(failures)} films are still to be made (other shards?)", file=sys.stderr)
