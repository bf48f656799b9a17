"""``unireel batch``: many films made, described or asked about, on many workers."""

import argparse
import sys
from pathlib import Path
from typing import Any

from unireel.cli.features import add_worker_options
from unireel.cli.options import (
    add_fast_option,
    add_model_options,
    chosen_speed,
    progress_bar,
    quieten_libraries,
    whole_number,
)

EPILOG = """\
Rows are JSON lines:
  generate  {"prompt": "a red star jumps", "seed": 3, "frames": 17}      seed and frames may be left out
  caption   {"film": "star.mp4"}                                         paths are taken from the file's folder
  ask       {"film": "star.mp4", "question": "what colour is the star?", "answer": "red"}
                                             with answers given, the share of right ones is said at the end

FOLDER/results.jsonl has a line for each row that is done. The same command goes on after a stop; rows that were refused
are tried again, and the exit code is 1 while there are any.

examples:
  unireel batch generate prompts.jsonl -o films --workers 4
  unireel batch ask questions.jsonl -o answers --model pocket/univid --ray --workers 64 --gpus 1
"""
SHOWN = 10


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "batch",
        help="many films made, described or asked about",
        description="Make, describe or ask about many films, on as many workers as there are.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", choices=("generate", "caption", "ask"), help="what to do")
    parser.add_argument("rows", type=Path, metavar="ROWS", help="file of JSON lines")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="of the results")
    add_model_options(parser)
    add_fast_option(parser)
    add_worker_options(parser)
    parser.add_argument(
        "--at-once", type=whole_number(1, 1024), default=8, metavar="N", help="rows together (default: 8)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do what is not done yet, and say what came of it."""
    from unireel import batch
    from unireel.evaluation.intervals import rate
    from unireel.hub import find_model
    from unireel.workers import Workers

    doing = Workers(args.workers, "ray" if args.ray else "processes", args.gpus)
    orders = batch.read_orders(args.rows, args.task)
    model = str(find_model(args.model))
    quieten_libraries()
    with progress_bar("rows") as progress:
        results = batch.run(
            args.task,
            orders,
            args.output,
            model,
            args.device,
            chosen_speed(args),
            doing,
            args.at_once,
            progress,
        )
    refused = [
        (order.line, each["error"]) for order, each in zip(orders, results, strict=True) if "error" in each
    ]
    print(f"{len(results) - len(refused)} of {len(results)} rows done: {args.output / batch.RESULTS}")
    judged = [each["right"] for each in results if "right" in each]
    if judged:
        print(f"right: {rate(judged)}")
    for line, error in refused[:SHOWN]:
        print(f"  {args.rows}, line {line}: {error}", file=sys.stderr)
    return 1 if refused else 0
