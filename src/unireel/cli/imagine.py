"""``unireel imagine``: a film and its description, made together."""

import argparse
from typing import Any

from unireel.cli.generate import add_film_options, describe, frames_for
from unireel.cli.options import (
    check_writable,
    load_film,
    load_model,
    print_statement,
    progress_bar,
    require_words,
    whole_number,
)
from unireel.errors import UsageError

MODEL = "pocket/univigu"

EPILOG = """examples:
  unireel imagine "a red star jumps" -o star.mp4
  unireel imagine "a red star jumps" -o star.mp4 --model my-univigu --text-steps 32 --json
"""


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "imagine",
        help="make a film and its description together",
        description="Make a film and its detailed description together, with a model of Uni-ViGU.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_film_options(parser)
    parser.add_argument(
        "--text-steps",
        type=whole_number(1, 1000),
        metavar="K",
        help="the description's sampling steps (default: as many as the film's)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run, model=MODEL)


def run(args: argparse.Namespace) -> None:
    """Check the request, make both, write the film and print the description."""
    prompt = require_words("prompt", args.prompt, "a red star jumps twice")
    frames = frames_for(args.output, args.frames)
    check_writable(args.output)
    image = load_film(args.image).frames[0] if args.image else None
    model = load_model(args)
    if not hasattr(model, "imagine"):
        raise UsageError(f"the model {args.model} cannot imagine; name a model of Uni-ViGU with --model")
    with progress_bar("imagining") as progress:
        made = model.imagine(
            prompt,
            image=image,
            frames=frames,
            seed=args.seed,
            steps=args.steps,
            guidance=args.guidance,
            text_steps=args.text_steps,
            progress=progress,
        )
    made.clip.save(args.output, scale=args.scale)
    if not args.json:
        print(describe(made.clip, args.output, args.seed, args.scale))
    print_statement(made.caption, args.json, model=args.model, prompt=prompt, film=str(args.output))
