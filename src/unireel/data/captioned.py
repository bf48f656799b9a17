"""Lists of real films with captions: tables (CSV, JSON, JSON lines, ...) with a row for each film."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unireel.errors import UserError
from unireel.evaluation.tables import rows_of

COLUMNS = {
    "video": ("video", "file", "file_name", "video_path", "path"),
    "caption": ("caption", "prompt", "text"),
    "detailed": ("detailed", "detailed_caption"),
}
"""What columns are called; OpenVid-1M's table has the first two."""

SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov")


@dataclass(frozen=True)
class CaptionedFilm:
    """A film's file name, the short words that it was found with, and a detailed description."""

    video: str
    caption: str = ""
    detailed: str = ""


def read_captioned(
    path: str | Path, needs: Sequence[str] = ("video", "caption"), most: int = 0
) -> tuple[list[CaptionedFilm], list[tuple[str, str]]]:
    """The films of a list in its order, and its bad rows with what is wrong with them.

    Args:
        needs: what a row must have to be taken.
        most: films at most; 0 takes all.

    Raises:
        UserError: the list cannot be read, or no row is good.
    """
    found: dict[str, CaptionedFilm] = {}
    bad: list[tuple[str, str]] = []
    for number, row in enumerate(rows_of(Path(path)), 1):
        film = _film(row)
        missing = [name for name in needs if not getattr(film, name)]
        if missing:
            bad.append((f"row {number}", f"no {' and no '.join(missing)}"))
        elif film.video in found:
            bad.append((f"row {number}", f"another row has the film '{film.video}'"))
        else:
            found[film.video] = film
        if most and len(found) == most:
            break
    if not found:
        raise UserError(f"'{path}' names no film that can be taken: {bad[0][1] if bad else 'it is empty'}")
    return list(found.values()), bad


def _film(row: Any) -> CaptionedFilm:
    cells = row if isinstance(row, dict) else {}
    return CaptionedFilm(
        *(
            next((" ".join(str(cells[name]).split()) for name in names if cells.get(name)), "")
            for names in COLUMNS.values()
        )
    )


def film_file(folder: str | Path, name: str) -> Path:
    """The file of a film that a list names with or without its suffix.

    Raises:
        UserError: there is none.
    """
    path = Path(folder) / name
    for candidate in (path, *(path.with_name(path.name + suffix) for suffix in SUFFIXES)):
        if candidate.is_file():
            return candidate
    raise UserError(f"there is no film '{name}' in '{folder}' (tried {', '.join(SUFFIXES)})")
