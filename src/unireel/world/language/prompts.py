"""Prompts: what a person asks for, with the facts that the words request and no others."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random

from unireel.world.facts import Fact, Referent
from unireel.world.language.order import by_start, has_sequence, in_sequence, relation_at
from unireel.world.language.phrases import (
    BACKGROUND_PHRASES,
    STYLE_PHRASES,
    WHEN,
    Group,
    camera_phrase,
    groups,
    motions,
    noun_phrase,
    relation_phrase,
    said_of,
    scene_random,
)
from unireel.world.language.vocabulary import words
from unireel.world.scene import Scene

MAX_PROMPT_WORDS = 48


@dataclass(frozen=True)
class Prompt:
    """A request for a film: its text and the facts that a film must show to fulfil it."""

    text: str
    facts: tuple[Fact, ...]


def prompt_for(scene: Scene, seed: int, category: str = "mixture", picture: bool = False) -> Prompt:
    """A request that ``scene`` fulfils, in at most :data:`MAX_PROMPT_WORDS` words.

    Category "position" always says how the objects lie to each other, other categories sometimes do. With ``picture``
    not a word is about motion, camera or time: ``scene`` is still, and its first frame fulfils the request.
    """
    random = scene_random(scene, "prompt", seed)
    for spare in range(3):
        prompt = _Writer(scene, random, category, spare, picture).write()
        if len(words(prompt.text)) <= MAX_PROMPT_WORDS:
            break
    return prompt


class _Writer:
    """Writes one prompt; a higher ``spare`` leaves more of the optional things out."""

    def __init__(self, scene: Scene, random: Random, category: str, spare: int, picture: bool) -> None:
        self.scene, self.random, self.category, self.spare = scene, random, category, spare
        self.picture = picture
        self.groups = groups(scene)
        self.facts: list[Fact] = []

    def write(self) -> Prompt:
        scene, random = self.scene, self.random
        self.facts.append(Fact("count", Referent(), len(scene.objects)))
        relation = self._relation()
        body = self._beside(relation) if relation and self._can_be_beside(relation) else self._clauses()
        after: list[str] = []
        if relation and not body.beside:
            after.append(self._relation_clause(relation))
        text = self._background(body.text, after)
        if not self.picture and (
            scene.camera.motion != "still" or (self.spare == 0 and random.random() < 0.1)
        ):
            after.append(camera_phrase(scene.camera.motion, random.randrange(2)))
            self.facts.append(Fact("camera", value=scene.camera.motion))
        random.shuffle(after)
        if scene.style != "plain":
            self.facts.append(Fact("style", value=scene.style))
            style = random.choice(STYLE_PHRASES).format(scene.style)
            if style.startswith("in ") and random.random() < 0.5:
                text = f"{style}, {text}"
            else:
                after.append(style)
        return Prompt(", ".join([text, *after]), tuple(self.facts))

    def _background(self, text: str, after: list[str]) -> str:
        random, background = self.random, self.scene.background
        if random.random() < 0.08:
            return text
        self.facts.append(Fact("background", value=background))
        phrase = random.choice(BACKGROUND_PHRASES).format(background)
        if phrase.startswith("the "):
            after.append(phrase)
            return text
        return f"{phrase}, {text}" if random.random() < 0.3 else f"{text} {phrase}"

    def _clauses(self) -> _Body:
        random = self.random
        order, joints = self._arrange()
        text = ""
        for group, joint in zip(order, joints, strict=True):
            many = not group.single
            size = group.figure.size if self.spare < 2 and random.random() < 0.5 else None
            self._object_facts(group, size)
            clause = noun_phrase(group.referent, size, len(group.indices))
            if not self.picture and (group.figure.events or random.random() < 0.9):
                clause = f"{clause} {said_of(group.figure, random, many)}"
                self.facts.extend(Fact("motion", group.referent, each) for each in motions(group.figure))
            text += joint + clause
        return _Body(text)

    def _arrange(self) -> tuple[list[Group], list[str]]:
        """The groups in the order of their clauses, and what stands before each; notes order facts."""
        random, order = self.random, list(self.groups)
        random.shuffle(order)
        if has_sequence(order):
            still = [each for each in order if not each.figure.events]
            order = by_start(order) + still if random.random() < 0.7 else still + by_start(order)
        joints = [""]
        for before, after in pairwise(order):
            if in_sequence(before, after):
                self.facts.append(Fact("order", before.referent, other=after.referent))
                joints.append(random.choices((", then ", " before "), (3, 1))[0])
            else:
                joints.append(random.choices((", ", " and ", " while "), (4, 2, 0 if self.picture else 1))[0])
        if len(order) == 2 and joints[1] == ", then " and random.random() < 0.25:
            joints[0] = "first "
        return order, joints

    def _object_facts(self, group: Group, size: str | None) -> None:
        self.facts.append(Fact("object", group.referent))
        if not group.single:
            self.facts.append(Fact("count", group.referent, len(group.indices)))
        if size:
            self.facts.append(Fact("size", group.referent, size))

    def _relation(self) -> tuple[Group, str, Group, str] | None:
        """Which relation to ask for, if any: (who, relation, to whom, when)."""
        random = self.random
        position = self.category == "position"
        able = [each for each in self.groups if each.single]
        if len(able) < 2 or (not position and (self.spare or len(able) > 3 or random.random() >= 0.2)):
            return None
        one, two = random.sample(able, 2)
        when = "last" if not (position or self.picture) and random.random() < 0.2 else "first"
        frame = 0 if when == "first" else self.scene.frames - 1
        found = relation_at(self.scene, one.indices[0], two.indices[0], frame)
        return (one, found, two, when) if found else None

    def _relation_clause(self, relation: tuple[Group, str, Group, str]) -> str:
        one, how, two, when = relation
        self.facts.append(Fact("relation", one.referent, how, two.referent, when))
        clause = relation_phrase(one.referent, how, two.referent, self.random.randrange(2))
        said = not self.picture and (when == "last" or self.random.random() < 0.3)
        return f"{WHEN[when]} {clause}" if said else clause

    def _can_be_beside(self, relation: tuple[Group, str, Group, str]) -> bool:
        still = not any(each.events for each in self.scene.objects)
        return still and len(self.groups) == 2 and relation[3] == "first" and self.random.random() < 0.5

    def _beside(self, relation: tuple[Group, str, Group, str]) -> _Body:
        """ "a small red star above a blue ring": two objects and their relation in one breath."""
        one, how, two, when = relation
        sizes = [each.figure.size if self.random.random() < 0.5 else None for each in (one, two)]
        sized = list(zip((one, two), sizes, strict=True))
        for group, size in sized:
            self._object_facts(group, size)
        self.facts.append(Fact("relation", one.referent, how, two.referent, when))
        nouns = [noun_phrase(group.referent, size) for group, size in sized]
        between = relation_phrase(Referent(), how, Referent(), self.random.randrange(2))
        return _Body(
            f"{nouns[0]} {between.removeprefix('the object is ').removesuffix(' the object')} {nouns[1]}",
            True,
        )


@dataclass(frozen=True)
class _Body:
    """The middle of a prompt, and whether it already says the relation."""

    text: str
    beside: bool = False
