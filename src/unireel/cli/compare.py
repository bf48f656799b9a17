"""``unireel compare``: two evaluations side by side, with paired tests."""

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unireel.cli.evaluate.output import (
    add_json_option,
    add_page_option,
    check_file,
    check_json,
    write,
    write_page,
)

EPILOG = """examples:
  unireel compare worldbench/pocket-base-test-0 worldbench/my-model-test-0
  unireel compare runs/qa-base runs/qa-tuned --page compare.html --json compare.json
  unireel compare runs/vbench-a runs/vbench-b          (also VBench's own result files, and GenEval's results.jsonl)

Items are matched; what only one run has is left out. Right-or-wrong items are compared with McNemar's exact test, other
scores and items that belong together (questions about one video) by permutation; p values are corrected for their
number.
"""


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "compare",
        help="two evaluations side by side, with paired tests",
        description="Compare two evaluations of the same items, with paired tests.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "first", type=Path, metavar="A", help="folder of an evaluation, or results of VBench or GenEval"
    )
    parser.add_argument("second", type=Path, metavar="B", help="and of another")
    add_page_option(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Match, test, print."""
    from unireel.evaluation.comparison_page import page
    from unireel.evaluation.runs import compare_runs, read_run

    check_json(args.json)
    if args.page is not None:
        check_file(args.page)
    first, second = read_run(args.first), read_run(args.second)
    found = compare_runs(first, second)
    if args.page is not None:
        command = shlex.join(["unireel", "compare", str(args.first), str(args.second)])
        write_page(args.page, page(first, second, found, command))
    counts = {"shared": found.shared, "only_first": found.only_first, "only_second": found.only_second}
    rows = {row.name: {**asdict(row.paired), "p_adjusted": row.adjusted} for row in found.rows}
    if write({"first": first.name, "second": second.name, "counts": counts, "scores": rows}, args.json):
        return
    width = max(len(row.name) for row in found.rows)
    print(f"{'':{width}s}       A       B   B minus A (95 % interval)     better, worse        p")
    for row in found.rows:
        ends, pair = row.paired.difference, row.paired
        said = f"{ends.value:+.3f} ({ends.low:+.3f} to {ends.high:+.3f})"
        print(
            f"{row.name:{width}s}  {pair.first:6.3f}  {pair.second:6.3f}  {said:28s}  {pair.wins:6d}, {pair.losses:<6d}"
            f"  {row.adjusted:.3g} ({pair.test})"
        )
    print(f"{found.shared} items in both, {found.only_first} only in A, {found.only_second} only in B")
    if args.page is not None:
        print(f"page: {args.page}")
