"""What the benchmarks' commands share: scores as JSON and as a table, and files for them."""

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.cli.options import check_writable
from unireel.errors import UserError

if TYPE_CHECKING:
    from unireel.evaluation.page import Figures


def add_json_option(parser: Any) -> None:
    """Add ``--json``."""
    parser.add_argument(
        "--json", metavar="FILE", help="also write the scores to FILE; '-' prints nothing else"
    )


def check_file(path: Path) -> None:
    """Like :func:`check_writable`, also for names without a suffix."""
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; name a file")
    check_writable(path.with_suffix(path.suffix or ".json"))


def check_json(target: str | None) -> None:
    """Find out whether ``--json`` can be written before any work is spent on it."""
    if target not in (None, "-"):
        check_file(Path(target))


def add_page_option(parser: Any) -> None:
    """Add ``--page``."""
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="also write an HTML page that needs no network"
    )


def write_page(path: Path, content: str) -> None:
    """Write a page whole, or not at all."""
    from unireel.media.atomic import replacing_file

    with replacing_file(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def command_line(words: Sequence[str], args: argparse.Namespace, options: Sequence[str]) -> str:
    """The command that gives the same again: ``words``, then those of ``options`` that were given."""
    given = {name: getattr(args, name) for name in options}
    flags = [
        [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        for name, value in given.items()
        if value is not None and value is not False
    ]
    return shlex.join(["unireel", *words, *(word for flag in flags for word in flag)])


def plain(scores: "Figures") -> dict[str, dict[str, float]]:
    """Scores as JSON: ``{"value", "low", "high", "n"}``, or ``{"value"}`` alone."""
    return {
        name: {"value": score} if isinstance(score, int | float) else asdict(score)
        for name, score in scores.items()
    }


def write(document: Mapping[str, Any], target: str | None) -> bool:
    """Write the JSON document where ``--json`` says; whether it went to the standard output."""
    from unireel.media.atomic import replacing_file

    if target is None:
        return False
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    if target == "-":
        print(text, end="")
        return True
    with replacing_file(Path(target)) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return False


def table(scores: "Figures", factor: float = 1.0, digits: int = 3) -> str:
    """The scores as text, one a line; ``factor`` 100 shows percent."""
    width = max(map(len, scores), default=0)
    lines = [f"{'':{width}s}    value    95 % interval        n"]
    for name, score in scores.items():
        if isinstance(score, int | float):
            lines.append(f"{name:{width}s}  {factor * score:7.{digits}f}")
        else:
            ends = f"{factor * score.low:7.{digits}f} to {factor * score.high:6.{digits}f}  {score.n:6d}"
            lines.append(f"{name:{width}s}  {factor * score.value:7.{digits}f}  {ends}")
    return "\n".join(lines)
