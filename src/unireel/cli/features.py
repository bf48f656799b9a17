"""``unireel features``: compute what a training reads once and in parallel, instead of in every epoch."""

import argparse
import sys
from typing import Any

from unireel.cli.options import progress_bar, quieten_libraries, real_number, whole_number
from unireel.cli.train import mixed
from unireel.errors import UserError

EPILOG = """\
The same command goes on after a stop. It checks every shard, and makes again what is damaged, changed or new.
Films that cannot be read are left out of the training and named; the exit code is 1 then.

examples:
  unireel features recipes/univid/full-stage1.yaml stage_config.features=cache/openvid --workers 8
  unireel features RECIPE stage_config.features=FOLDER --ray --workers 64 --gpus 1
"""
SHOWN = 10
"""Items without features that are named; the index has them all."""


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the ``features`` command."""
    listed = subparsers.add_parser("features", help="compute what a training reads, once and in parallel")
    parser = mixed(type(listed))(
        prog=listed.prog,
        description="Compute the features of a recipe's films (latents, states of text and understanding) once.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    subparsers.choices["features"] = parser
    parser.add_argument("recipe", metavar="RECIPE", help="its stage_config names the data and the folder")
    parser.add_argument(
        "overrides", metavar="KEY=VALUE", nargs="*", help="settings that replace the recipe's"
    )
    add_worker_options(parser)
    parser.add_argument(
        "--per-shard", type=whole_number(1, 100_000), default=64, metavar="N", help="items (default: 64)"
    )
    parser.add_argument(
        "--rehash", action="store_true", help="read every film, also those that look unchanged"
    )
    parser.add_argument("--remake", action="store_true", help="replace features made with something else")
    parser.set_defaults(run=run)


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Who does the work."""
    parser.add_argument(
        "--workers",
        type=whole_number(0, 10_000),
        default=0,
        metavar="N",
        help="0: this process (default)",
    )
    parser.add_argument(
        "--ray", action="store_true", help="workers on Ray Data, not processes of this machine"
    )
    parser.add_argument(
        "--gpus", type=real_number(0, 64), default=0.0, metavar="G", help="of each on Ray (default: 0)"
    )


def run(args: argparse.Namespace) -> int:
    """Find out what is to be made, and make it."""
    from unireel.config import from_dict
    from unireel.data.features import build
    from unireel.training.recipe import load_recipe, stage_class
    from unireel.workers import Workers

    quieten_libraries()
    doing = Workers(args.workers, "ray" if args.ray else "processes", args.gpus)
    recipe = load_recipe(args.recipe, args.overrides)
    stage = stage_class(recipe)
    found = stage.features(from_dict(stage.config_class, recipe.stage_config, "stage_config"))
    if found is None:
        raise UserError(f"{recipe.stage} has no features to cache, or stage_config.features names no folder")
    folder, source = found
    with progress_bar("items") as progress:
        built = build(folder, source, doing, args.per_shard, args.rehash, args.remake, progress)
    counts = f"{built.made} made, {built.kept} kept, {built.damaged} damaged shard(s)"
    print(f"{folder}: {counts}, {len(built.problems)} of {len(source.items)} without")
    for row in built.problems[:SHOWN]:
        print(f"  {row.path}: {row.problem}", file=sys.stderr)
    return 1 if built.problems else 0
