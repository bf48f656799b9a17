"""``unireel caption``: a description of a film, with the model's confidence in it."""

import argparse
from pathlib import Path
from typing import Any

from unireel.cli.options import add_model_options, load_film, load_model, print_statement


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "caption",
        help="describe a film",
        description="Describe a film, with the model's confidence in the description.",
    )
    parser.add_argument(
        "film", type=Path, metavar="FILM", help="a video file, a gif, a png, or a folder of pngs"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Describe, and print the description."""
    clip = load_film(args.film)
    caption = load_model(args).caption(clip)
    print_statement(caption, args.json, model=args.model, film=str(args.film))
