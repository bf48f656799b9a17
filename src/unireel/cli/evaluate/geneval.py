"""``unireel evaluate geneval``: make GenEval's images in its own layout; its detectors judge them."""

import argparse
from pathlib import Path
from typing import Any

from unireel.cli.evaluate.making import add_making_options, make_films, prepare_folder, say_what_is_missing
from unireel.cli.evaluate.output import add_json_option, check_json, write
from unireel.cli.options import whole_number

EPILOG = """examples:
  unireel evaluate geneval --model M --metadata evaluation_metadata.jsonl --out runs/geneval
  unireel evaluate geneval ... --shard 1/4 --device cuda:0        (and 2/4 to 4/4 on other devices)
  python evaluation/evaluate_images.py runs/geneval/samples --outfile results.jsonl ...     (GenEval's own)
  unireel evaluate aggregate geneval results.jsonl

Images are films of one frame. A run that was stopped goes on when it is started again with the same arguments.
"""


def add_parser(benchmarks: Any) -> None:
    """Register the benchmark."""
    parser = benchmarks.add_parser(
        "geneval",
        help="make GenEval's images in its own layout",
        description="Make GenEval's images in its own layout, for its own detectors to judge.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--metadata", type=Path, required=True, metavar="FILE", help="GenEval's evaluation_metadata.jsonl"
    )
    parser.add_argument(
        "--images", type=whole_number(1, 1000), default=4, metavar="N", help="of each prompt (default: 4)"
    )
    add_making_options(parser, batch=16)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Make what is missing, and say what there is."""
    from unireel.evaluation.geneval.suite import read_prompts, wanted_images, write_metadata

    check_json(args.json)
    prompts = read_prompts(args.metadata)
    args.out = args.out or Path("geneval")
    prepare_folder(args.out)
    wanted = wanted_images(prompts, args.seed, args.images)
    left, failures = make_films(args, wanted, {"benchmark": "geneval", "prompts": len(prompts)}, frames=1)
    write_metadata(prompts, args.out / "samples")
    counts = {
        "prompts": len(prompts),
        "images": len(wanted) - left,
        "missing": left,
        "refused": len(failures),
    }
    document = {
        "benchmark": "geneval",
        "folder": str(args.out / "samples"),
        "counts": counts,
        "problems": failures,
    }
    if write(document, args.json):
        return
    say_what_is_missing(left, failures)
    print(f"{len(wanted) - left} of {len(wanted)} images are in {args.out / 'samples'}")
