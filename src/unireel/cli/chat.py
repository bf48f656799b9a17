"""``unireel chat``: ask about a film, edit it, ask again; the model itself decides which of them is meant."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.cli.edit import MODEL, require_editor
from unireel.cli.generate import describe
from unireel.cli.options import (
    PICTURE_SUFFIX,
    add_model_options,
    check_writable,
    load_film,
    load_model,
    progress_bar,
    whole_number,
)
from unireel.errors import UserError

if TYPE_CHECKING:
    from unireel.systems.omnivideo.chat import ChatTurn, Conversation

HELP = """/undo takes the last film back, /new goes on without a film, /save FILE writes the running film, /quit ends"""

EPILOG = f"""within the conversation:
  {HELP}

examples:
  unireel chat star.mp4
  unireel chat star.mp4 --say "what colour is the star?" --say "make it blue" --output turns
"""


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "chat",
        help="talk about a film: ask, edit, ask again",
        description="Talk about a film. Each line is about the film as it is now; the model decides whether to answer "
        "or to make something. Lines are read from the standard input, unless --say gives them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("film", type=Path, nargs="?", metavar="FILM", help="to begin with")
    parser.add_argument("--say", action="append", metavar="TEXT", help="a line; may be repeated")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where films that are made go, with comparisons (default: nowhere)",
    )
    parser.add_argument("--think", action="store_true", help="let the model think before it makes something")
    parser.add_argument("--seed", type=whole_number(0, 2**63 - 1), default=0, metavar="S", help="default: 0")
    parser.add_argument(
        "--scale", type=whole_number(1, 64), default=1, metavar="INT", help="enlarge every pixel (default: 1)"
    )
    add_model_options(parser)
    parser.set_defaults(run=run, model=MODEL)


def run(args: argparse.Namespace) -> None:
    """Hold the conversation; in one that is typed, an error ends its line and not the conversation."""
    clip = None if args.film is None else load_film(args.film)
    if args.output is not None:
        check_writable(args.output)
    model = load_model(args)
    require_editor(model, args.model)
    conversation = model.chat(clip, args.think, args.seed)
    for line in lines(args.say):
        if line == "/quit":
            break
        try:
            answer(conversation, line, args)
        except UserError as error:
            if args.say:
                raise
            print(f"unireel: error: {error}", file=sys.stderr)
        sys.stdout.flush()


def lines(said: list[str] | None) -> Iterator[str]:
    """The lines to answer: those given, or those typed until the input ends."""
    if said is not None:
        yield from said
        return
    if sys.stdin.isatty():
        print(HELP)
    while True:
        if sys.stdin.isatty():
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def answer(conversation: "Conversation", line: str, args: argparse.Namespace) -> None:
    """One line of the conversation."""
    command, _, rest = line.partition(" ")
    if command == "/undo":
        conversation.undo()
        print("took the last film back")
    elif command == "/new":
        conversation.forget()
        print("no film")
    elif command == "/save":
        _save(conversation, Path(rest.strip()), args)
    elif line.startswith("/"):
        raise UserError(f"there is no command '{command}'; {HELP}")
    else:
        before = conversation.clip
        with progress_bar("making") as progress:
            turn = conversation.say(line, progress)
        _show(turn, before, len(conversation.turns), args)


def _save(conversation: "Conversation", path: Path, args: argparse.Namespace) -> None:
    if conversation.clip is None:
        raise UserError("there is no film to save: make one first")
    check_writable(path)
    conversation.clip.save(path, scale=args.scale)
    print(f"saved {path}")


def _show(turn: "ChatTurn", before: Any, number: int, args: argparse.Namespace) -> None:
    from unireel.systems.omnivideo.comparison import save_comparison

    if turn.thought:
        print(turn.thought)
    if turn.clip is None:
        print(f"{turn.text}  ({turn.confidence:.0%})")
        return
    what = "a picture" if len(turn.clip) == 1 else "a film"
    if args.output is None:
        print(f"made {what}  (/save FILE keeps it)")
        return
    args.output.mkdir(exist_ok=True)
    path = args.output / f"turn-{number:02d}{PICTURE_SUFFIX if len(turn.clip) == 1 else '.mp4'}"
    turn.clip.save(path, scale=args.scale)
    print(describe(turn.clip, path, args.seed, args.scale))
    if before is not None:
        save_comparison(args.output / f"turn-{number:02d}-compare.png", before, turn.clip, turn.said)
