"""Detailed captions: everything that can be told about a film, in one closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import NamedTuple

from unireel.world.facts import Fact, Referent, holds_in
from unireel.world.language.order import caption_order, in_sequence, relation_at
from unireel.world.language.parser import NOUNS, parse
from unireel.world.language.phrases import (
    NUMBERS,
    WHEN,
    Group,
    camera_phrase,
    motions,
    noun_phrase,
    relation_phrase,
    said_of,
    scene_random,
)
from unireel.world.scene import COLOURS, SIZES, Scene

MAX_CAPTION_WORDS = 80


@dataclass(frozen=True)
class CaptionScore:
    """Counts of facts in a caption.

    ``stated`` by it, ``true`` among those; ``complete``: stated by a perfect caption, ``found`` among those.
    """

    stated: int
    true: int
    complete: int
    found: int

    @property
    def precision(self) -> float:
        """Share of the stated facts that are true; 0 if nothing is stated."""
        return self.true / self.stated if self.stated else 0.0

    @property
    def recall(self) -> float:
        """Share of the facts of a perfect caption that are stated."""
        return self.found / self.complete

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def caption_for(scene: Scene, seed: int | None = None) -> str:
    """Describe ``scene`` completely, in at most :data:`MAX_CAPTION_WORDS` words if each object has one event.

    Always in the same order: count; objects with size, colour, shape and motion; relations at the start and
    the end (when there are two objects); background; camera; style. ``seed`` chooses among paraphrases;
    without one the caption is canonical.
    """
    random = None if seed is None else scene_random(scene, "caption", seed)
    order = caption_order(scene)
    pick = random.randrange if random else (lambda ways: 0)
    sentences = [_count(len(scene.objects), pick(2)), _objects(order, random)]
    for one, relation, two, when in _relations(scene, order):
        sentences.append(f"{WHEN[when]} {relation_phrase(one.referent, relation, two.referent, pick(2))}")
    if pick(2):
        sentences[1] += f" on a {scene.background} background"
    else:
        sentences.append(f"the background is {scene.background}")
    sentences.append(camera_phrase(scene.camera.motion, pick(2)))
    sentences.append((f"the style is {scene.style}", f"the film is in {scene.style} style")[pick(2)])
    return ". ".join(sentences) + "."


def caption_facts(scene: Scene) -> tuple[Fact, ...]:
    """All the facts that :func:`caption_for` states about ``scene``."""
    order = caption_order(scene)
    facts = [Fact("count", Referent(), len(scene.objects))]
    for group in order:
        facts.append(Fact("object", group.referent))
        if not group.single:
            facts.append(Fact("count", group.referent, len(group.indices)))
        facts.append(Fact("size", group.referent, group.figure.size))
        facts.extend(Fact("motion", group.referent, each) for each in motions(group.figure))
    for one, two in pairwise(order):
        if in_sequence(one, two):
            facts.append(Fact("order", one.referent, other=two.referent))
    for one, relation, two, when in _relations(scene, order):
        facts.append(Fact("relation", one.referent, relation, two.referent, when))
    facts.append(Fact("background", value=scene.background))
    facts.append(Fact("camera", value=scene.camera.motion))
    facts.append(Fact("style", value=scene.style))
    return tuple(facts)


def caption_score(text: str, scene: Scene) -> CaptionScore:
    """Compare the facts that ``text`` states with ``scene``. Clauses outside the grammar state nothing."""
    stated = set(parse(text))
    complete = set(caption_facts(scene))
    true = sum(holds_in(scene, each) for each in stated)
    return CaptionScore(len(stated), true, len(complete), len(stated & complete))


def repeated_names(said: Sequence[str]) -> set[str]:
    """The words that may not come next in a caption, because they would name an object twice.

    A caption introduces each object once (alike ones together, with their number), and says of no object how it lies
    to itself.

    Args:
        said: words of the caption so far.
    """
    colour = said[-1] if said and said[-1] in COLOURS else None
    before = said[: len(said) - (colour is not None)]
    if before and before[-1] in SIZES:
        named = [each for each in _names(said) if each.before in SIZES]
    elif before and before[-1] == "the" and "is" in _last_sentence(said):
        named = _names(_last_sentence(said))
    else:
        return set()
    shapes = {each.shape for each in named if each.colour == colour}
    return {form for form, shape in NOUNS.items() if shape in shapes}


class _Name(NamedTuple):
    before: str | None
    colour: str | None
    shape: str | None


def _names(said: Sequence[str]) -> list[_Name]:
    """The shapes that are named in ``said``, each with its colour and the word before."""
    found = []
    for place, word in enumerate(said):
        if NOUNS.get(word):
            coloured = place > 0 and said[place - 1] in COLOURS
            first = place - 1 - coloured
            colour = said[place - 1] if coloured else None
            found.append(_Name(said[first] if first >= 0 else None, colour, NOUNS[word]))
    return found


def _last_sentence(said: Sequence[str]) -> Sequence[str]:
    ends = [place + 1 for place, word in enumerate(said) if word == "."]
    return said[ends[-1] :] if ends else said


def _count(number: int, way: int) -> str:
    objects = "one object" if number == 1 else f"{NUMBERS[number]} objects"
    return (f"there {'is' if number == 1 else 'are'} {objects}", f"the film shows {objects}")[way]


def _objects(order: list[Group], random: Random | None) -> str:
    text = ""
    for index, group in enumerate(order):
        noun = noun_phrase(group.referent, group.figure.size, len(group.indices))
        joint = ""
        if index:
            joint = ", then " if in_sequence(order[index - 1], group) else ", "
        text += f"{joint}{noun} {said_of(group.figure, random, not group.single)}"
    return text


def _relations(scene: Scene, order: list[Group]) -> list[tuple[Group, str, Group, str]]:
    """The relations that a caption states: of two objects, at the first and last frame, where clear."""
    if len(order) != 2 or not (order[0].single and order[1].single):
        return []
    one, two = order
    found = []
    for when, frame in (("first", 0), ("last", scene.frames - 1)):
        if relation := relation_at(scene, one.indices[0], two.indices[0], frame):
            found.append((one, relation, two, when))
    return found
