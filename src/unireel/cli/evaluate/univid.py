"""``unireel evaluate univid``: prompts that need a picture, controls of the understanding path, self-verified films."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from unireel.cli.evaluate import systems

if TYPE_CHECKING:
    from unireel.systems.univid.pipeline import UniVid

SCHEDULES = ("none", "constant", "step", "linear", "cosine")
VIEWS = ("vit", "vae", "both")

EPILOG = """categories:
  ref        "a circle of the colour shown in this picture jumps twice", with the picture; also ref/colour, ref/shape,
             ref/object
  t2v        WorldBench's films from words
  shuffled   t2v/overall, each film with what was understood of another prompt
  deaf       t2v/overall without the understanding model; unread: without the decoder's own text encoder
  best       t2v/overall, the best of 4 films by the model's own judgement

examples:
  unireel evaluate univid --categories ref,t2v/overall,shuffled --n 500
  unireel evaluate univid --categories t2v/overall --alignment linear --n 500
"""


def add_parser(benchmarks: Any) -> None:
    """Register the benchmark."""
    bench = benchmarks.add_parser(
        "univid",
        help="what a model understands of pictures and prompts, by the films that it makes of them",
        description="Judge by the World's ground truth whether understanding steers generation.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    systems.add_options(bench, "univid", "ref,t2v/overall,shuffled")
    bench.add_argument("--alignment", choices=SCHEDULES, help="temperature schedule (default: the model's)")
    bench.add_argument("--views", choices=VIEWS, help="how pictures are read (default: the model's)")
    bench.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measure what is missing, print the scores and write the report."""
    from unireel.systems.univid.measures import all_measures

    def change(model: "UniVid") -> None:
        model.settings = settings_of(model, args)

    systems.measure(args, "univid", all_measures(), ("alignment", "views"), change)


def settings_of(model: "UniVid", args: argparse.Namespace) -> Any:
    """The model's settings with what the options change."""
    from unireel.systems.univid.connector import Mix

    settings = model.settings
    if args.alignment is not None:
        settings = replace(settings, alignment=replace(settings.alignment, schedule=args.alignment))
    if args.views is not None:
        settings = replace(settings, mix=Mix(float(args.views != "vae"), float(args.views != "vit")))
    return settings
