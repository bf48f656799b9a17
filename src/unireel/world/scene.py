"""Scenes: typed, JSON-serialisable descriptions of short films with exact ground truth.

A scene says everything that is in a film: objects with their events over time, background, camera and style.
Rendering (:mod:`unireel.world.render`), language (:mod:`unireel.world.language`) and checking
(:mod:`unireel.world.checker`) all start from it. Lengths are in pixels of a square canvas of side ``Scene.size``,
times in frames, x grows to the right and y grows downwards.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from unireel.errors import UsageError

FPS = 8
CLIP_FRAMES = 17
STORY_FRAMES = 513
MAX_OBJECTS = 4

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 50, 47),
    "orange": (235, 130, 35),
    "yellow": (240, 210, 50),
    "green": (60, 170, 75),
    "blue": (50, 95, 220),
    "purple": (145, 70, 190),
    "pink": (240, 130, 180),
    "white": (238, 238, 236),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "black": (18, 18, 20),
    "gray": (112, 112, 116),
    "navy": (22, 34, 84),
    "forest": (20, 72, 44),
    "sand": (206, 186, 140),
}
SIZES = ("small", "large")
RADII: dict[int, dict[str, int]] = {
    64: {"small": 6, "large": 10},
    48: {"small": 5, "large": 8},
    32: {"small": 4, "large": 6},
}
"""Object radii in pixels by canvas side and object size."""

STYLES = ("plain", "outline", "night", "grayscale")
DIRECTIONS = ("left", "right", "up", "down")
VECTORS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
TURNS = ("clockwise", "counter-clockwise")
CAMERAS = ("still", "pans left", "pans right", "pans up", "pans down", "zooms in", "zooms out")
RELATIONS = ("left of", "right of", "above", "below")

ACTIONS = ("move", "circle", "jump", "shake", "grow", "shrink", "turn", "appear", "disappear", "blink")
"""What an event can be. An object without events stays still."""

ARGUMENTS = {
    "move": "direction",
    "circle": "direction",
    "jump": "count",
    "blink": "count",
    "turn": "colour",
}
"""The one argument an action takes, by field name of :class:`Event`; the other actions take none."""


def _one_of(what: str, value: object, accepted: tuple) -> None:
    if value not in accepted:
        raise UsageError(f"{what} {value!r} is not in the World; accepted: {', '.join(map(str, accepted))}")


@dataclass(frozen=True)
class Event:
    """One thing an object does, from frame ``start`` to frame ``end`` (both in [0, frames - 1], start < end).

    ``direction`` is one of :data:`DIRECTIONS` for ``move`` and of :data:`TURNS` for ``circle``; ``count`` in {1, 2, 3}
    is for ``jump`` and ``blink``; ``colour`` is what ``turn`` ends in. ``amount`` in pixels is the distance of a
    ``move``, the orbit radius of a ``circle``, the height of a ``jump`` and the swing of a ``shake``; 0 elsewhere.
    """

    action: str
    start: int
    end: int
    direction: str | None = None
    count: int | None = None
    colour: str | None = None
    amount: float = 0.0

    def __post_init__(self) -> None:
        _one_of("action", self.action, ACTIONS)
        if not 0 <= self.start < self.end:
            raise UsageError(f"event '{self.action}': need 0 <= start < end, got {self.start} and {self.end}")
        wanted = ARGUMENTS.get(self.action)
        for name in ("direction", "count", "colour"):
            if (getattr(self, name) is not None) != (name == wanted):
                raise UsageError(
                    f"event '{self.action}' takes {wanted or 'no argument'}; {name}={getattr(self, name)}"
                )
        if wanted == "direction":
            _one_of("direction", self.direction, DIRECTIONS if self.action == "move" else TURNS)
        elif wanted == "count":
            _one_of("count", self.count, (1, 2, 3))
        elif wanted == "colour":
            _one_of("colour", self.colour, tuple(COLOURS))


@dataclass(frozen=True)
class Object:
    """A flat figure: its shape, its colour and size at frame 0, its centre (x, y) in pixels at frame 0, its events.

    Events are sorted by start and do not overlap in time. An object whose first visibility event is ``appear`` is
    hidden until that event starts.
    """

    shape: str
    colour: str
    size: str
    x: float
    y: float
    events: tuple[Event, ...] = ()

    def __post_init__(self) -> None:
        _one_of("shape", self.shape, SHAPES)
        _one_of("colour", self.colour, tuple(COLOURS))
        _one_of("size", self.size, SIZES)
        for before, after in pairwise(self.events):
            if after.start < before.end:
                raise UsageError(f"events of one object overlap: {before.action} and {after.action}")

    @property
    def name(self) -> tuple[str, str]:
        """(shape, colour) at frame 0: what the object is called."""
        return self.shape, self.colour


@dataclass(frozen=True)
class Camera:
    """Camera motion over the whole film; ``amount`` is the pan in pixels or the final zoom factor (1 for still)."""

    motion: str = "still"
    amount: float = 1.0

    def __post_init__(self) -> None:
        _one_of("camera", self.motion, CAMERAS)


@dataclass(frozen=True)
class Scene:
    """A whole film: 1 to 4 objects, background, camera, style, number of frames (4 k + 1, up to 513), canvas side."""

    objects: tuple[Object, ...]
    background: str
    camera: Camera = Camera()
    style: str = "plain"
    frames: int = CLIP_FRAMES
    size: int = 64

    def __post_init__(self) -> None:
        _one_of("background", self.background, tuple(BACKGROUNDS))
        _one_of("style", self.style, STYLES)
        _one_of("size", self.size, tuple(RADII))
        if not 1 <= len(self.objects) <= MAX_OBJECTS:
            raise UsageError(f"a scene has 1 to {MAX_OBJECTS} objects, got {len(self.objects)}")
        if self.frames % 4 != 1 or not 1 <= self.frames <= STORY_FRAMES:
            raise UsageError(f"frames must be 4 k + 1 and at most {STORY_FRAMES}, got {self.frames}")
        for each in self.objects:
            if each.events and each.events[-1].end > self.frames - 1:
                raise UsageError(
                    f"event '{each.events[-1].action}' ends after the last frame {self.frames - 1}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers; :meth:`from_dict` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Scene:
        """Read what :meth:`to_dict` wrote. Raises :class:`UsageError` for anything a scene cannot be."""
        try:
            objects = tuple(
                Object(**{**each, "events": tuple(Event(**event) for event in each.get("events", ()))})
                for each in data["objects"]
            )
            return cls(**{**data, "objects": objects, "camera": Camera(**data.get("camera", {}))})
        except (TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"not a scene: {error}") from error

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no white space."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Scene:
        """Read what :meth:`to_json` wrote."""
        try:
            return cls.from_dict(json.loads(text))
        except json.JSONDecodeError as error:
            raise UsageError(f"not a scene: {error}") from error

    def signature(self) -> str:
        """What the film *says*, without places and times: the unit that splits are made of.

        Two scenes with the same signature would be described by the same sentences.
        """
        figures = sorted(
            [
                each.shape,
                each.colour,
                each.size,
                [[e.action, e.direction, e.count, e.colour] for e in each.events],
            ]
            for each in self.objects
        )
        return json.dumps([figures, self.background, self.camera.motion, self.style], separators=(",", ":"))


def stable_hash(text: str) -> int:
    """A 64-bit hash that is the same on every platform and in every run (first 8 bytes of SHA-256, big-endian)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
