"""``unireel train``: train a model from a recipe, or go on with it."""

import argparse
from typing import Any

EPILOG = """\
An interrupted run goes on where it stopped when the same command is given again. Ctrl-C finishes the current
step and writes a checkpoint first. For several devices: torchrun --nproc-per-node N -m unireel.cli.main train
RECIPE ...

examples:
  unireel train recipes/pocket/autoencoder.yaml
  unireel train recipes/pocket/autoencoder.yaml optimizer.lr=1e-3 steps=500 output=runs/try
  unireel train recipes/pocket/autoencoder.yaml --plan
"""


def add_parser(subparsers: "argparse._SubParsersAction[Any]") -> None:
    """Add the ``train`` command."""
    listed = subparsers.add_parser("train", help="train a model from a recipe")
    parser = mixed(type(listed))(
        prog=listed.prog,
        description="Train a model from a recipe, or go on with a run that was stopped.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    subparsers.choices["train"] = parser
    parser.add_argument("recipe", metavar="RECIPE", help="YAML file of the recipe")
    parser.add_argument(
        "overrides", metavar="KEY=VALUE", nargs="*", help="settings that replace the recipe's"
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="insist on a checkpoint to go on from")
    start.add_argument("--fresh", action="store_true", help="start from nothing; an earlier run is put aside")
    start.add_argument(
        "--plan", action="store_true", help="check the recipe and say what would be done, then stop"
    )
    start.add_argument(
        "--export", action="store_true", help="write the weights of the newest checkpoint, then stop"
    )
    parser.add_argument(
        "--allow",
        metavar="KEY",
        action="append",
        default=[],
        help="accept that KEY differs from the interrupted run",
    )
    parser.set_defaults(run=run)


def mixed(base: type[argparse.ArgumentParser]) -> type[argparse.ArgumentParser]:
    """A parser like ``base`` that takes options before, between and after the ``KEY=VALUE`` words.

    ``argparse`` ends an open list of words at the first option, and ``parse_intermixed_args`` is not for commands.
    """

    class Mixed(base):  # type: ignore[misc,valid-type]
        def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
            options: list[str] = []
            words: list[str] = []
            for word in args or ():
                value = bool(options) and options[-1] == "--allow"
                (options if word.startswith("-") or value else words).append(word)
            return super().parse_known_args([*options, *words], namespace)

    return Mixed


def run(args: argparse.Namespace) -> int:
    """Train; exit code 0 when done, also when stopped in a way that can be resumed."""
    from unireel import training

    recipe = training.load_recipe(args.recipe, args.overrides)
    if args.plan:
        print(training.plan(recipe))
    elif args.export:
        print(training.export_only(recipe))
    else:
        resume = "never" if args.fresh else "always" if args.resume else "auto"
        training.run(recipe, resume, args.allow)
    return 0
