"""The closed vocabulary: every word of prompts, captions, questions, answers and edit instructions."""

from __future__ import annotations

import re

from unireel.world.scene import (
    ACTIONS,
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    DIRECTIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    STYLES,
    TURNS,
)

PUNCTUATION = (",", ".", "?")

_WORD = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*|[^\sa-z0-9]")

_SPELLINGS = {
    "color": "colour",
    "colors": "colours",
    "grey": "gray",
    "greyscale": "grayscale",
    "center": "centre",
    "counterclockwise": "counter-clockwise",
    "anticlockwise": "counter-clockwise",
}
"""What people write, and how the World spells it."""

_WORLD_WORDS = " ".join(
    [
        *(
            *SHAPES,
            *(f"{each}es" if each.endswith("s") else f"{each}s" for each in SHAPES),
            *COLOURS,
            *BACKGROUNDS,
        ),
        *(*SIZES, *STYLES, *DIRECTIONS, *TURNS, *CAMERAS, *RELATIONS, *ACTIONS),
    ]
)
_FUNCTION_WORDS = """
a an the there is are it be to of on in at for from with into and or then that before after while first last
next do does did not no yes nothing what which who when where how many much times time once twice zero one
two three four five six seven eight nine ten
"""
_VERB_WORDS = """
stay stays move moves go goes around orbit orbits jump jumps hop hops shake shakes wobble wobbles grow grows
get gets turn turns become becomes appear appears come comes vanish vanishes disappear disappears shrink
shrinks blink blinks flash flashes happen happens change changes start starts starting end ends show shows
see seen visible hidden make makes add remove replace put take delete erase draw keep let give swap pan pans
zoom zooms shown
"""
_THING_WORDS = """
object objects film video background camera view style colour colours shape shapes size sizes way direction
position place kind motion action picture scene screen frame moment
"""
_PLACE_WORDS = """
top bottom middle centre corner side left right up down above below over under front back compared relative
near
"""
_QUALITY_WORDS = """
bigger smaller larger same different other another again only also moving still new old out away every each
all both any instead briefly
"""


def words(text: str) -> list[str]:
    """Split ``text`` into words, in lower case and in the World's spelling.

    Punctuation marks are words of their own; hyphenated words are one.
    """
    return [_SPELLINGS.get(each, each) for each in map(str, _WORD.findall(text.lower()))]


def vocabulary() -> tuple[str, ...]:
    """All words of the World's language, punctuation first, then by the alphabet."""
    return _VOCABULARY


def unknown_words(text: str) -> list[str]:
    """The words of ``text`` that are not in the vocabulary, each once, in their order."""
    return [each for each in dict.fromkeys(words(text)) if each not in _KNOWN]


def _collect() -> tuple[str, ...]:
    parts = (_WORLD_WORDS, _FUNCTION_WORDS, _VERB_WORDS, _THING_WORDS, _PLACE_WORDS, _QUALITY_WORDS)
    return (*PUNCTUATION, *sorted({each for part in parts for each in part.split()}))


_VOCABULARY = _collect()
_KNOWN = frozenset(_VOCABULARY)
