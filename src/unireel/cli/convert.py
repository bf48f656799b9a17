"""``unireel convert``: published weights from their own file layouts into folders of safetensors."""

import argparse
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "convert",
        help="bring published weights into folders of safetensors",
        description="Bring published weights into folders of safetensors. Pickles are read without running them; any "
        "tensor that is missing, unexpected or of another shape is an error, and nothing is written.",
    )
    kinds = parser.add_subparsers(dest="kind", metavar="MODEL", required=True)
    omnivideo = kinds.add_parser("omnivideo", help="Omni-Video 11B (its folder omni_ckpts)")
    omnivideo.add_argument("source", type=Path, metavar="FOLDER", help="has transformer/model.pt")
    omnivideo.add_argument(
        "target", type=Path, nargs="?", metavar="NEW_FOLDER", help="left out: look and report only"
    )
    omnivideo.set_defaults(run=run_omnivideo)


def run_omnivideo(args: argparse.Namespace) -> None:
    """Convert, and print what was found."""
    from unireel.systems.omnivideo.released import convert

    print(convert(args.source, args.target))
    if args.target is not None:
        print(f"written to {args.target}")
