"""What several commands share: options that choose a model, checks before the work, progress, printing."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.errors import UsageError, UserError

if TYPE_CHECKING:
    from unireel.clip import Clip

DEFAULT_MODEL = "pocket/base"
FILM_SUFFIXES = (".mp4", ".webm", ".gif")
PICTURE_SUFFIX = ".png"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--model`` and ``--device``."""
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="a packaged model, a model folder, or a hub id owner/name (default: %(default)s)",
    )
    parser.add_argument(
        "--device", help="cpu, cuda, cuda:1, mps (default: CUDA if there is any, else the CPU)"
    )


def add_fast_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--fast`` and ``--profile``, for commands that make films; see :func:`chosen_speed`."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--fast",
        action=argparse.BooleanOptionalAction,
        help="make films faster, in bfloat16 where the machine computes faster in it (default: on processors, without "
        "rounding anything)",
    )
    group.add_argument(
        "--profile",
        metavar="NAME",
        help="--fast, and leave something out that costs quality: early-guidance, cached, half-steps, "
        "draft or few-steps (docs/performance.md)",
    )


def chosen_speed(args: argparse.Namespace) -> bool | str | None:
    """What ``fast`` of :func:`unireel.load` should be."""
    return getattr(args, "profile", None) or getattr(args, "fast", None)


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: an integer in ``[low, high]``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is outside {low} to {high}")
        return value

    return parse


def real_number(low: float, high: float) -> Callable[[str], float]:
    """An argparse type: a number in ``[low, high]``."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is outside {low:g} to {high:g}")
        return value

    return parse


def require_words(what: str, text: str, example: str) -> str:
    """``text`` without surrounding space.

    Raises:
        UsageError: there is nothing else in it.
    """
    if not text.strip():
        raise UsageError(f"the {what} is empty; write one, for example '{example}'")
    return text.strip()


def check_writable(path: Path) -> None:
    """Find out whether ``path`` can be written before any work is spent on it.

    Raises:
        UserError: its folder does not exist or takes no files, or a folder stands where a file should.
    """
    is_folder = path.suffix == ""
    if is_folder and path.is_file():
        raise UserError(f"cannot write {path}: it is a file; name a new folder")
    if not is_folder and path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; name a file")
    parent = path.parent
    if not parent.is_dir():
        raise UserError(f"cannot write {path}: the folder {parent} does not exist; create it first")
    try:
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def load_model(args: argparse.Namespace) -> Any:
    """The pipeline that ``--model``, ``--device`` and, where there are such, ``--fast`` and ``--profile`` ask for."""
    from unireel.hub import find_model, load

    folder = find_model(args.model)
    with progress_bar(f"loading {args.model}"):
        quieten_libraries()
        return load(folder, device=args.device, fast=chosen_speed(args))


def quieten_libraries() -> None:
    """Keep the libraries' own progress bars and advice off the terminal; their errors still come through."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()


def load_film(path: Path) -> "Clip":
    """The film in a file or in a folder of pictures.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    from unireel.clip import Clip

    if not path.exists():
        raise UserError(f"there is no film {path}; accepted: a video file, a gif, a png, or a folder of pngs")
    return Clip.load(path)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the standard error, only on a terminal; yields ``progress(done, total)``."""
    from tqdm import tqdm

    with tqdm(desc=label, disable=not sys.stderr.isatty(), leave=False, dynamic_ncols=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def print_statement(statement: Any, as_json: bool, **context: str) -> None:
    """Print an answer or a caption: its text, its confidence, and why not to rely on it.

    Args:
        statement: has ``text``, ``confidence`` (0 to 1), ``reliable``, ``note`` (None or one line) and
            ``evidence`` (the frames looked at, with their times in seconds).
        as_json: print one JSON object, ``context`` first, instead of text.
        context: what the statement is about.
    """
    if as_json:
        fields = {name: getattr(statement, name) for name in ("text", "confidence", "reliable", "note")}
        fields["evidence"] = [vars(each) for each in statement.evidence]
        print(json.dumps(context | fields, ensure_ascii=False))
        return
    print(statement.text)
    print(f"confidence {statement.confidence:.0%}")
    if not statement.reliable:
        print(f"unreliable: {statement.note}")
    elif statement.note:
        print(f"note: {statement.note}")
