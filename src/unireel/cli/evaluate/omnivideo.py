"""``unireel evaluate omnivideo``: routing, think mode, and chains of edits."""

import argparse
from typing import Any

from unireel.cli.evaluate import systems

EPILOG = """categories:
  t2v        WorldBench's films from words
  edit       WorldBench's edited films; also edit/add, edit/motion, ...
  route      questions are answered; prompts and instructions are carried out
  think      indirect prompts and instructions ("the opposite direction of left"), with think mode and without;
             also think/film, think/edit
  chain      five edits one after the other

examples:
  unireel evaluate omnivideo --categories edit,route --n 500
  unireel evaluate omnivideo --categories think,chain --split compositional
"""


def add_parser(benchmarks: Any) -> None:
    """Register the benchmark."""
    bench = benchmarks.add_parser(
        "omnivideo",
        help="edits, routing, think mode and chains of edits",
        description="Judge by the World's ground truth what Omni-Video does beside making films.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    systems.add_options(bench, "omnivideo", "edit,route,think,chain")
    bench.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measure what is missing, print the scores and write the report."""
    from unireel.systems.omnivideo.measures import all_measures

    systems.measure(args, "omnivideo", all_measures())
