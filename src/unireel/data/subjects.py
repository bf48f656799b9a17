"""Whom a question is about: the objects that its names mean, and at which end of the film it asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from unireel.world.language.phrases import plural
from unireel.world.scene import COLOURS, SHAPES

MOST_NAMES = 2
"""Names in one question: relations and orders have two."""

ANY_TIME, START, END = 0, 1, 2

_SHAPE_OF = {form: number for number, shape in enumerate(SHAPES) for form in (shape, plural(shape))}
_COLOUR_OF = {colour: number for number, colour in enumerate(COLOURS)}


class Subjects(NamedTuple):
    """For each name in a question the numbers of the objects that it means, and when: any time, start or end."""

    objects: list[list[int]]
    when: int


def subjects(question: Sequence[str], shapes: Sequence[int], colours: Sequence[set[int]]) -> Subjects:
    """Read the names in the words of a question about a film.

    Args:
        question: its words.
        shapes: number of each object's shape.
        colours: numbers of the colours that each object has at some time.
    """
    named: list[list[int]] = []
    for place, word in enumerate(question):
        shape = _SHAPE_OF.get(word)
        if shape is None and word not in ("object", "objects"):
            continue
        colour = _COLOUR_OF.get(question[place - 1]) if place else None
        named.append(
            [
                number
                for number, (own, had) in enumerate(zip(shapes, colours, strict=True))
                if shape in (None, own) and (colour is None or colour in had)
            ]
        )
    when = START if "start" in question else END if "end" in question else ANY_TIME
    return Subjects(named[:MOST_NAMES], when)


def clauses(words: Sequence[str]) -> list[tuple[int, int]]:
    """The clauses of a caption, half-open ranges of ``words`` that end with their comma or full stop; the first word,
    the mark of a caption, is in none."""
    ends = [place + 1 for place, word in enumerate(words) if word in (",", ".")]
    return list(pairwise([1, *ends]))
