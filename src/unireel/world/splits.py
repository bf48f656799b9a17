"""Splits: train, test and compositional test, decided by stable hashes of what a scene says.

Pairs of shape and colour and pairs of shape and motion whose hash is 0 modulo 8 are held out: a scene that has one is
in the compositional split. Of the other scenes, one signature in ten is in the test split.
"""

from __future__ import annotations

from functools import cache

from unireel.world.scene import COLOURS, DIRECTIONS, SHAPES, TURNS, Event, Scene, stable_hash

SPLITS = ("train", "test", "compositional")
SALT = 496
"""Chosen so that every colour and motion is held out for at most two shapes, and no shape loses more than three."""

MOTIONS = (
    *(f"move {direction}" for direction in DIRECTIONS),
    *(f"circle {turn}" for turn in TURNS),
    *("jump", "shake", "grow", "shrink", "turn", "appear", "disappear", "blink"),
)
"""Every kind of event, with its direction where it has one."""


def motion_name(event: Event) -> str:
    """The event's kind as listed in :data:`MOTIONS`."""
    return f"{event.action} {event.direction}" if event.direction else event.action


@cache
def held_out(shape: str, attribute: str) -> bool:
    """Whether the pair of ``shape`` with a colour or a motion (see :data:`MOTIONS`) never occurs in training."""
    return stable_hash(f"unireel {SALT}/{shape}/{attribute}") % 8 == 0


def held_out_pairs() -> list[tuple[str, str]]:
    """All held-out pairs (shape, colour or motion)."""
    return [(shape, each) for shape in SHAPES for each in (*COLOURS, *MOTIONS) if held_out(shape, each)]


def split_of(scene: Scene) -> str:
    """The one split that ``scene`` belongs to."""
    for figure in scene.objects:
        colours = [figure.colour, *(event.colour for event in figure.events if event.colour)]
        if any(held_out(figure.shape, each) for each in (*colours, *map(motion_name, figure.events))):
            return "compositional"
    return "test" if stable_hash(scene.signature()) % 10 == 0 else "train"
