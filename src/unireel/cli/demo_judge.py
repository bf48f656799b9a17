"""What the World's checker, which reads nothing but pixels, says about films, answers and captions."""

from __future__ import annotations

from unireel.cli.demo_page import Verdict
from unireel.errors import UsageError
from unireel.world.checker.motion import Motion
from unireel.world.checker.observation import Observation, SeenObject
from unireel.world.facts import Fact, Referent
from unireel.world.language import Question, parse, sample_question
from unireel.world.language.phrases import (
    NUMBERS,
    WHEN,
    camera_phrase,
    noun_phrase,
    relation_phrase,
    the,
    verb_phrase,
)
from unireel.world.scene import ARGUMENTS, Camera, Event, Object, Scene

JUDGED_TYPES = (
    "repetition",
    "direction",
    "state change",
    "order",
    "action",
    "camera",
    "count",
    "existence",
    "colour",
    "shape",
    "size",
    "background",
    "style",
)
"""Question types whose answer follows from an observation alone, the telling ones first."""

UNEVENTFUL = ("stays still", "no change")
"""Answers that make a question about change not worth a place on the page."""


def fact_words(fact: Fact) -> str:
    """A fact as a person would say it: "the red star jumps twice"."""
    subject, other = fact.subject or Referent(), fact.other or Referent()
    value = str(fact.value)
    match fact.kind:
        case "count":
            noun = noun_phrase(subject, None, 1 if fact.value == 1 else 2)
            return f"{NUMBERS[int(value)]} {noun.partition(' ')[2]}"
        case "object":
            return noun_phrase(subject)
        case "size":
            return f"{the(subject)} is {value}"
        case "motion":
            return f"{the(subject)} {verb_phrase(value)}"
        case "camera":
            return camera_phrase(value)
        case "relation":
            return f"{relation_phrase(subject, value, other)} {WHEN[fact.when or 'first']}"
        case "order":
            return f"{the(subject)} starts before {the(other)}"
    return f"{value} {fact.kind}"


def judge_facts(facts: tuple[Fact, ...], seen: Observation) -> tuple[Verdict, ...]:
    """Whether each fact holds of the film; None for all where the film does not look like the World."""
    return tuple(Verdict(fact_words(each), seen.holds(each) if seen.plausible else None) for each in facts)


def judge_caption(text: str, seen: Observation) -> tuple[Verdict, ...]:
    """Whether each fact that a caption states holds of the film."""
    return judge_facts(parse(text), seen)


def judge_answer(question: Question, answer: str, from_film: bool) -> Verdict:
    """Whether ``answer`` is right; ``from_film``: the right answer was read from the film's pixels."""
    if not from_film:
        return Verdict(f"cannot read this film; as requested it would be: {question.answer}", None)
    return Verdict(f"reads: {question.answer}", answer.strip().lower() == question.answer)


def questions_about(scene: Scene, number: int, seed: int) -> list[Question]:
    """``number`` questions of different types about ``scene``; ``seed`` chooses among those it allows."""
    found = [each for kind in JUDGED_TYPES if (each := sample_question(scene, kind, seed))]
    dynamic = [each for each in found if each.dynamic and each.answer not in UNEVENTFUL]
    telling = [each for each in dynamic if each.type != "action"] or dynamic
    static = [each for each in found if not each.dynamic]
    start = seed % len(static)
    return [*telling[: number - 1], *static[start:], *static[:start]][:number]


def seen_scene(seen: Observation, frames: int, size: int) -> Scene | None:
    """The scene that an observation amounts to, or None if the film shows something that no scene can say."""
    if not seen.plausible:
        return None
    try:
        objects = tuple(_object(each) for each in seen.objects)
        return Scene(objects, seen.background, Camera(seen.camera.motion), seen.style, frames, size)
    except UsageError:
        return None


def _object(seen: SeenObject) -> Object:
    first = int(seen.visible.argmax())
    # In grayscale nobody asks for colours, but a scene has to give its objects some.
    colour = seen.colour or "white"
    events = tuple(_event(each) for each in seen.events)
    return Object(seen.shape, colour, seen.size, float(seen.x[first]), float(seen.y[first]), events)


def _event(motion: Motion) -> Event:
    action, _, argument = motion.value.partition(" ")
    name = ARGUMENTS.get(action)
    if name == "count":
        return Event(action, motion.start, motion.end, count=int(argument))
    if name == "direction":
        return Event(action, motion.start, motion.end, direction=argument)
    return Event(action, motion.start, motion.end, colour=argument if name == "colour" else None)
