"""``unireel evaluate univid``: prompts that need a picture, controls of the understanding path, self-verified films."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.cli.evaluate import worldbench
from unireel.cli.evaluate.making import add_sampling_options
from unireel.cli.evaluate.output import add_json_option, check_json
from unireel.cli.options import add_model_options, load_model, whole_number
from unireel.errors import UserError

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
  unireel evaluate univid --model runs/univid/stage3/export --categories ref,t2v/overall,shuffled --n 500
  unireel evaluate univid --model runs/univid/stage3/export --categories t2v/overall --alignment linear --n 500
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
    add_model_options(bench)
    bench.add_argument(
        "--categories", metavar="NAMES", default="ref,t2v/overall,shuffled", help="default: %(default)s"
    )
    bench.add_argument("--alignment", choices=SCHEDULES, help="temperature schedule (default: the model's)")
    bench.add_argument("--views", choices=VIEWS, help="how pictures are read (default: the model's)")
    bench.add_argument("--split", choices=worldbench.SPLITS, default="test", help="default: %(default)s")
    bench.add_argument(
        "--n",
        type=whole_number(1, worldbench.MOST_ITEMS),
        default=100,
        metavar="N",
        help="items per figure (default: 100)",
    )
    add_sampling_options(bench, batch=16)
    bench.add_argument(
        "--out",
        type=Path,
        default=Path("univid-evaluation"),
        metavar="FOLDER",
        help="records, scores and report; a rerun goes on (default: %(default)s)",
    )
    add_json_option(bench)
    bench.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Check the request, measure what is missing, print the scores and write the report."""
    from unireel.evaluation.fingerprint import fingerprint
    from unireel.evaluation.worldbench import Ledger, Plan, Setting, chosen_parts
    from unireel.hub import find_model, read_card
    from unireel.systems.univid.measures import all_measures

    parts = tuple(chosen_parts(args.categories.split(","), all_measures()))
    folder = worldbench.prepared_folder(args)
    check_json(args.json)
    found = find_model(args.model)
    if read_card(found)["system"] != "univid":
        raise UserError(
            f"'{args.model}' is a model of the system {read_card(found)['system']}; this needs univid"
        )
    names = ("model", "split", "seed", "steps", "guidance", "alignment", "views")
    identity = {name: getattr(args, name) for name in names}
    ledger = Ledger(folder, identity | {"weights": fingerprint(found)})
    model = load_model(args)
    model.settings = settings_of(model, args)
    plan = Plan(
        parts, args.n, Setting(args.split, args.seed, model.size, args.steps, args.guidance, args.batch)
    )
    result = worldbench.measured(args.model, model, plan, ledger)
    worldbench.finish(args, result, plan, ledger)


def settings_of(model: "UniVid", args: argparse.Namespace) -> Any:
    """The model's settings with what the options change."""
    from unireel.systems.univid.connector import Mix

    settings = model.settings
    if args.alignment is not None:
        settings = replace(settings, alignment=replace(settings.alignment, schedule=args.alignment))
    if args.views is not None:
        settings = replace(settings, mix=Mix(float(args.views != "vae"), float(args.views != "vit")))
    return settings
