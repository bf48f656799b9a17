"""The parser: reads facts back from prompts and captions, also from those that a model got slightly wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from unireel.world.facts import Fact, Referent
from unireel.world.language.phrases import (
    CAMERA_NAMES,
    NUMBERS,
    RELATION_PHRASES,
    VERBS,
    WHEN,
    all_motions,
    plural,
    verb_phrase,
)
from unireel.world.language.vocabulary import words
from unireel.world.scene import BACKGROUNDS, CAMERAS, COLOURS, SHAPES, SIZES, STYLES

MOTIONS = {
    verb_phrase(motion, way, many): motion
    for motion in all_motions()
    for way in range(len(VERBS[motion.partition(" ")[0]]))
    for many in (False, True)
}
"""Motions by everything that says them."""

NOUNS = {
    **{each: each for each in SHAPES},
    **{plural(each): each for each in SHAPES},
    "object": None,
    "objects": None,
}
"""The shape that each noun means; None for any."""

_DETERMINERS = {"a": 1, "an": 1, "the": 0, **{word: number for number, word in enumerate(NUMBERS) if number}}
_RELATIONS = {phrase: name for name, ways in RELATION_PHRASES.items() for phrase in ways}
_CAMERAS = {f"{name} {each}": each for name in CAMERA_NAMES for each in CAMERAS[1:]} | {
    f"{name} {still}": "still"
    for name in CAMERA_NAMES
    for still in ("stays still", "is still", "does not move")
}

_any = "|".join
_BACKGROUND = re.compile(
    rf"\b(?:on (?:a|an|the) ({_any(BACKGROUNDS)}) background|in front of ({_any(BACKGROUNDS)})"
    rf"|the background is ({_any(BACKGROUNDS)}))(?: |$)"
)
_STYLE = re.compile(rf"\b(?:in ({_any(STYLES)}) style|the style is ({_any(STYLES)}))(?: |$)")
_COUNT = re.compile(rf"(?:there (?:is|are)|the film shows) ({_any(NUMBERS)}) objects?$")
_RELATION = re.compile(rf"^(.+?) (?:is )?({_any(sorted(_RELATIONS, key=len, reverse=True))}) (.+)$")
_JOINTS = {",", ".", "?", "and", "while", "then", "before"}
_AFTERWARDS = {"then", "before"}
_FILLERS = {"", "the film is", "a film", "first"}


@dataclass
class Reading:
    """What a text says: its facts in the order of reading, and the clauses that no rule could read."""

    facts: list[Fact] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def parse(text: str) -> tuple[Fact, ...]:
    """The facts that ``text`` states, each once. :func:`read` also names the clauses outside the grammar."""
    return tuple(read(text).facts)


def read(text: str) -> Reading:
    """Read a prompt or a caption clause by clause."""
    reader = _Reader()
    clause: list[str] = []
    joint: set[str] = set()
    for word in [*words(text), "."]:
        if word not in _JOINTS:
            clause.append(word)
            continue
        if clause:
            reader.clause(" ".join(clause), bool(joint & _AFTERWARDS))
            clause, joint = [], set()
        if word == ".":
            reader.clause_subject = None
        joint.add(word)
    return reader.finish()


class _Reader:
    """Collects facts; remembers who was introduced, how often, and who the clause before was about."""

    def __init__(self) -> None:
        self.reading = Reading()
        self.introduced: dict[Referent, int] = {}
        self.total: int | None = None
        self.clause_subject: Referent | None = None

    def finish(self) -> Reading:
        """Add what only the whole text tells: how many objects there are in all and of each kind."""
        total = sum(self.introduced.values()) if self.total is None else self.total
        if total or self.total is not None:
            self.add(Fact("count", Referent(), total))
        for referent, number in self.introduced.items():
            if number > 1:
                self.add(Fact("count", referent, number))
        return self.reading

    def add(self, fact: Fact) -> None:
        """Note ``fact``, once."""
        if fact not in self.reading.facts:
            self.reading.facts.append(fact)

    def clause(self, text: str, afterwards: bool) -> None:
        """Read one clause; ``afterwards`` if it is said to happen after the clause before."""
        text = text.removeprefix("first ")
        for pattern, kind in ((_BACKGROUND, "background"), (_STYLE, "style")):
            if found := pattern.search(text):
                self.add(Fact(kind, value=next(each for each in found.groups() if each)))
                text = f"{text[: found.start()]}{text[found.end() :]}".strip()
        if text in _FILLERS:
            return
        if text in _CAMERAS:
            self.add(Fact("camera", value=_CAMERAS[text]))
        elif found := _COUNT.match(text):
            self.total = NUMBERS.index(found[1])
        elif not (self._relation(text) or self._happening(text, afterwards)):
            self.reading.skipped.append(text)

    def _relation(self, text: str) -> bool:
        when = "first"
        for name, phrase in WHEN.items():
            if text.startswith(phrase):
                when, text = name, text[len(phrase) :].strip()
        found = _RELATION.match(text)
        if not found:
            return False
        one, two = read_noun(found[1]), read_noun(found[3])
        if not one or not two or one.rest or two.rest:
            return False
        self._meet(one)
        self._meet(two)
        self.add(Fact("relation", one.referent, _RELATIONS[found[2]], two.referent, when))
        return True

    def _happening(self, text: str, afterwards: bool) -> bool:
        """An object, perhaps with what it does; or only what the object of the clause before does as well."""
        noun = read_noun(text)
        motion = MOTIONS.get(noun.rest if noun else text)
        if noun is None:
            if motion is None or self.clause_subject is None:
                return False
            self.add(Fact("motion", self.clause_subject, motion))
            return True
        if noun.rest and motion is None:
            if noun.rest in ("jumps", "jump", "hops", "hop", "blinks", "blink", "flashes", "flash"):
                motion = MOTIONS[f"{noun.rest} once"]
            else:
                return False
        self._meet(noun)
        if motion:
            self.add(Fact("motion", noun.referent, motion))
        before = self.clause_subject
        if afterwards and before and before != noun.referent:
            self.add(Fact("order", before, other=noun.referent))
        self.clause_subject = noun.referent
        return True

    def _meet(self, noun: Noun) -> None:
        """Note that the objects exist: newly introduced ones ("a", "two") or, after "the", known ones."""
        known = noun.referent in self.introduced
        if noun.number or not known:
            self.introduced[noun.referent] = self.introduced.get(noun.referent, 0) + max(noun.number, 1)
        self.add(Fact("object", noun.referent))
        if noun.size:
            self.add(Fact("size", noun.referent, noun.size))


@dataclass(frozen=True)
class Noun:
    """A noun phrase: how many (0 after "the"), whom, of which size, and the words after it."""

    number: int
    referent: Referent
    size: str | None
    rest: str


def read_noun(text: str) -> Noun | None:
    """Read the noun phrase at the beginning of ``text``; None if there is none."""
    rest = text.split()
    number = _DETERMINERS.get(rest[0])
    rest = rest[number is not None :]
    attributes: list[str | None] = []
    for accepted in (SIZES, COLOURS):
        attributes.append(rest.pop(0) if rest and rest[0] in accepted else None)
    if not rest or rest[0] not in NOUNS:
        return None
    referent = Referent(NOUNS[rest[0]], attributes[1])
    return Noun(1 if number is None else number, referent, attributes[0], " ".join(rest[1:]))
