"""``unireel evaluate aggregate``: add up results that are already there, and check printed tables."""

import argparse
from pathlib import Path
from typing import Any

from unireel.cli.evaluate.output import (
    add_json_option,
    add_page_option,
    check_file,
    check_json,
    command_line,
    plain,
    table,
    write,
    write_page,
)
from unireel.errors import UsageError, UserError

EPILOG = """examples:
  unireel evaluate aggregate vbench results/                 (VBench's *_eval_results.json, folders or zips of them)
  unireel evaluate aggregate vbench scores.json --percent    ({"subject_consistency": 98.39, ...})
  unireel evaluate aggregate vbench --table univid_table1    (which printed rows follow from their own columns?)
  unireel evaluate aggregate geneval results.jsonl           (what GenEval's evaluate_images.py wrote)
"""


def add_parser(benchmarks: Any) -> None:
    """Register the command."""
    parser = benchmarks.add_parser(
        "aggregate",
        help="add up results of VBench or GenEval that are already there",
        description="Add up results of VBench or GenEval that are already there.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", metavar="BENCHMARK", required=True)
    vbench = kinds.add_parser("vbench", help="quality, semantic and total score of the 16 dimensions")
    vbench.add_argument("results", nargs="*", type=Path, metavar="RESULTS", help="files, folders or zips")
    vbench.add_argument("--percent", action="store_true", help="the values are 0 to 100 instead of 0 to 1")
    vbench.add_argument(
        "--table", metavar="TABLE", help="check a paper's printed table, or a CSV file with the same columns"
    )
    add_page_option(vbench)
    add_json_option(vbench)
    vbench.set_defaults(run=run_vbench)
    geneval = kinds.add_parser("geneval", help="accuracy by tag, and overall as the mean of the tags")
    geneval.add_argument("results", type=Path, metavar="RESULTS", help="JSONL file")
    add_page_option(geneval)
    add_json_option(geneval)
    geneval.set_defaults(run=run_geneval)


def run_vbench(args: argparse.Namespace) -> None:
    """Add up, or check a table."""
    from unireel.evaluation.reports import vbench_page
    from unireel.evaluation.vbench.results import read
    from unireel.evaluation.vbench.uncertainty import dimension_scores, group_scores

    check_outputs(args)
    if bool(args.results) == (args.table is not None):
        raise UsageError("name either results to add up, or a --table to check")
    if args.table is not None and args.page is not None:
        raise UsageError("--page is for results; a --table has none")
    if args.table is not None:
        check_printed(args)
        return
    results = read(args.results, args.percent)
    scores = group_scores(results.raw, results.films) | dimension_scores(results.raw, results.films)
    if args.page is not None:
        command = command_line(
            ["evaluate", "aggregate", "vbench", *map(str, args.results)], args, ["percent"]
        )
        write_page(args.page, vbench_page(scores, results.films, args.results[0].name, command))
    if not write({"benchmark": "vbench", "scores": plain(scores), "sources": results.source}, args.json):
        print(table(scores, 100, 2))


def check_outputs(args: argparse.Namespace) -> None:
    """Find out whether ``--json`` and ``--page`` can be written before any work is spent on them."""
    check_json(args.json)
    if args.page is not None:
        check_file(args.page)


def check_printed(args: argparse.Namespace) -> None:
    """Print every row of a table beside what its columns give."""
    from unireel.evaluation.vbench.published import TOLERANCE, check_table

    checked = check_table(printed_rows(args.table))
    if not any(each.deviations() for each in checked):
        raise UserError(f"'{args.table}' has no VBench scores (columns total, quality and semantic) to check")
    rows = [
        {
            "model": each.model,
            "printed": each.printed,
            "total_from_groups": each.total_from_groups,
            "recomputed": each.recomputed,
            "deviations": {name: round(value, 4) for name, value in each.deviations().items()},
            "follows": not each.wrong(),
        }
        for each in checked
    ]
    document = {"benchmark": "vbench", "table": args.table, "tolerance": TOLERANCE, "rows": rows}
    if write(document, args.json):
        return
    width = max(len(each.model) for each in checked)
    for each in checked:
        wrong = each.wrong()
        said = ", ".join(f"{name} {value:+.2f}" for name, value in wrong.items())
        print(f"{each.model:{width}s}  {'does not follow: ' + said if wrong else 'follows'}")
    good = sum(not each.wrong() for each in checked)
    print(f"{good} of {len(checked)} rows follow from their own columns within {TOLERANCE} points")


def printed_rows(name: str) -> list[Any]:
    """The rows of a committed table, or of a CSV file."""
    from unireel.evaluation.papers import TABLES, read_rows, rows

    path = Path(name)
    if name in TABLES or not path.is_file():
        return rows(name)
    return read_rows(path)


def run_geneval(args: argparse.Namespace) -> None:
    """Add up."""
    from unireel.evaluation.geneval.summary import read_results, summary
    from unireel.evaluation.reports import geneval_page

    check_outputs(args)
    results = read_results(args.results)
    scores = summary(results)
    if args.page is not None:
        images = [(each.tag, each.prompt, each.correct, Path(each.file)) for each in results]
        command = command_line(["evaluate", "aggregate", "geneval", str(args.results)], args, [])
        write_page(args.page, geneval_page(scores, images, args.results.name, command))
    if not write({"benchmark": "geneval", "scores": plain(scores)}, args.json):
        print(table(scores))
