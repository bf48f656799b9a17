"""What the benchmarks of single systems share: options, and measuring a model of that system alone."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.cli.evaluate import worldbench
from unireel.cli.evaluate.making import add_sampling_options, add_shard_option
from unireel.cli.evaluate.output import add_json_option, check_json
from unireel.cli.options import add_model_options, load_model, whole_number
from unireel.errors import UserError

if TYPE_CHECKING:
    from unireel.evaluation.worldbench.task import Task


def add_options(bench: argparse.ArgumentParser, system: str, categories: str) -> None:
    """Model, categories, split, number of items, sampling and output."""
    add_model_options(bench)
    bench.add_argument("--categories", metavar="NAMES", default=categories, help="default: %(default)s")
    bench.add_argument("--split", choices=worldbench.SPLITS, default="test", help="default: %(default)s")
    bench.add_argument(
        "--n",
        type=whole_number(1, worldbench.MOST_ITEMS),
        default=100,
        metavar="N",
        help="items per figure (default: 100)",
    )
    add_sampling_options(bench, batch=16)
    bench.add_argument(
        "--out",
        type=Path,
        default=Path(f"{system}-evaluation"),
        metavar="FOLDER",
        help="records, scores and report; a rerun goes on (default: %(default)s)",
    )
    add_shard_option(bench)
    add_json_option(bench)
    bench.set_defaults(model=f"pocket/{system}")


def measure(
    args: argparse.Namespace,
    system: str,
    tasks: Sequence["Task"],
    names: Sequence[str] = (),
    change: Callable[[Any], None] = lambda model: None,
) -> None:
    """Check the request, measure what is missing, print the scores and write the report.

    Args:
        names: of further arguments that make another run of it.
        change: what is done to the model before.
    """
    from unireel.evaluation.fingerprint import fingerprint
    from unireel.evaluation.shards import Shard
    from unireel.evaluation.worldbench import Ledger, Plan, Setting, chosen_parts
    from unireel.hub import find_model, read_card

    parts = tuple(chosen_parts(args.categories.split(","), tasks))
    folder = worldbench.prepared_folder(args)
    check_json(args.json)
    found = find_model(args.model)
    if read_card(found)["system"] != system:
        raise UserError(
            f"'{args.model}' is a model of the system {read_card(found)['system']}; this needs {system}"
        )
    names = ("model", "split", "seed", "steps", "guidance", *names)
    identity = {name: getattr(args, name) for name in names}
    shard = None if args.shard is None else Shard.read(args.shard)
    ledger = Ledger(folder, identity | {"weights": fingerprint(found)}, shard)
    model = load_model(args)
    change(model)
    plan = Plan(
        parts, args.n, Setting(args.split, args.seed, model.size, args.steps, args.guidance, args.batch)
    )
    worldbench.measure(args, model, plan, ledger)
