"""Reading questions, answers and predictions in the formats in which they are published. Rows are joined on ids only.

Which column is what follows from its name; the names below are those of ActivityNet-QA, MSVD-QA and MSRVTT-QA (both as
first published and as Video-LLaVA and IG-VLM distribute them), TGIF-QA, NExT-QA, Video-ChatGPT, Video-MME, MVBench and
MLVU. Rows without an id (Video-ChatGPT, MVBench) are known by their video and question.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from unireel.errors import UserError
from unireel.evaluation.tables import read_table, rows_of
from unireel.evaluation.videoqa.datasets import Dataset

QUESTION_IDS = ("question_id", "id", "qid", "vid_id")
VIDEOS = ("video_name", "gif_name", "videoID", "video", "video_id")
QUESTIONS = ("question", "Q", "q")
ANSWERS = ("answer", "A", "a", "ground_truth")
SAID = ("pred", "prediction", "predicted", "predicted_answer", "response", "output", "option", "answer")
KINDS = ("type", "question_type", "task_type")
OPTIONS = ("options", "candidates")
FURTHER_ANSWERS = ("additional_ref_answer",)
LETTERS = "ABCDEFGHIJ"

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """Something that was passed over: its kind, where it stands, and what is wrong."""

    kind: str
    where: str
    what: str


@dataclass(frozen=True)
class Question:
    """A question with its accepted answers; a multiple choice also has options, the right one by number from 0.

    ``start`` and ``end``: the part of the video that it is about, in seconds, where the file says so.
    """

    id: str
    video: str
    text: str
    answers: tuple[str, ...] = ()
    kind: str = ""
    options: tuple[str, ...] = ()
    right: int | None = None
    start: float = 0.0
    end: float | None = None


@dataclass
class Annotations:
    """The questions by id, and what was wrong with the files."""

    questions: dict[str, Question]
    problems: list[Problem] = field(default_factory=list)


def read_annotations(questions: Path, answers: Path | None, dataset: Dataset) -> Annotations:
    """Read questions with their answers, from one file or from two.

    A question without an answer, a question twice with different contents, an answer that is not among the options:
    such rows are left out and listed.

    Raises:
        UserError: a file cannot be read, or no question has an answer.
    """
    problems: list[Problem] = []
    found = _unique(_each_row(questions, lambda row: _question(row, dataset), problems), questions, problems)
    if answers is not None:
        pairs = _each_row(answers, lambda row: _answer(row, dataset), problems)
        known = _unique(pairs, answers, problems)
        problems += [
            Problem("answer without question", key, f"not in {questions}")
            for key in known
            if key not in found
        ]
        for key, given in known.items():
            if key in found:
                try:
                    found[key] = _answered(found[key], given)
                except UserError as error:
                    problems.append(Problem("bad row", f"{answers}, {key}", str(error)))
    good: dict[str, Question] = {}
    for key, each in found.items():
        if each.answers:
            good[key] = each
        else:
            problems.append(Problem("question without answer", key, each.text))
    if not good:
        where = f"{questions} and {answers}" if answers else f"{questions} (name --answers?)"
        raise UserError(f"no question has an answer in {where}")
    return Annotations(good, problems)


def read_predictions(path: Path, problems: list[Problem]) -> dict[str, str]:
    """What was said to each question, by id; bad rows are added to ``problems``.

    Understood are lists of rows, ``{id: answer}``, ``{video: {qid: answer}}`` (NExT-QA) and Video-MME's lists of videos
    with questions. Two different answers to one question are none.

    Raises:
        UserError: the file cannot be read, or holds no prediction.
    """
    table = read_table(path)
    if isinstance(table, dict):
        table = [{"id": key, "pred": value} for key, value in _flat(table)]
    rows = [each for row in table for each in _nested(row)]
    found = _unique(_each(rows, _prediction, str(path), problems), path, problems)
    if not found:
        raise UserError(f"{path} holds no predictions (rows need an id and one of {', '.join(SAID)})")
    return found


def _each_row(path: Path, read: Callable[[Any], T], problems: list[Problem]) -> Iterator[T]:
    rows = [each for row in rows_of(path) for each in _nested(row)]
    return _each(rows, read, str(path), problems)


def _each(rows: Iterable[Any], read: Callable[[Any], T], name: str, problems: list[Problem]) -> Iterator[T]:
    for number, row in enumerate(rows, 1):
        try:
            if not isinstance(row, dict):
                raise UserError(f"not a row of columns: {str(row)[:80]}")
            yield read(row)
        except UserError as error:
            problems.append(Problem("bad row", f"{name}, row {number}", str(error)))


def _unique(pairs: Iterable[tuple[str, T]], path: Path, problems: list[Problem]) -> dict[str, T]:
    """By id; what stands there twice alike counts once, and not at all if it differs."""
    found: dict[str, T] = {}
    conflicting: set[str] = set()
    repeated: Counter[str] = Counter()
    for key, value in pairs:
        if key in found:
            repeated[key] += 1
            if found[key] != value:
                conflicting.add(key)
        found.setdefault(key, value)
    for key in repeated:
        kind = "conflicting duplicate" if key in conflicting else "duplicate"
        problems.append(Problem(kind, key, f"{repeated[key] + 1} times in {path}"))
    return {key: value for key, value in found.items() if key not in conflicting}


def _nested(row: Any) -> Iterator[Any]:
    """Video-MME's result format has the questions of a video in a list."""
    if isinstance(row, dict) and isinstance(row.get("questions"), list):
        yield from ({**row, **each} if isinstance(each, dict) else each for each in row["questions"])
    else:
        yield row


def _flat(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from ((f"{key}/{inner}", each) for inner, each in value.items())
        else:
            yield key, value


def _cell(row: Mapping[str, Any], names: Iterable[str]) -> str:
    """The first of the columns that holds something, as text; ids and counts may be numbers."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    return ""


def _id(row: Mapping[str, Any]) -> str:
    # In NExT-QA a qid counts the questions of one video.
    if "qid" in row and "question_id" not in row and _cell(row, VIDEOS):
        return f"{_cell(row, VIDEOS)}/{row['qid']}"
    found = _cell(row, QUESTION_IDS)
    if found:
        return found
    video, question = _cell(row, VIDEOS), _cell(row, QUESTIONS)
    if not (video and question):
        raise UserError("no id, and no video with a question either")
    return f"{video}/{question}"


def _question(row: Mapping[str, Any], dataset: Dataset) -> tuple[str, Question]:
    text, video = _cell(row, QUESTIONS), _cell(row, VIDEOS)
    if not text or not video:
        raise UserError("no question" if not text else "no video")
    key = _id(row)
    kind = _kind(row, dataset)
    options = tuple(_options(row))
    start, end = _seconds(row, "start"), _seconds(row, "end")
    question = Question(key, video, text.strip(), (), kind, options, None, start or 0.0, end)
    given = _cell(row, ANSWERS)
    further = tuple(each for name in FURTHER_ANSWERS if (each := _cell(row, (name,))))
    return key, _answered(question, ((given, *further), kind) if given else None)


def _kind(row: Mapping[str, Any], dataset: Dataset) -> str:
    found = _cell(row, KINDS)
    return dataset.kinds.get(found, found)


def _options(row: Mapping[str, Any]) -> list[str]:
    listed = next((row[name] for name in OPTIONS if isinstance(row.get(name), list)), None)
    if listed is None:
        # TGIF-QA's columns a1 to a5; NExT-QA's multiple choice has a0 to a4.
        listed = [row[f"a{number}"] for number in range(10) if _cell(row, (f"a{number}",))]
    return [re.sub(r"^\(?[A-J][.):]\)?\s+", "", str(each)).strip() for each in listed]


def _seconds(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _answer(row: Mapping[str, Any], dataset: Dataset) -> tuple[str, tuple[tuple[str, ...], str]]:
    given = _cell(row, ANSWERS)
    if not given:
        raise UserError("no answer")
    return _id(row), ((given,), _kind(row, dataset))


def _answered(question: Question, given: tuple[tuple[str, ...], str] | None) -> Question:
    """The question with its answers: texts, or for a multiple choice the option's number, letter or text."""
    if given is None:
        return question
    texts, kind = given
    kind = kind or question.kind
    if not question.options:
        return replace(question, answers=texts, kind=kind)
    right = right_option(texts[0], question.options)
    if right is None:
        raise UserError(f"{question.id}: its answer '{texts[0][:60]}' is not one of its options")
    return replace(question, answers=(question.options[right],), kind=kind, right=right)


def right_option(text: str, options: tuple[str, ...]) -> int | None:
    """The option that an annotation means: its text (standing there once), else its letter, else its number from 0."""
    if options.count(text) == 1:
        return options.index(text)
    if len(text) == 1 and text in LETTERS[: len(options)]:
        return LETTERS.index(text)
    return int(text) if text.isdecimal() and int(text) < len(options) else None


def _prediction(row: Mapping[str, Any]) -> tuple[str, str]:
    key = _id(row)
    for name in SAID:
        value = row.get(name)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return key, str(value)
    raise UserError(f"{key}: no answer")
