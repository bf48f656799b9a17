"""The scores of answers that need no judge, one value for each question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from unireel.evaluation.videoqa.choice import chosen_option
from unireel.evaluation.videoqa.formats import Question
from unireel.evaluation.videoqa.text import normalised, number_in, token_f1
from unireel.evaluation.videoqa.wups import Similarity, wups

Value = bool | float | None
"""What an answer is worth; None if it cannot be told, which is counted and listed."""

Metric = Callable[[Question, str], Value]


@dataclass(frozen=True)
class Named:
    """A metric with its name; ``unanswered`` is what a question without prediction is worth."""

    name: str
    value: Metric
    unanswered: Value = False


def exact(question: Question, said: str) -> bool:
    """Whether the answer is one of the accepted ones, letter for letter (ActivityNet-QA's own score)."""
    return said in question.answers


def normalized(question: Question, said: str) -> bool:
    """The same without regard to case, punctuation and articles."""
    return normalised(said) in {normalised(each) for each in question.answers}


def f1(question: Question, said: str) -> float:
    """The best overlap of words with an accepted answer."""
    return max(token_f1(said, each) for each in question.answers)


def l2(question: Question, said: str) -> float | None:
    """The squared error of a count; None if the answer holds no number, or several."""
    counted, right = number_in(said), number_in(question.answers[0])
    return None if counted is None or right is None else (counted - right) ** 2


def choice(question: Question, said: str) -> bool | None:
    """Whether the right option was chosen; None for a question without options."""
    if question.right is None:
        return None
    return chosen_option(said, question.options) == question.right


def wups_at(threshold: float, similarity: Similarity) -> Metric:
    """WUPS with a threshold; of several accepted answers the best counts."""

    def metric(question: Question, said: str) -> float:
        return max(wups(said, each, similarity, threshold) for each in question.answers)

    return metric


SIMPLE: Mapping[str, Named] = {
    each.name: each
    for each in (
        Named("exact", exact),
        Named("normalized", normalized),
        Named("f1", f1, 0.0),
        Named("l2", l2, None),
        Named("choice", choice),
    )
}
NAMES = (*SIMPLE, "wups", "judge")


def metrics_of(names: list[str], similarity: Similarity | None) -> list[Named]:
    """The metrics of that name, ``wups`` with both usual thresholds; ``judge`` is none of them.

    Args:
        similarity: of words, for ``wups``.
    """
    found = [SIMPLE[name] for name in names if name in SIMPLE]
    if "wups" in names and similarity is not None:
        found += [
            Named("wups", wups_at(0.9, similarity), 0.0),
            Named("wups@0", wups_at(0.0, similarity), 0.0),
        ]
    return found
