"""Scores of predictions: joined on ids, overall and by type of question, with what was passed over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unireel.evaluation.intervals import Score, averaged, clustered
from unireel.evaluation.videoqa.datasets import Dataset
from unireel.evaluation.videoqa.formats import Annotations, Problem, Question
from unireel.evaluation.videoqa.metrics import Named, Value

Record = dict[str, Any]
"""What is known of one question, as plain JSON; the names of metrics are keys."""


@dataclass
class Joined:
    """Every question with what was said to it (None if nothing was), and what did not fit together."""

    pairs: list[tuple[Question, str | None]]
    problems: list[Problem] = field(default_factory=list)


def join(annotations: Annotations, predictions: Mapping[str, str]) -> Joined:
    """Bring predictions to their questions; what has no partner is listed."""
    questions = annotations.questions
    problems = [
        Problem("question without prediction", key, "") for key in questions if key not in predictions
    ]
    problems += [
        Problem("prediction without question", key, "") for key in predictions if key not in questions
    ]
    return Joined([(question, predictions.get(key)) for key, question in questions.items()], problems)


def judge_all(
    pairs: Sequence[tuple[Question, str | None]], metrics: Sequence[Named]
) -> tuple[list[Record], list[Problem]]:
    """The record of every question, and answers that a metric could not read.

    A question without prediction counts as answered wrong (except for errors of counts, which have no worst value):
    whoever leaves out hard questions gains nothing.
    """
    records, problems = [], []
    for question, said in pairs:
        record: Record = {
            "id": question.id,
            "video": question.video,
            "kind": question.kind,
            "question": question.text,
            "answer": question.answers[0],
            "said": said,
        }
        for metric in metrics:
            value = metric.unanswered if said is None else metric.value(question, said)
            record[metric.name] = value
            if value is None and said is not None:
                problems.append(Problem(f"unreadable for {metric.name}", question.id, said[:200]))
        records.append(record)
    return records, problems


def add_up(
    records: Sequence[Record], name: str, dataset: Dataset, value: Callable[[Record], Value] | None = None
) -> dict[str, Score]:
    """A metric over all questions, by type and by the benchmark's groups of types.

    Where several questions are about one video, whole videos are resampled for the interval.

    Args:
        name: of the metric, the key of its score; ``name/type`` for a type of question.
        value: what a record is worth, None to leave it out; by default ``record[name]``.
    """
    read = value or (lambda record: record.get(name))
    kept = [(record, each) for record in records if (each := read(record)) is not None]
    found: dict[str, Score] = {}
    if kept:
        found[name] = _score(kept)
    kinds = dict.fromkeys(record["kind"] for record in records if record["kind"])
    groups = {kind: (kind,) for kind in sorted(kinds)} if len(kinds) > 1 else {}
    groups |= {group: members for group, members in dataset.groups.items() if set(members) & set(kinds)}
    for group, members in groups.items():
        of_group = [(record, each) for record, each in kept if record["kind"] in members]
        if of_group:
            found[f"{name}/{group}"] = _score(of_group)
    if dataset.mean_of_types and len(kinds) > 1:
        apart = [[(record, each) for record, each in kept if record["kind"] == kind] for kind in kinds]
        found[f"{name}/{dataset.mean_of_types}"] = averaged(
            [([each for _, each in own], [record["video"] for record, _ in own]) for own in apart if own]
        )
    return found


def _score(kept: Sequence[tuple[Record, bool | float]]) -> Score:
    return clustered([value for _, value in kept], [record["video"] for record, _ in kept])
