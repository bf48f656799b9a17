"""``unireel imagine``: a film and its description, made together."""

import argparse
from pathlib import Path
from typing import Any

from unireel.cli.generate import describe, frames_for
from unireel.cli.options import (
    add_model_options,
    check_writable,
    load_film,
    load_model,
    print_statement,
    progress_bar,
    real_number,
    require_words,
    whole_number,
)
from unireel.errors import UsageError

EPILOG = """example:
  unireel imagine "a red star jumps" -o star.mp4 --model my-univigu
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
    parser.add_argument("prompt", metavar="PROMPT", help="what the film shows")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help=".mp4, .webm or .gif; .png for a picture; a name without a suffix for a folder of pngs",
    )
    parser.add_argument("--image", type=Path, metavar="PNG", help="the first frame (of a film: its first)")
    parser.add_argument(
        "--frames", type=whole_number(1, 100_000), metavar="N", help="length (default: the model's)"
    )
    parser.add_argument("--seed", type=whole_number(0, 2**63 - 1), default=0, metavar="S", help="default: 0")
    for name, what in (("--steps", "the film's"), ("--text-steps", "the description's")):
        parser.add_argument(
            name,
            type=whole_number(1, 1000),
            metavar="K",
            help=f"{what} sampling steps (default: the model's)",
        )
    parser.add_argument(
        "--guidance", type=real_number(0, 100), metavar="G", help="guidance scale (default: the model's)"
    )
    parser.add_argument(
        "--scale", type=whole_number(1, 64), default=1, metavar="INT", help="enlarge every pixel (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_model_options(parser)
    parser.set_defaults(run=run)


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
