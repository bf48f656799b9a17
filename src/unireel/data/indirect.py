"""Indirect requests: some fact of a prompt or an instruction has to be inferred before anything can be made.

"a red star moves in the opposite direction of left", "a star jumps as many times as there are squares". Each comes with
the inference, and with the direct request that it means: what think mode is taught and measured by.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from unireel.world.language.phrases import NUMBERS, TIMES, plural, scene_random
from unireel.world.scene import Scene

OPPOSITES = {
    "left": "right",
    "right": "left",
    "up": "down",
    "down": "up",
    "clockwise": "counter-clockwise",
    "counter-clockwise": "clockwise",
}
KINDS = ("opposite", "count")

_GOING = re.compile(
    r"\b((?:moves?|goes|go)(?: around)?|orbits?) (left|right|up|down|counter-clockwise|clockwise)\b"
)
_TIMES = re.compile(r"\b(jumps?|hops?|blinks?|flash(?:es)?) (once|twice|three times)(?![\w-])")


@dataclass(frozen=True)
class Indirect:
    """A request, the inference that it needs, and what it means; ``kind`` is one of :data:`KINDS`."""

    text: str
    reasoning: str
    direct: str
    kind: str


def indirect_for(direct: str, scene: Scene, seed: int, kind: str | None = None) -> Indirect | None:
    """An indirect way to say ``direct``, the same for the same arguments.

    Args:
        direct: a prompt or an instruction in the World's language.
        scene: the film that the request is about: of a prompt the one that it describes, of an instruction the source.
        kind: one of :data:`KINDS`; None takes any.

    Returns:
        None if nothing in it can be said indirectly.
    """
    random = scene_random(scene, f"indirect {kind}", seed)
    kinds = [kind] if kind else random.sample(KINDS, len(KINDS))
    for each in kinds:
        found = (_opposite if each == "opposite" else _count)(direct, scene, random)
        if found:
            return found
    return None


def _opposite(direct: str, scene: Scene, random: Random) -> Indirect | None:
    matches = list(_GOING.finditer(direct))
    if not matches:
        return None
    match = random.choice(matches)
    verb, direction = match.groups()
    other = OPPOSITES[direction]
    way = random.choice((f"in the opposite direction of {other}", f"the opposite way of {other}"))
    text = f"{direct[: match.start()]}{verb} {way}{direct[match.end() :]}"
    return Indirect(text, f"the opposite of {other} is {direction}.", direct, "opposite")


def _count(direct: str, scene: Scene, random: Random) -> Indirect | None:
    options = []
    for match in _TIMES.finditer(direct):
        verb, times = match.groups()
        number = next(count for count, said in TIMES.items() if said == times)
        options += [(match, verb, number, noun) for noun in _nouns(scene, number)]
    if not options:
        return None
    match, verb, number, noun = random.choice(options)
    many = plural(noun)
    text = f"{direct[: match.start()]}{verb} as many times as there are {many}{direct[match.end() :]}"
    there = f"is {NUMBERS[1]} {noun}" if number == 1 else f"are {NUMBERS[number]} {many}"
    return Indirect(text, f"there {there}.", direct, "count")


def _nouns(scene: Scene, number: int) -> list[str]:
    """Of what there are ``number`` in the film."""
    shapes = [each.shape for each in scene.objects]
    nouns = sorted(shape for shape in set(shapes) if shapes.count(shape) == number)
    return [*nouns, "object"] if len(shapes) == number else nouns
