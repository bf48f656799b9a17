"""``unireel evaluate vbench``: make VBench's films in its own layout, and compute what needs no network."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.cli.evaluate.making import add_making_options, make_films, prepare_folder, say_what_is_missing
from unireel.cli.evaluate.output import (
    add_json_option,
    check_json,
    command_line,
    plain,
    table,
    write,
    write_page,
)
from unireel.cli.options import whole_number
from unireel.errors import UsageError, UserError

if TYPE_CHECKING:
    from unireel.evaluation.vbench.results import Results

RESULTS = "results"
EPILOG = """examples:
  unireel evaluate vbench --model M --suite VBench_full_info.json --out runs/vbench
  unireel evaluate vbench ... --dimensions color,scene --shard 1/4 --device cuda:0
  unireel evaluate vbench --films runs/vbench/samples/temporal_flickering      (no model: measure what is there)
  unireel evaluate vbench ... --vbench-python ../vbench/bin/python             (an installed VBench does the rest)
  unireel evaluate aggregate vbench runs/vbench/results

A run that was stopped goes on when it is started again with the same arguments.
"""


def add_parser(benchmarks: Any) -> None:
    """Register the benchmark."""
    parser = benchmarks.add_parser(
        "vbench",
        help="make VBench's films in its own layout; temporal flickering",
        description="Make VBench's films in its own layout, and compute what needs no network.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--suite", type=Path, metavar="FILE", help="VBench's VBench_full_info.json")
    parser.add_argument(
        "--films", type=Path, nargs="+", metavar="FILM", help="measure these films or folders"
    )
    parser.add_argument("--dimensions", metavar="NAMES", help="separated by commas (default: all 16)")
    parser.add_argument(
        "--samples", type=whole_number(1, 100), default=5, metavar="N", help="of each prompt (default: 5)"
    )
    parser.add_argument(
        "--flicker-samples",
        type=whole_number(1, 100),
        metavar="N",
        help="of the prompts of temporal flickering; the protocol makes 25 and keeps 5 that hardly move",
    )
    parser.add_argument(
        "--frames", type=whole_number(1, 100_000), metavar="N", help="length (default: the model's)"
    )
    parser.add_argument(
        "--vbench-python",
        type=Path,
        metavar="PYTHON",
        help="the interpreter of an environment with VBench: it computes the other dimensions",
    )
    parser.add_argument("--vbench-device", default="cuda", metavar="DEVICE", help="default: %(default)s")
    add_making_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Make films, or measure those that are there."""
    check_json(args.json)
    if (args.suite is None) == (args.films is None):
        raise UsageError("name either the --suite whose films to make, or --films to measure")
    if args.films is not None:
        measure_films(args)
    else:
        make_suite(args)


def measure_films(args: argparse.Namespace) -> None:
    """Temporal flickering of films that are there."""
    from unireel.evaluation.vbench.flickering import films_in

    paths: list[Path] = []
    for path in args.films:
        if not path.exists():
            raise UserError(f"there is no {path}")
        paths += films_in(path) if path.is_dir() else [path]
    if not paths:
        raise UserError(f"there are no films (.mp4, .gif) in {', '.join(map(str, args.films))}")
    results, problems = flickering(paths)
    report(args, results, problems)


def make_suite(args: argparse.Namespace) -> None:
    """Make the missing films; when all are there, measure."""
    from unireel.evaluation.vbench.driver import drive
    from unireel.evaluation.vbench.results import Results, read
    from unireel.evaluation.vbench.suite import check_case, of_dimensions, read_suite, wanted_films

    names = None if args.dimensions is None else args.dimensions.split(",")
    prompts = of_dimensions(read_suite(args.suite), names)
    args.out = args.out or Path("vbench")
    prepare_folder(args.out)
    wanted = wanted_films(prompts, args.seed, args.samples, args.flicker_samples)
    check_case(wanted, args.out if args.out.is_dir() else args.out.parent)
    identity = {"benchmark": "vbench", "samples": args.samples, "frames": args.frames}
    left, failures = make_films(args, wanted, identity, args.frames)
    say_what_is_missing(left, failures)
    samples, folder = args.out / "samples", args.out / RESULTS
    if left:
        counts = {"films": len(wanted) - left, "missing": left, "refused": len(failures)}
        document = {"benchmark": "vbench", "scores": {}, "counts": counts, "problems": failures}
        if not write(document, args.json):
            print(f"{len(wanted) - left} of {len(wanted)} films are in {samples}; nothing is measured yet")
        return
    folder.mkdir(exist_ok=True)
    problems: list[dict[str, str]] = []
    asked = {each for prompt in prompts for each in prompt.dimensions}
    asked = asked if names is None else asked & {each.strip().replace("-", "_") for each in names}
    if "temporal_flickering" in asked:
        found, problems = flickering(
            [samples / each.path for each in wanted if each.path.parts[0] == "temporal_flickering"]
        )
        save(found, folder / "unireel_eval_results.json")
    if args.vbench_python is not None:
        drive(args.vbench_python, sorted(asked), args.suite, samples, folder, args.vbench_device)
    measured = any(folder.glob("*_eval_results.json"))
    report(args, read([folder]) if measured else Results(), problems)


def flickering(paths: list[Path]) -> "tuple[Results, list[dict[str, str]]]":
    """Temporal flickering, and films that could not be measured."""
    from unireel.evaluation.vbench.flickering import measure

    results, failed = measure(paths)
    return results, [{"id": str(path), "error": error} for path, error in failed]


def save(results: "Results", path: Path) -> None:
    """Write results as VBench does."""
    from unireel.evaluation.vbench.flickering import upstream
    from unireel.media.atomic import replacing_file

    with replacing_file(path) as temporary:
        temporary.write_text(json.dumps(upstream(results), indent=2) + "\n", encoding="utf-8")


def report(args: argparse.Namespace, results: "Results", problems: list[dict[str, str]]) -> None:
    """Print the dimensions that there are, and the totals if all are; write the page of a suite's run."""
    from unireel.evaluation.reports import vbench_page
    from unireel.evaluation.vbench.dimensions import DIMENSIONS
    from unireel.evaluation.vbench.uncertainty import dimension_scores, group_scores

    scores = dimension_scores(results.raw, results.films)
    missing = [name for name in DIMENSIONS if name not in results.raw]
    if not missing:
        scores = group_scores(results.raw, results.films) | scores
    if args.suite is not None and scores:
        options = [
            "model",
            "suite",
            "dimensions",
            "samples",
            "flicker_samples",
            "frames",
            "steps",
            "guidance",
        ]
        command = command_line(["evaluate", "vbench"], args, [*options, "seed", "scale", "out"])
        write_page(args.out / "report.html", vbench_page(scores, results.films, args.model, command))
    document = {
        "benchmark": "vbench",
        "scores": plain(scores),
        "counts": {"films": sum(map(len, results.films.values())), "failed": len(problems)},
        "missing_dimensions": missing,
        "problems": problems,
    }
    if write(document, args.json):
        return
    print(table(scores, digits=5))
    for each in problems:
        print(f"not measured: {each['error']}")
    if missing:
        print(f"no total: {len(missing)} of 16 dimensions need an installed VBench (--vbench-python)")
