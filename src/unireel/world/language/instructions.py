"""Edit instructions read back: what must hold in the film that an instruction asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from unireel.world.facts import Fact, Referent
from unireel.world.language.parser import MOTIONS, Noun, parse, read_noun
from unireel.world.language.vocabulary import words
from unireel.world.scene import BACKGROUNDS, COLOURS, SIZES, STYLES

_any = "|".join
_BACKGROUND = re.compile(rf"(?:change the background to|make the background) ({_any(BACKGROUNDS)})$")
_STYLE = re.compile(rf"(?:change the style to ({_any(STYLES)})|make it ({_any(STYLES)}) style)$")
_OF = re.compile(r"change the (colour|size) of (.+) to (\w+)$")
_SWAP = re.compile(r"(?:turn (.+) into (.+)|replace (.+) with (.+))$")
_GONE = re.compile(r"(?:remove|take away) (.+)$")
_NEW = re.compile(r"(?:add|put in) (.+)$")
_MAKE = re.compile(r"(?:make|let) (.+)$")


def parse_instruction(text: str) -> tuple[Fact, ...]:
    """The facts that an instruction asks of the edited film; empty if it is not in the World's language.

    Objects are called as in the instruction, except by what it changes: after "make the red star blue" there
    is a blue star.
    """
    said = _bare(text)
    if found := _BACKGROUND.match(said):
        return (Fact("background", value=found[1]),)
    if found := _STYLE.match(said):
        return (Fact("style", value=found[1] or found[2]),)
    if found := _OF.match(said):
        return _make(read_noun(found[2]), found[3])
    if found := _SWAP.match(said):
        return _swap(read_noun(found[1] or found[3]), read_noun(found[2] or found[4]))
    if found := _GONE.match(said):
        gone = read_noun(found[1])
        return (Fact("count", gone.referent, 0),) if gone and not gone.rest else ()
    if found := _NEW.match(said):
        return _new(read_noun(found[1]))
    if found := _MAKE.match(said):
        noun = read_noun(found[1])
        return _make(noun, noun.rest) if noun else ()
    return ()


def facts_after(description: str, instruction: str) -> tuple[Fact, ...]:
    """What must hold in an edited film, by a caption of its source and the instruction alone.

    What the instruction asks for, and of the caption what it leaves: all but how objects lie and follow each other,
    with a changed object called as it is afterwards. If it is unclear which one is meant, only what is asked for.
    """
    asked = parse_instruction(instruction)
    of_film = {fact.kind for fact in asked if fact.subject is None}
    told = [fact for fact in parse(description) if fact.kind not in {"order", "relation", *of_film}]
    noun = _edited(instruction)
    if noun is None:
        new = not of_film and bool(asked)
        return (*asked, *(_counted(fact, new) for fact in told))
    meant = [
        fact.subject
        for fact in told
        if fact.kind == "object" and fact.subject and _means(noun, fact.subject, told)
    ]
    if len(meant) != 1:
        return (*asked, *(fact for fact in told if fact.subject is None))
    old, kinds = meant[0], [fact.kind for fact in asked]
    if kinds == ["count"]:
        return (*asked, *(_counted(fact, -1) for fact in told if fact.subject != old))
    after = old
    if kinds[:1] == ["object"] and asked[0].subject:  # another colour, or shape
        after = replace(old, shape=asked[0].subject.shape, colour=asked[0].subject.colour or old.colour)
    kept = [
        replace(fact, subject=after) if fact.subject == old else fact
        for fact in told
        if fact.subject != old or fact.kind not in kinds
    ]
    return (*asked, *kept)


def _bare(text: str) -> str:
    """The words of an instruction, without marks."""
    return " ".join(word for word in words(text) if word not in (".", "?", ","))


def _edited(text: str) -> Noun | None:
    """The object of the source film that an instruction changes or removes."""
    said = _bare(text)
    if _BACKGROUND.match(said) or _STYLE.match(said) or _NEW.match(said):
        return None
    for pattern, groups in ((_OF, (2,)), (_SWAP, (1, 3)), (_GONE, (1,)), (_MAKE, (1,))):
        if found := pattern.match(said):
            return read_noun(next(found[each] for each in groups if found[each]))
    return None


def _means(noun: Noun, named: Referent, told: Sequence[Fact]) -> bool:
    """Whether a caption that tells ``told`` may speak of ``noun`` by ``named``."""
    own = noun.referent
    if own.shape not in (None, named.shape) or (own.colour and named.colour and own.colour != named.colour):
        return False
    return noun.size is None or Fact("size", named, noun.size) in told


def _counted(fact: Fact, more: int) -> Fact:
    """``fact``, or if it counts all objects that ``more`` of them are there."""
    if fact.kind == "count" and fact.subject == Referent() and isinstance(fact.value, int):
        return replace(fact, value=fact.value + more)
    return fact


def _make(noun: Noun | None, what: str) -> tuple[Fact, ...]:
    """Facts after an object is given a colour, a size or a motion."""
    if noun is None:
        return ()
    if what in COLOURS:
        return (Fact("object", Referent(noun.referent.shape, what)),)
    if what in SIZES:
        return (Fact("size", noun.referent, what),)
    if what in MOTIONS:
        return (Fact("motion", noun.referent, MOTIONS[what]),)
    return ()


def _swap(old: Noun | None, new: Noun | None) -> tuple[Fact, ...]:
    if old is None or new is None or old.rest or new.rest:
        return ()
    colour = new.referent.colour or old.referent.colour
    return Fact("object", Referent(new.referent.shape, colour)), Fact("count", old.referent, 0)


def _new(noun: Noun | None) -> tuple[Fact, ...]:
    if noun is None:
        return ()
    facts = [Fact("object", noun.referent)]
    if noun.size:
        facts.append(Fact("size", noun.referent, noun.size))
    if (deed := noun.rest.removeprefix("that ")) in MOTIONS:
        facts.append(Fact("motion", noun.referent, MOTIONS[deed]))
    return tuple(facts)
