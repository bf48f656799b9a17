"""Phrases: how one thing is said. All texts of the World are made of these, and the parser reads them.

Everything is lower case; every word is one token; numbers are words. There are one to three ways of saying a
thing, of which the first is the canonical one.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from unireel.world.facts import STILL, Referent, motion_value
from unireel.world.scene import COLOURS, DIRECTIONS, TURNS, Object, Scene

NUMBERS = ("zero", "one", "two", "three", "four")
TIMES = {1: "once", 2: "twice", 3: "three times"}

VERBS: dict[str, tuple[tuple[str, str], ...]] = {
    "still": (("stays still", "stay still"), ("does not move", "do not move")),
    "move": (("moves", "move"), ("goes", "go")),
    "circle": (("goes around", "go around"), ("orbits", "orbit")),
    "jump": (("jumps", "jump"), ("hops", "hop")),
    "shake": (("shakes", "shake"), ("wobbles", "wobble")),
    "grow": (("grows", "grow"), ("gets bigger", "get bigger")),
    "shrink": (("shrinks", "shrink"), ("gets smaller", "get smaller")),
    "turn": (("turns", "turn"), ("becomes", "become")),
    "appear": (("appears", "appear"), ("comes into view", "come into view")),
    "disappear": (("disappears", "disappear"), ("vanishes", "vanish")),
    "blink": (("blinks", "blink"), ("flashes", "flash")),
}
"""Verbs by action, each as (of one object, of several or after "make")."""

BACKGROUND_PHRASES = ("on a {} background", "in front of {}", "the background is {}")
CAMERA_NAMES = ("the camera", "the view")
STYLE_PHRASES = ("in {} style", "the style is {}")
RELATION_PHRASES = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
WHEN = {"first": "at the start", "last": "at the end"}


@dataclass(frozen=True)
class Group:
    """Objects that a text names together: their indices, what they are called, the first of them."""

    indices: tuple[int, ...]
    referent: Referent
    figure: Object

    @property
    def single(self) -> bool:
        """Whether it is one object."""
        return len(self.indices) == 1


def scene_random(scene: Scene, purpose: str, seed: int | str) -> Random:
    """A random generator of its own for each scene, purpose and seed, the same on every platform."""
    places = ",".join(f"{each.x}:{each.y}:{each.colour}" for each in scene.objects)
    return Random(f"{purpose}/{seed}/{places}/{scene.background}/{scene.style}")


def groups(scene: Scene) -> list[Group]:
    """The objects of ``scene`` as a text names them: alike ones together, others one by one, in order."""
    alike: dict[tuple, list[int]] = {}
    for index, each in enumerate(scene.objects):
        key = (called(each, scene), each.size, tuple(map(motion_value, each.events)))
        alike.setdefault(key, []).append(index)
    return [Group(tuple(found), key[0], scene.objects[found[0]]) for key, found in alike.items()]


def called(figure: Object, scene: Scene) -> Referent:
    """What ``figure`` is called: shape and colour; in grayscale films shape only."""
    return Referent(figure.shape, None if scene.style == "grayscale" else figure.colour)


def plural(noun: str) -> str:
    """The plural of a shape or of "object"."""
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def article(phrase: str) -> str:
    """``phrase`` with "a" or "an" before it."""
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def noun_phrase(referent: Referent, size: str | None = None, number: int = 1) -> str:
    """Name objects for the first time: "a large red star", "three red stars"."""
    noun = referent.shape or "object"
    words = [each for each in (size, referent.colour) if each]
    if number > 1:
        return " ".join([NUMBERS[number], *words, plural(noun)])
    return article(" ".join([*words, noun]))


def the(referent: Referent, many: bool = False) -> str:
    """Speak of objects that are known: "the red star", "the red stars"."""
    noun = referent.shape or "object"
    return " ".join(each for each in ("the", referent.colour, plural(noun) if many else noun) if each)


def verb_phrase(motion: str, way: int = 0, many: bool = False) -> str:
    """Say a motion in the form of :func:`facts.motion_value`, in its ``way``-th paraphrase: "jumps twice"."""
    action, _, argument = motion.partition(" ")
    ways = VERBS[action]
    verb = ways[way % len(ways)][many]
    if argument.isdigit():
        argument = TIMES[int(argument)]
    return f"{verb} {argument}" if argument else verb


def motions(figure: Object) -> list[str]:
    """What ``figure`` does, in order; ``["still"]`` if nothing."""
    return [motion_value(event) for event in figure.events] or [STILL]


def said_of(figure: Object, random: Random | None, many: bool = False) -> str:
    """The verb phrases of all that ``figure`` does, joined by "and"; canonical without ``random``."""
    return " and ".join(
        verb_phrase(each, random.randrange(2) if random else 0, many) for each in motions(figure)
    )


def camera_phrase(motion: str, way: int = 0) -> str:
    """ "the camera pans left", "the camera stays still"."""
    return f"{CAMERA_NAMES[way % 2]} {'stays still' if motion == 'still' else motion}"


def relation_phrase(one: Referent, relation: str, other: Referent, way: int = 0) -> str:
    """ "the red star is left of the blue ring"."""
    return f"{the(one)} is {RELATION_PHRASES[relation][way % 2]} {the(other)}"


def place_phrase(place: str) -> str:
    """ "at the top left", "on the left", "in the middle"."""
    preposition = {"left": "on", "right": "on", "middle": "in"}.get(place, "at")
    return f"{preposition} the {place}"


def all_motions() -> list[str]:
    """Every motion in the form of :func:`facts.motion_value`."""
    return [
        STILL,
        *(f"move {each}" for each in DIRECTIONS),
        *(f"circle {each}" for each in TURNS),
        *(f"{action} {count}" for action in ("jump", "blink") for count in TIMES),
        *("shake", "grow", "shrink", "appear", "disappear"),
        *(f"turn {each}" for each in COLOURS),
    ]
