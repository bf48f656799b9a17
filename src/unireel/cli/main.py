"""The ``unireel`` command: chooses a command, runs it, and turns failures into one line and an exit code.

Exit codes: 0 success, 1 failure, 2 usage, 130 interrupted. Only the module of the chosen command is imported,
and no command module imports a tensor library before it runs, so that ``unireel --help`` answers at once.
"""

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import NoReturn

from unireel.errors import UsageError, UserError
from unireel.version import VERSION

DESCRIPTION = "Make, edit and understand video with one model."


@dataclass(frozen=True)
class Command:
    """A command: its module has ``add_parser(subparsers)``, whose parser sets the default ``run(args)``."""

    module: str
    summary: str


COMMANDS = {
    "generate": Command("unireel.cli.generate", "make a film (or a picture) from words"),
    "imagine": Command("unireel.cli.imagine", "make a film and its description together"),
    "ask": Command("unireel.cli.ask", "answer a question about a film"),
    "caption": Command("unireel.cli.caption", "describe a film"),
    "edit": Command("unireel.cli.edit", "change a film (or a picture) as an instruction says"),
    "chat": Command("unireel.cli.chat", "talk about a film: ask, edit, ask again"),
    "serve": Command("unireel.cli.serve", "serve a model over HTTP"),
    "demo": Command("unireel.cli.demo", "a tour on the model that ships in the box; writes demo/index.html"),
    "world": Command("unireel.cli.world", "look at the World that the pocket models are trained on"),
    "batch": Command("unireel.cli.batch", "many films made, described or asked about"),
    "train": Command("unireel.cli.train", "train a model from a recipe"),
    "data": Command("unireel.cli.data", "tools for the films that full-scale trainings learn from"),
    "features": Command("unireel.cli.features", "compute what a training reads, once and in parallel"),
    "convert": Command("unireel.cli.convert", "bring published weights into folders of safetensors"),
    "evaluate": Command("unireel.cli.evaluate", "measure a model, with confidence intervals"),
    "compare": Command("unireel.cli.compare", "two evaluations side by side, with paired tests"),
    "bench": Command("unireel.cli.bench", "speed side by side with stock diffusers"),
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are :class:`UsageError`, one line without the usage block."""

    def error(self, message: str) -> NoReturn:
        """Raise ``UsageError`` with ``message`` and where to read more."""
        raise UsageError(f"{message} (see '{self.prog} --help')")


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """The parser of the whole command line; only ``chosen`` gets its options, the others a summary line."""
    parser = Parser(prog="unireel", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"unireel {VERSION}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, command in COMMANDS.items():
        if name != chosen:
            subparsers.add_parser(name, help=command.summary, add_help=False)
            continue
        import_module(command.module).add_parser(subparsers)
        subparsers.choices[name].add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of a failure"
        )
    return parser


def run_command(argv: Sequence[str]) -> int:
    """Parse ``argv`` and run the command it names; returns the exit code, raises what the command raises."""
    chosen = next((word for word in argv if not word.startswith("-")), None)
    if chosen is not None and chosen not in COMMANDS:
        raise UsageError(f"there is no command '{chosen}'; commands are {', '.join(COMMANDS)}")
    parser = build_parser(chosen)
    try:
        args = parser.parse_args(argv)
    except SystemExit:
        sys.stdout.flush()  # of the help, while a reader that has gone is still our matter
        raise
    if args.command is None:
        parser.print_help(sys.stderr)
        return UsageError.exit_code
    code = args.run(args)
    sys.stdout.flush()
    return code or 0


def report(message: str) -> None:
    """Print ``message`` on the standard error as the one line that a failure gets."""
    print(f"unireel: error: {' '.join(message.split())}", file=sys.stderr)


def show_warning(message: Warning | str, category: type[Warning], *place: object) -> None:
    """Print a warning as one line, without the place in the code that gave it."""
    print(f"unireel: warning: {' '.join(str(message).split())}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: the words after ``unireel``; those of the process by default.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in argv
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            return run_command(argv)
    except KeyboardInterrupt:
        print("unireel: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (a pager, head) has gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UserError as error:
        if debug:
            traceback.print_exc()
        report(str(error))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the boundary of the process: nothing goes on after it
        if debug:
            traceback.print_exc()
            return 1
        hint = "" if isinstance(error, OSError) else " (not your fault: '--debug' shows where)"
        report(f"{type(error).__name__}: {error}{hint}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
