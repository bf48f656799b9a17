"""``unireel evaluate editing``: what edits kept, inside and outside of masks, and how steady they are."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from unireel.cli.evaluate.output import (
    add_json_option,
    check_json,
    command_line,
    plain,
    table,
    write,
    write_page,
)
from unireel.errors import UsageError, UserError

EPILOG = """examples:
  unireel evaluate editing --source before.mp4 --edited after.mp4 --mask mask.png
  unireel evaluate editing --pairs edits.csv --out runs/edits --json scores.json

The list (CSV, JSON, JSON lines) has columns source and edited, and may have mask, instruction, kind, id, and test
(edit, noop or inverse); EditBoard's, OpenVE-Bench's, Ditto's and Kiwi-Edit's column names are understood.
"""


def add_parser(benchmarks: Any) -> None:
    """Register the benchmark."""
    parser = benchmarks.add_parser(
        "editing",
        help="edited films against their sources: PSNR and SSIM in and outside of masks, steadiness",
        description="Compare edited films with their sources, pixel by pixel.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--source", type=Path, metavar="FILM", help="the film before the edit")
    parser.add_argument("--edited", type=Path, metavar="FILM", help="and after it")
    parser.add_argument("--mask", type=Path, metavar="FILM", help="bright where the edit may change the film")
    parser.add_argument("--pairs", type=Path, metavar="FILE", help="a list of such pairs")
    parser.add_argument(
        "--fit",
        action="store_true",
        help="bring edited films to the source's size, and cut the longer film; without it such pairs are errors",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="keep a report and the figures of each pair, to go on there",
    )
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Compare, and print means with intervals and what could not be compared."""
    check_json(args.json)
    if (args.pairs is None) == (args.source is None) or (args.source is None) != (args.edited is None):
        raise UsageError("name either --source and --edited, or a list with --pairs")
    if args.out is not None:
        measured(args, args.out)
        return
    with tempfile.TemporaryDirectory() as folder:
        measured(args, Path(folder) / "run")


def measured(args: argparse.Namespace, folder: Path) -> None:
    """Compare what ``folder`` has no figures of yet, then print everything."""
    from unireel.evaluation.editing.pairs import Pair, measure, read_pairs, scores
    from unireel.evaluation.journal import Journal, claim
    from unireel.evaluation.reports import editing_page

    bad: list[tuple[str, str]] = []
    if args.pairs is not None:
        pairs, bad = read_pairs(args.pairs)
    else:
        pairs = [Pair(args.edited.name, args.source, args.edited, args.mask)]
    claim(folder, {"benchmark": "editing", "pairs": str(args.pairs or args.edited), "fit": args.fit})
    journal = Journal(folder / "items.jsonl")

    def advance(done: int, left: int, name: str) -> None:
        if args.pairs is not None:
            print(f"{name}: {done} done, {left} left", file=sys.stderr)

    measure(pairs, journal, args.fit, advance)
    failed = [(record["id"], record["error"]) for record in journal if "error" in record]
    journal.close()
    found = scores(journal)
    if not found:
        raise UserError(f"no pair could be compared: {failed[0][0]}: {failed[0][1]}")
    problems = [{"where": where, "what": what} for where, what in (*bad, *failed)]
    document = {
        "benchmark": "editing",
        "scores": plain(found),
        "counts": {"pairs": len(pairs), "bad_rows": len(bad), "failed": len(failed)},
        "problems": problems,
    }
    if args.out is not None:
        by_id = {each.id: each for each in pairs}
        shown = [
            (record, pair.source, pair.edited, pair.instruction)
            for record in journal
            if (pair := by_id.get(record["id"])) is not None
        ]
        command = command_line(
            ["evaluate", "editing"], args, ["source", "edited", "mask", "pairs", "fit", "out"]
        )
        name = (args.pairs or args.edited).name
        write_page(folder / "report.html", editing_page(found, shown, name, command, document["counts"]))
    if write(document, args.json):
        return
    print(table(found, digits=4))
    for each in problems:
        print(f"not compared: {each['where']}: {each['what']}")
