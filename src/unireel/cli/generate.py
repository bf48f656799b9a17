"""``unireel generate``: a film or a picture from words, and from a first frame if one is given."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.cli.options import (
    FILM_SUFFIXES,
    PICTURE_SUFFIX,
    add_fast_option,
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

BATCH = 8
"""Films made at once; those of a finished batch are on disk when the next one starts."""

EPILOG = """examples:
  unireel generate "a red star jumps twice, a blue ring stays still" -o star.mp4
  unireel generate "the ball rolls to the right" --image first.png -o ball.mp4
  unireel generate "two squares" -o squares.png --scale 8
"""


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "generate",
        help="make a film (or a picture) from words",
        description="Make a film (or a picture) from words.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_film_options(parser)
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="PNG",
        help="a picture that the prompt speaks of ('the colour shown in this picture'); for models that understand it",
    )
    parser.add_argument(
        "--best-of",
        type=whole_number(1, 64),
        default=1,
        metavar="N",
        help="make N films, keep the one that the model itself believes shows the prompt (default: 1)",
    )
    parser.add_argument(
        "-n",
        dest="count",
        type=whole_number(1, 10_000),
        default=1,
        metavar="COUNT",
        help="make COUNT films with seeds S, S+1, ... and number their files",
    )
    parser.set_defaults(run=run)


def add_film_options(parser: argparse.ArgumentParser) -> None:
    """Add the prompt, where the film goes, and what films are made of: for every command that makes one."""
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
        "--frames",
        type=whole_number(1, 100_000),
        metavar="N",
        help="length; 1 makes a picture (default: the model's)",
    )
    parser.add_argument("--seed", type=whole_number(0, 2**63 - 1), default=0, metavar="S", help="default: 0")
    parser.add_argument(
        "--steps", type=whole_number(1, 1000), metavar="K", help="sampling steps (default: the model's)"
    )
    parser.add_argument(
        "--guidance", type=real_number(0, 100), metavar="G", help="guidance scale (default: the model's)"
    )
    parser.add_argument(
        "--scale", type=whole_number(1, 64), default=1, metavar="INT", help="enlarge every pixel (default: 1)"
    )
    add_fast_option(parser)
    add_model_options(parser)


def run(args: argparse.Namespace) -> None:
    """Check the request, make the films, and write them."""
    prompt = require_words("prompt", args.prompt, "a red star jumps twice")
    frames = frames_for(args.output, args.frames)
    paths = numbered(args.output, args.count)
    for path in paths:
        check_writable(path)
    image = load_film(args.image) if args.image else None
    options = {"steps": args.steps, "guidance": args.guidance} | (
        {} if frames is None else {"frames": frames}
    )
    model = load_model(args)
    if args.reference or args.best_of > 1:
        make_understood(args, model, prompt, paths, image, options)
        return
    for start in range(0, args.count, BATCH):
        seeds = [args.seed + index for index in range(start, min(start + BATCH, args.count))]
        with progress_bar(f"{start + 1} to {start + len(seeds)} of {args.count}") as progress:
            clips = model.generate_many(
                [prompt] * len(seeds),
                images=None if image is None else [image.frames[0]] * len(seeds),
                seeds=seeds,
                progress=progress,
                **options,
            )
        for path, clip, seed in zip(paths[start:], clips, seeds, strict=False):
            clip.save(path, scale=args.scale)
            print(describe(clip, path, seed, args.scale))
            sys.stdout.flush()


def make_understood(
    args: argparse.Namespace,
    model: Any,
    prompt: str,
    paths: list[Path],
    image: "Clip | None",
    options: dict[str, Any],
) -> None:
    """Films of a prompt that speaks of a picture, or the best of several, one after the other.

    Raises:
        UserError: the model does neither.
    """
    if not hasattr(model, "best"):
        raise UserError(f"--best-of needs a model that can judge its own films, not '{args.model}'")
    if args.reference and not hasattr(model, "resolve"):
        raise UserError(
            f"--reference needs a model that understands its prompts (system univid), not '{args.model}'"
        )
    options["image"] = None if image is None else image.frames[0]
    if args.reference:
        options["reference"] = load_film(args.reference).frames[0]
    for number, path in enumerate(paths):
        seed, beliefs = args.seed + number * args.best_of, ()
        with progress_bar(f"{number + 1} of {args.count}") as progress:
            if args.best_of == 1:
                clip = model.generate(prompt, seed=seed, progress=progress, **options)
            else:
                chosen = model.best(prompt, args.best_of, seed=seed, progress=progress, **options)
                clip, seed = chosen.clip, seed + chosen.number
                beliefs = chosen.verifications[chosen.number].beliefs
        clip.save(path, scale=args.scale)
        print(describe(clip, path, seed, args.scale))
        for belief in beliefs:
            print(f"  {belief.probability:.2f}  {belief.fact}")
        sys.stdout.flush()


def frames_for(output: Path, frames: int | None) -> int | None:
    """The number of frames that ``output`` and ``--frames`` ask for together; None leaves it to the model.

    Raises:
        UsageError: the suffix is unknown, or a film should go into one picture.
    """
    suffix = output.suffix.lower()
    if suffix not in (*FILM_SUFFIXES, PICTURE_SUFFIX, ""):
        accepted = ", ".join((*FILM_SUFFIXES, PICTURE_SUFFIX))
        raise UsageError(
            f"'{output}' has an unknown suffix; accepted: {accepted}, or none for a folder of pngs"
        )
    if suffix != PICTURE_SUFFIX:
        return frames
    if frames not in (None, 1):
        raise UsageError(
            f"'{output}' is a picture and cannot hold {frames} frames; use --frames 1 or a film's suffix"
        )
    return 1


def numbered(output: Path, count: int) -> list[Path]:
    """``star.mp4`` for one film, ``star-1.mp4`` ... ``star-N.mp4`` for more, zero-padded to sort well."""
    if count == 1:
        return [output]
    width = len(str(count))
    return [
        output.with_name(f"{output.stem}-{index:0{width}d}{output.suffix}") for index in range(1, count + 1)
    ]


def describe(clip: "Clip", path: Path, seed: int, scale: int) -> str:
    """One line about a film that was written."""
    count, height, width = clip.frames.shape[:3]
    size = f"{width * scale}x{height * scale}"
    if count == 1:
        return f"{path}  a picture, {size}, seed {seed}"
    return f"{path}  {count} frames, {size}, {clip.fps:g} fps, seed {seed}"
