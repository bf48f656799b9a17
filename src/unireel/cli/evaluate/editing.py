"""``unireel evaluate editing``: edits, a model's or given ones: were they carried out, and what did they keep?"""

import argparse
import re
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.cli.evaluate.judging import add_judge_options, check_judge, cost, has_judge, make_eyes
from unireel.cli.evaluate.making import add_shard_option, prepare_folder, refused, say_what_is_missing
from unireel.cli.evaluate.output import (
    add_json_option,
    check_json,
    command_line,
    plain,
    table,
    write,
    write_page,
)
from unireel.cli.options import load_model, real_number, whole_number
from unireel.errors import UsageError, UserError

if TYPE_CHECKING:
    from unireel.evaluation.editing.compliance import Verdict
    from unireel.evaluation.editing.pairs import Pair
    from unireel.evaluation.editing.reading import Given, Made
    from unireel.evaluation.journal import Journal

EPILOG = """examples:
  unireel evaluate editing --source before.mp4 --edited after.mp4 --mask mask.png
  unireel evaluate editing --pairs edits.csv --out runs/edits --json scores.json
  unireel evaluate editing --pairs edits.csv --out runs/edits --judge-url URL/v1 --judge-model qwen3-vl
  unireel evaluate editing --model M --pairs loveu_tgve_edit_prompt_dict.json --videos tgve/ --out runs/tgve \\
      --frames 32 --size 480x480 --noop "keep everything as it is" --shard 1/4

The list (CSV, JSON, JSON lines) has columns source and edited, and may have mask, instruction, kind, id, and test
(edit, noop or inverse); EditBoard's, OpenVE-Bench's, Ditto's and Kiwi-Edit's column names are understood, and TGVE's
dictionary of instructions. With --model nothing has to be edited yet: every row needs an instruction, and one of the
test 'inverse' also 'undo', the instruction that takes the edit back. A run that was stopped goes on when it is started
again with the same arguments.
"""


def add_parser(benchmarks: Any) -> None:
    """Register the benchmark."""
    parser = benchmarks.add_parser(
        "editing",
        help="edits of films: carried out (by a judge that sees), kept in and outside of masks, steady",
        description="Measure edits of films: what a judge says of them, and what they kept, pixel by pixel.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--source", type=Path, metavar="FILM", help="the film before the edit")
    parser.add_argument("--edited", type=Path, metavar="FILM", help="and after it")
    parser.add_argument("--mask", type=Path, metavar="FILM", help="bright where the edit may change the film")
    parser.add_argument("--instruction", metavar="WORDS", help="what was asked for, for a judge")
    parser.add_argument("--pairs", type=Path, metavar="FILE", help="a list of such pairs")
    parser.add_argument(
        "--videos", type=Path, metavar="FOLDER", help="where the list's films are (default: beside it)"
    )
    parser.add_argument(
        "--fit",
        action="store_true",
        help="bring edited films to the source's size, and cut the longer film; without it such pairs are errors",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="keep a report, the figures of each pair and the judge's verdicts, to go on there",
    )
    _add_model_options(parser)
    add_judge_options(parser, "a vision-language model of the transformers library, or BAGEL: a folder")
    parser.add_argument(
        "--judge-frames",
        type=whole_number(1, 64),
        default=4,
        metavar="N",
        help="that the judge sees of each film (default: %(default)s)",
    )
    add_json_option(parser)
    parser.set_defaults(run=run)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("a model that edits", "instead of films that are edited already")
    group.add_argument("--model", help="a model folder or hub id of a system that edits, such as omnivideo")
    group.add_argument(
        "--device", help="cpu, cuda, cuda:1, mps (default: CUDA if there is any, else the CPU)"
    )
    group.add_argument(
        "--frames", type=whole_number(1, 100_000), metavar="N", help="take the first N of each source"
    )
    group.add_argument("--size", metavar="HxW", help="bring sources to this size, cutting what is too much")
    group.add_argument(
        "--noop", metavar="WORDS", help="also give every source this instruction, which asks for nothing"
    )
    group.add_argument("--seed", type=whole_number(0, 2**63 - 1), default=0, metavar="S", help="default: 0")
    group.add_argument("--steps", type=whole_number(1, 1000), metavar="K", help="sampling steps")
    group.add_argument("--guidance", type=real_number(0, 100), metavar="G", help="scale on the words")
    group.add_argument(
        "--source-guidance", type=real_number(0, 100), metavar="G", help="scale on the source film"
    )
    add_shard_option(group)


def run(args: argparse.Namespace) -> None:
    """Edit what is missing, compare, judge; print means with intervals and what could not be measured."""
    check_json(args.json)
    if (args.pairs is None) == (args.source is None):
        raise UsageError("name either --source and --edited, or a list with --pairs")
    if args.source is not None and args.edited is None:
        raise UsageError("name either --source and --edited, or a list with --pairs")
    _check_model(args)
    if has_judge(args):
        check_judge(args)
        if args.out is None:
            raise UsageError("a judge needs --out, where its verdicts are kept")
        if args.source is not None and not args.instruction:
            raise UsageError("a judge needs --instruction, what was asked for")
    if args.out is not None:
        prepare_folder(args.out)
        measured(args, args.out)
        return
    with tempfile.TemporaryDirectory() as folder:
        measured(args, Path(folder) / "run")


def _check_model(args: argparse.Namespace) -> None:
    """Raise a :class:`UsageError` if options of a model do not fit together."""
    if args.model is None:
        options = ("device", "frames", "size", "noop", "steps", "guidance", "source_guidance", "shard")
        given = [each for each in options if getattr(args, each) is not None]
        if given:
            raise UsageError(f"--{given[0].replace('_', '-')} needs --model: the films are edited already")
    elif args.pairs is None or args.out is None:
        raise UsageError("--model needs --pairs, a list of films and instructions, and --out")


def measured(args: argparse.Namespace, folder: Path) -> None:
    """Measure what ``folder`` has no figures of yet, then print everything."""
    from unireel.evaluation.editing.pairs import Pair, by_kind, measure, read_pairs, scores
    from unireel.evaluation.editing.reading import Given
    from unireel.evaluation.journal import Journal, claim

    bad: list[tuple[str, str]] = []
    if args.pairs is not None:
        made = None if args.model is None else folder / "samples"
        pairs, bad = read_pairs(args.pairs, args.videos, made, args.noop)
    else:
        pairs = [Pair(args.edited.name, args.source, args.edited, args.mask, args.instruction or "")]
    editor = None if args.model is None else _made(args)
    reader = editor or Given(args.fit)
    identity = {
        "benchmark": "editing",
        "pairs": str(args.pairs or args.edited),
        "fit": args.fit,
        "records": 2,
    }
    claim(folder, identity | _identity(args))
    refusals: list[dict[str, Any]] = []
    if editor is not None:
        left, refusals = edit(args, folder, pairs, editor)
        if left > len(refusals):
            document = {
                "benchmark": "editing",
                "scores": {},
                "counts": {"pairs": len(pairs), "missing": left},
            }
            if not write(document | {"problems": refusals}, args.json):
                print(f"{len(pairs) - left} of {len(pairs)} films are edited; nothing is measured yet")
            return
    there = [pair for pair in pairs if args.model is None or pair.edited.exists()]
    journal = Journal(folder / "items.jsonl")

    def advance(done: int, left: int, name: str) -> None:
        if args.pairs is not None:
            print(f"{name}: {done} done, {left} left", file=sys.stderr)

    measure(there, journal, reader.compared, advance)
    judging, problems = judged(args, folder, there, reader, journal) if has_judge(args) else ({}, [])
    journal.close()
    wanted = {pair.id for pair in pairs}
    records = [record for record in journal if record["id"] in wanted]
    found = scores(records)
    failed = [(record["id"], record["error"]) for record in records if "error" in record]
    failed += [(each["id"], each["error"]) for each in refusals]
    if not found:
        raise UserError(f"no pair could be compared: {failed[0][0]}: {failed[0][1]}")
    found |= by_kind(records, "followed") or by_kind(records, "psnr")
    listed = [{"where": where, "what": what} for where, what in (*bad, *failed)] + problems
    counts = {"pairs": len(pairs), "bad_rows": len(bad), "failed": len(failed)}
    document = {"benchmark": "editing", "scores": plain(found), "counts": counts, "problems": listed}
    document |= {"model": args.model} if args.model else {}
    document |= {"judge": judging} if judging else {}
    if args.out is not None:
        keep(args, folder, document, found, records, there)
    if write(document, args.json):
        return
    print(table(found, digits=4))
    if judging:
        print("judge: " + ", ".join(f"{name} {value}" for name, value in judging.items()))
    for each in listed:
        print(f"{each.get('kind', 'not compared')}: {each['where']}: {each['what']}")


def edit(
    args: argparse.Namespace, folder: Path, pairs: "list[Pair]", reader: "Made"
) -> tuple[int, list[dict[str, Any]]]:
    """Have the model edit what is missing of this shard.

    Returns:
        How many films are still missing of the whole, and what was refused.
    """
    from unireel.cli.edit import require_editor
    from unireel.evaluation.editing.making import edit_films, missing
    from unireel.evaluation.journal import Journal
    from unireel.evaluation.progress import resumable
    from unireel.evaluation.shards import Shard

    which = None if args.shard is None else Shard.read(args.shard)
    mine = pairs if which is None else pairs[which.items]
    samples = folder / "samples"
    samples.mkdir(exist_ok=True)
    todo = len(missing(mine))
    if todo < len(mine):
        print(f"going on in {folder}: {len(mine) - todo} films are done, {todo} are left", file=sys.stderr)
    if todo:
        name = "failures.jsonl" if which is None else which.file("failures.jsonl")
        failures = Journal(folder / name)
        model = load_model(args)
        require_editor(model, args.model)
        options = {each: getattr(args, each) for each in ("steps", "guidance", "source_guidance")}
        options = {each: value for each, value in options.items() if value is not None}
        with resumable({"edits": todo}, folder, failures) as progress:
            edit_films(
                model,
                mine,
                reader.source,
                args.seed,
                options,
                failures,
                lambda done, left, seconds: progress.advance("edits", done, left, seconds),
            )
    left = len(missing(pairs))
    known = {pair.id for pair in missing(pairs)}
    failed = [each for each in refused(folder, samples) if each["id"] in known]
    say_what_is_missing(left, failed)
    return left, failed


def _made(args: argparse.Namespace) -> "Made":
    from unireel.evaluation.editing.reading import Made

    if args.size is None:
        return Made(args.frames, None, args.fit)
    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", args.size)
    if sides is None or not (int(sides[1]) and int(sides[2])):
        raise UsageError(f"--size '{args.size}': height and width in pixels, for example 480x832")
    return Made(args.frames, (int(sides[1]), int(sides[2])), args.fit)


def _identity(args: argparse.Namespace) -> dict[str, Any]:
    """What makes two runs of a model the same."""
    if args.model is None:
        return {}
    from unireel.evaluation.fingerprint import fingerprint
    from unireel.hub import find_model

    names = ("model", "frames", "size", "noop", "seed", "steps", "guidance", "source_guidance")
    return {name: getattr(args, name) for name in names} | {"weights": fingerprint(find_model(args.model))}


def judged(
    args: argparse.Namespace,
    folder: Path,
    pairs: "list[Pair]",
    reader: "Given | Made",
    journal: "Journal",
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Have the judge look at the edits that could be compared; what it did and cost, and what it did not do.

    Tests that ask for nothing, or for an edit and its undoing, are left to the pixels, which tell exactly.
    """
    from unireel.evaluation.editing.compliance import instruction_hash, judge_edits
    from unireel.evaluation.journal import Journal

    edits = [pair for pair in pairs if pair.test == "edit" and "error" not in journal[pair.id]]
    asked = [pair for pair in edits if pair.instruction]
    if not asked:
        raise UserError("the judge has nothing to look at: no edit that could be compared has an instruction")
    eyes = make_eyes(args)
    cache = Journal(folder / "judge.jsonl")

    def advance(done: int) -> None:
        if done % 50 == 0 or done == len(asked):
            print(f"judge: {done} of {len(asked)} done", file=sys.stderr)

    try:
        verdicts, tally, problems = judge_edits(
            asked, reader.watched, eyes, cache, args.judge_frames, args.judge_parallel, advance
        )
    finally:
        cache.close()
    _put(verdicts, edits, journal)
    missing = [
        {"kind": "not judged", "where": pair.id, "what": "no instruction"}
        for pair in edits
        if not pair.instruction
    ]
    about = {**cost(args, eyes), "instruction": instruction_hash(), "frames": args.judge_frames}
    return {**about, **asdict(tally)}, [*(asdict(each) for each in problems), *missing]


def _put(verdicts: "dict[str, Verdict]", pairs: "list[Pair]", journal: "Journal") -> None:
    """Add verdicts to the records; None where this judge gave none, whatever another one said before."""
    from unireel.evaluation.editing.pairs import JUDGED

    for pair in pairs:
        verdict = verdicts.get(pair.id)
        fields = dict.fromkeys((*JUDGED, "seen")) if verdict is None else verdict.fields()
        record = journal[pair.id]
        if any(record.get(name) != value for name, value in fields.items()):
            journal.append([record | fields])


def keep(
    args: argparse.Namespace,
    folder: Path,
    document: dict[str, Any],
    found: Any,
    records: list[dict[str, Any]],
    pairs: "list[Pair]",
) -> None:
    """Write ``scores.json`` and ``report.html``."""
    from unireel.evaluation.reports import editing_page

    write(document, str(folder / "scores.json"))
    by_id = {each.id: each for each in pairs}
    shown = [
        (record, pair.source, pair.edited, pair.instruction)
        for record in records
        if (pair := by_id.get(record["id"])) is not None
    ]
    options = ["model", "source", "edited", "mask", "instruction", "pairs", "videos", "fit", "frames", "size"]
    options += ["noop", "steps", "guidance", "source_guidance", "judge_url", "judge_model", "judge_local"]
    command = command_line(["evaluate", "editing"], args, [*options, "judge_frames", "out"])
    facts = {name: str(value) for name, value in document["counts"].items()}
    if "judge" in document:
        facts["judge"] = ", ".join(f"{each} {value}" for each, value in document["judge"].items())
    name = args.model or (args.pairs or args.edited).name
    write_page(folder / "report.html", editing_page(found, shown, name, command, facts))
