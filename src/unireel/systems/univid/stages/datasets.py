"""The annotations of full-scale trainings: OpenVid-1M's table of films, and questions about films in two formats."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unireel.errors import UserError
from unireel.evaluation.tables import rows_of
from unireel.evaluation.videoqa.datasets import DATASETS
from unireel.evaluation.videoqa.formats import read_annotations

FILM_COLUMNS = (
    "video",
    "caption",
    "aesthetic score",
    "motion score",
    "temporal consistency score",
    "seconds",
)
SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov")


@dataclass(frozen=True)
class Curation:
    """Which rows of OpenVid-1M are taken: at least these scores, seconds and characters of caption."""

    aesthetic: float = 4.5
    motion: float = 3.0
    consistency: float = 0.8
    seconds: float = 3.0
    characters: int = 10


@dataclass(frozen=True)
class CaptionedFilm:
    """A film's file name and what it shows."""

    video: str
    caption: str


@dataclass(frozen=True)
class Dialogue:
    """A question about a film and the answer to learn."""

    video: str
    question: str
    answer: str


def read_films(path: str | Path, curation: Curation | None = None, most: int = 0) -> list[CaptionedFilm]:
    """The rows of ``OpenVid-1M.csv`` that are good enough, in their order; the first ``most``, or all if 0.

    Raises:
        UserError: the file cannot be read, lacks a column, holds something that is no number, or has no good row.
    """
    wanted = curation or Curation()
    csv.field_size_limit(2**31 - 1)
    found: list[CaptionedFilm] = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in FILM_COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"'{path}' is not OpenVid-1M's table: it has no column '{missing[0]}'")
            for row in reader:
                if _is_good(row, wanted, f"'{path}', line {reader.line_num}"):
                    found.append(CaptionedFilm(row["video"].strip(), row["caption"].strip()))
                if most and len(found) == most:
                    break
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise UserError(f"'{path}' cannot be read: {reason}") from None
    if not found:
        raise UserError(f"'{path}' has no film that is good enough: {wanted}")
    return found


def _is_good(row: dict[str, Any], wanted: Curation, where: str) -> bool:
    values = []
    for name in FILM_COLUMNS[2:]:
        try:
            values.append(float(row[name]))
        except (TypeError, ValueError):
            raise UserError(f"{where}: '{name}' is {row[name]!r}, not a number") from None
    least = (wanted.aesthetic, wanted.motion, wanted.consistency, wanted.seconds)
    long_enough = len((row["caption"] or "").strip()) > wanted.characters
    return long_enough and all(value >= low for value, low in zip(values, least, strict=True))


def read_dialogues(path: str | Path, answers: str | Path | None = None, most: int = 0) -> list[Dialogue]:
    """Questions and answers about films, in either format; the first ``most``, or all if 0.

    Args:
        path: rows ``{"id", "video", "conversations": [{"from": "human" | "gpt", "value"}, ...]}`` as Video-ChatGPT and
            LLaVA have them (every turn of the human with the next of the model is one dialogue), or the questions of
            ActivityNet-QA (:mod:`unireel.evaluation.videoqa.formats` reads others, too).
        answers: where the answers are, if they are in a file of their own.

    Raises:
        UserError: a file cannot be read, or holds something else.
    """
    path = Path(path)
    rows = rows_of(path)
    if rows and isinstance(rows[0], dict) and "conversations" in rows[0]:
        found = [pair for number, row in enumerate(rows) for pair in _pairs(row, f"{path}, row {number + 1}")]
    else:
        read = read_annotations(path, None if answers is None else Path(answers), DATASETS["activitynet-qa"])
        found = [Dialogue(each.video, each.text, each.answers[0]) for each in read.questions.values()]
    if not found:
        raise UserError(f"'{path}' has no question with an answer")
    return found[:most] if most else found


def _pairs(row: Any, where: str) -> Iterator[Dialogue]:
    try:
        video, turns = (
            str(row["video"]),
            [(turn["from"], str(turn["value"])) for turn in row["conversations"]],
        )
    except (TypeError, KeyError) as error:
        raise UserError(f"{where}: no dialogue, it lacks {error}") from None
    speakers = [speaker for speaker, _ in turns]
    if len(turns) % 2 or speakers != ["human", "gpt"] * (len(turns) // 2):
        raise UserError(f"{where}: human and gpt must take turns, not {', '.join(speakers) or 'nobody'}")
    for (_, question), (_, answer) in zip(turns[::2], turns[1::2], strict=True):
        plain = question.replace("<video>", "").replace("<image>", "").strip()
        if plain and answer.strip():
            yield Dialogue(video, plain, answer.strip())


def find_video(folder: str | Path, name: str) -> Path:
    """The file of a video that annotations name with or without its suffix or ActivityNet's ``v_``.

    Raises:
        UserError: there is none.
    """
    folder = Path(folder)
    stems = (name, f"v_{name}")
    for candidate in [folder / stem for stem in stems] + [
        folder / f"{s}{end}" for s in stems for end in SUFFIXES
    ]:
        if candidate.is_file():
            return candidate
    raise UserError(f"there is no video '{name}' in '{folder}' (tried {', '.join(SUFFIXES)})")
