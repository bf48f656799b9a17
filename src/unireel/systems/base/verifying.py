"""Self-verified generation: make several films of a prompt, ask the model about each, keep the one it believes in.

What a prompt requests is read as facts (:func:`unireel.world.language.parse`). Each is put to the model's own eyes
twice: as a question whose right answer is known, and as something that its caption of the film should say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from unireel.clip import Clip
from unireel.world.checker import describe
from unireel.world.facts import STILL, Fact, Referent
from unireel.world.language import parse
from unireel.world.language.phrases import NUMBERS, TIMES, VERBS, article, the
from unireel.world.language.questions import DEEDS

LEAST = 1e-3
"""Least belief in a fact: the model is never wholly sure of anything."""

WHEN = {"first": "at the start", "last": "at the end"}


class Watcher(Protocol):
    """What a model must do to verify."""

    def ask_many(
        self, pairs: Sequence[tuple[Clip, str]], batch_size: int = 32, judge: bool = True
    ) -> Sequence[Statement]: ...

    def caption_many(
        self, clips: Sequence[Clip], batch_size: int = 32, judge: bool = True
    ) -> Sequence[Statement]: ...


class Statement(Protocol):
    """An answer or a caption."""

    @property
    def text(self) -> str: ...
    @property
    def confidence(self) -> float: ...


@dataclass(frozen=True)
class Belief:
    """What the model thinks of one fact of a film.

    Attributes:
        fact: in plain words.
        question, answer, expected: what it was asked, said and should have said; empty if nothing can be asked.
        captioned: whether its caption of the film states the fact.
        probability: that the fact holds, by answer and caption together, in [0, 1].
    """

    fact: str
    question: str
    answer: str
    expected: str
    captioned: bool
    probability: float


@dataclass(frozen=True)
class Verification:
    """The beliefs in a film; ``score`` is the mean of the logarithms of their probabilities (0 is certainty)."""

    beliefs: tuple[Belief, ...]
    score: float


@dataclass(frozen=True)
class Chosen:
    """The film that was kept, its number among all ``clips`` that were made, and what was thought of each."""

    clip: Clip
    clips: tuple[Clip, ...]
    number: int
    verifications: tuple[Verification, ...]


def shown_at_once(facts: Sequence[Fact]) -> list[Fact]:
    """Those of ``facts`` that the first frame alone shows or misses."""
    return [
        fact
        for fact in facts
        if fact.kind in ("count", "object", "size", "background", "style")
        or (fact.kind == "relation" and fact.when != "last")
    ]


def question_of(fact: Fact) -> tuple[str, str] | None:
    """A question that decides ``fact`` and its right answer, in the World's words; None if there is none."""
    who = the(fact.subject) if fact.subject else ""
    value = str(fact.value)
    match fact.kind:
        case "count" if fact.subject == Referent():
            return "how many objects are there?", NUMBERS[int(value)]
        case "count" if fact.subject and fact.subject.shape:
            noun = the(fact.subject, many=True).removeprefix("the ")
            return f"how many {noun} are there?", NUMBERS[int(value)]
        case "object" if fact.subject:
            return f"is there {article(who.removeprefix('the '))}?", "yes"
        case "size":
            return f"what size is {who}?", value
        case "motion":
            return _motion_question(who, value)
        case "background":
            return "what is the background?", value
        case "style":
            return "what is the style?", value
        case "camera":
            return "what does the camera do?", "stays still" if value == STILL else value
        case "relation" if fact.other:
            return f"{WHEN[fact.when or 'first']}, where is {who} compared to {the(fact.other)}?", value
        case "order" if fact.other:
            return f"which starts first, {who} or {the(fact.other)}?", who.removeprefix("the ")
    return None


def _motion_question(who: str, value: str) -> tuple[str, str]:
    action, _, argument = value.partition(" ")
    verb = VERBS[action][0][1]
    if action in ("move", "circle"):
        return f"which way does {who} {verb}?", argument
    if action in ("jump", "blink"):
        return f"how many times does {who} {verb}?", TIMES[int(argument)]
    if action == "turn":
        return f"how does {who} change?", f"turns {argument}"
    return f"what does {who} do?", DEEDS[action]


def verify(model: Watcher, clips: Sequence[Clip], facts: Sequence[Fact]) -> list[Verification]:
    """What the model itself thinks of ``facts`` in each of ``clips``."""
    return verify_each(model, clips, [facts] * len(clips))


def verify_each(model: Watcher, clips: Sequence[Clip], facts: Sequence[Sequence[Fact]]) -> list[Verification]:
    """What the model itself thinks of its own facts in each of ``clips``."""
    asked = [[question_of(fact) for fact in own] for own in facts]
    pairs = [(clip, each[0]) for clip, own in zip(clips, asked, strict=True) for each in own if each]
    answers = iter(model.ask_many(pairs, judge=False) if pairs else ())
    captions = model.caption_many(list(clips), judge=False)
    found = []
    for caption, own, questions in zip(captions, facts, asked, strict=True):
        stated = set(parse(caption.text))
        beliefs = tuple(
            _belief(fact, each, next(answers) if each else None, fact in stated)
            for fact, each in zip(own, questions, strict=True)
        )
        logs = [math.log(max(each.probability, LEAST)) for each in beliefs]
        found.append(Verification(beliefs, sum(logs) / max(len(logs), 1)))
    return found


def _belief(fact: Fact, asked: tuple[str, str] | None, answer: Statement | None, captioned: bool) -> Belief:
    """The mean of the answer's probability and of the caption's verdict; of the caption's alone without an answer."""
    if asked is None or answer is None:
        return Belief(describe(fact), "", "", "", captioned, float(captioned))
    right = answer.text == asked[1]
    # Of a wrong answer only its own probability is known: the right one has at most what is left.
    answered = answer.confidence if right else 1 - max(answer.confidence, 0.5)
    return Belief(describe(fact), asked[0], answer.text, asked[1], captioned, (answered + captioned) / 2)


def choose(clips: Sequence[Clip], verifications: Sequence[Verification]) -> Chosen:
    """The film with the best score, the first of equals."""
    number = max(range(len(clips)), key=lambda i: (verifications[i].score, -i))
    return Chosen(clips[number], tuple(clips), number, tuple(verifications))
