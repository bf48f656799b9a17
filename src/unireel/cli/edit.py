"""``unireel edit``: a film or a picture changed as an instruction says."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.cli.generate import describe, frames_for
from unireel.cli.options import (
    PICTURE_SUFFIX,
    add_model_options,
    check_writable,
    load_film,
    load_model,
    progress_bar,
    real_number,
    require_words,
    whole_number,
)
from unireel.errors import UsageError, UserError

if TYPE_CHECKING:
    from unireel.clip import Clip

MODEL = "pocket/omnivideo"

EPILOG = """examples:
  unireel edit star.mp4 "make the star blue" -o blue.mp4 --compare blue.png
  unireel edit rings.png "remove the red ring" -o fewer.png
  unireel edit star.mp4 "make the star move the opposite way" -o away.mp4 --think
"""


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "edit",
        help="change a film (or a picture) as an instruction says",
        description="Change a film (or a picture) as an instruction says.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "film", type=Path, metavar="FILM", help="a video file, a gif, a png, or a folder of pngs"
    )
    parser.add_argument("instruction", metavar="INSTRUCTION", help="such as 'make the red star blue'")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="as in 'unireel generate'"
    )
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="FILE",
        help="also before, after and difference: .png, .mp4, .webm or .gif",
    )
    parser.add_argument(
        "--think", action="store_true", help="let the model think first, and show its thought"
    )
    parser.add_argument("--seed", type=whole_number(0, 2**63 - 1), default=0, metavar="S", help="default: 0")
    parser.add_argument(
        "--steps", type=whole_number(1, 1000), metavar="K", help="sampling steps (default: the model's)"
    )
    parser.add_argument(
        "--guidance", type=real_number(0, 100), metavar="G", help="scale on the words (default: the model's)"
    )
    parser.add_argument(
        "--source-guidance",
        type=real_number(0, 100),
        metavar="G",
        help="scale on the source film; other than 1 costs a third pass a step (default: the model's)",
    )
    parser.add_argument(
        "--scale", type=whole_number(1, 64), default=1, metavar="INT", help="enlarge every pixel (default: 1)"
    )
    add_model_options(parser)
    parser.set_defaults(run=run, model=MODEL)


def run(args: argparse.Namespace) -> None:
    """Check the request, edit the film, and write it."""
    from unireel.systems.omnivideo.comparison import SUFFIXES, save_comparison

    instruction = require_words("instruction", args.instruction, "make the red star blue")
    source = load_film(args.film)
    check_kinds(source, args.film, args.output)
    if args.compare is not None and args.compare.suffix.lower() not in SUFFIXES:
        raise UsageError(f"'{args.compare}' cannot hold a comparison; accepted: {', '.join(SUFFIXES)}")
    for path in filter(None, (args.output, args.compare)):
        check_writable(path)
    model = load_model(args)
    require_editor(model, args.model)
    thought = model.think(instruction, source) if args.think else None
    if thought:
        print(thought)
    with progress_bar("editing") as progress:
        edited = model.edit(
            source,
            instruction,
            args.seed,
            args.steps,
            args.guidance,
            args.source_guidance,
            progress,
            thought,
        )
    edited.save(args.output, scale=args.scale)
    print(describe(edited, args.output, args.seed, args.scale))
    if args.compare is not None:
        save_comparison(args.compare, source, edited, instruction)
        print(f"{args.compare}  before, after and difference")


def check_kinds(source: "Clip", film: Path, output: Path) -> None:
    """Refuse to edit a film into a picture or a picture into a film.

    Raises:
        UsageError: they differ, or the output's suffix is unknown.
    """
    frames_for(output, None)
    picture = output.suffix.lower() == PICTURE_SUFFIX
    if picture and len(source) > 1:
        raise UsageError(
            f"{film} has {len(source)} frames; edited it needs .mp4, .webm, .gif or a folder, not .png"
        )
    if not picture and len(source) == 1:
        raise UsageError(
            f"{film} is a picture, which is edited to a picture: give the output the suffix .png"
        )


def require_editor(model: Any, name: str) -> None:
    """Raise a :class:`UserError` unless ``model`` can edit."""
    if not hasattr(model, "edit"):
        raise UserError(f"the model '{name}' cannot edit; a model of the system omnivideo can")
