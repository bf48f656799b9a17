"""``unireel ask``: an answer to a question about a film, with the model's confidence in it."""

import argparse
from pathlib import Path
from typing import Any

from unireel.cli import reflect
from unireel.cli.options import add_model_options, load_film, load_model, print_statement, require_words


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "ask",
        help="answer a question about a film",
        description="Answer a question about a film, with the model's confidence in the answer.",
    )
    parser.add_argument(
        "film", type=Path, metavar="FILM", help="a video file, a gif, a png, or a folder of pngs"
    )
    parser.add_argument("question", metavar="QUESTION", help="such as 'how many times does the star jump?'")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_model_options(parser)
    reflect.add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Answer, and print the answer."""
    question = require_words("question", args.question, "what colour is the star?")
    if reflect.is_asked_for(args):
        reflect.run(args, question)
        return
    clip = load_film(args.film)
    answer = load_model(args).ask(clip, question)
    print_statement(answer, args.json, model=args.model, film=str(args.film), question=question)
