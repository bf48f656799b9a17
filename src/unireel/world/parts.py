"""Parts in a story: what one object does over a long film, within its own part of the screen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from random import Random

from unireel.world.sampling import GAP, timing, visible_on
from unireel.world.scene import COLOURS, DIRECTIONS, RADII, SHAPES, TURNS, VECTORS, Event, Object
from unireel.world.splits import held_out
from unireel.world.tracks import reach

VISIT = (9, 14)
"""How many frames a visitor stays, at least and at most."""

FLUSH = (6, 12)
"""How many frames an object keeps a colour that it turns to for a moment, at least and at most."""

RIM = 1.5
"""Room in pixels for the contour of style ``outline``, left free in every style."""

ACTIONS = ("move", "move", "move", "circle", "jump", "shake", "grow", "shrink", "turn", "flush", "blink")
"""What happens in stories, as often as it is drawn; "flush": turns to another colour for a moment."""

ONCE = ("jump", "blink", "flush")
"""What an object does at most once in a story, so that questions can ask about it."""

AMOUNTS = {"move": (10, 24), "circle": (5, 8), "jump": (8, 12), "shake": (3, 3)}
"""How far objects go, in pixels of a canvas of side 64."""


@dataclass(frozen=True)
class Box:
    """A part of the screen, in pixels, that the object in it never leaves."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Setting:
    """What all objects of a story share."""

    background: str
    style: str
    frames: int
    size: int
    split: str


class Part:
    """Makes up one object: follows where it is and what it looks like while events are added to its part."""

    def __init__(self, random: Random, setting: Setting, box: Box, taken: set[str], visiting: bool) -> None:
        """``taken``: shapes of other objects. ``visiting``: the object is there for a moment only."""
        self.random, self.setting, self.box, self.visiting = random, setting, box, visiting
        needed = ("appear", "disappear") if visiting else ()
        shapes = [each for each in SHAPES if each not in taken and self._seen(each, *needed)]
        self.shape = random.choice(shapes)
        self.colour = random.choice([each for each in self._colours() if self._seen(self.shape, each)])
        self.events: list[Event] = []
        self.used: set[str] = set()
        self.size = "small" if random.random() < 0.6 or not self._room("large") else "large"
        left, right, top, bottom = self._room(self.size) or (0.0, 0.0, 0.0, 0.0)
        self.x, self.y = round(random.uniform(left, right), 2), round(random.uniform(top, bottom), 2)

    def play(self) -> Object:
        """The finished object."""
        begin = (self.shape, self.colour, self.size, self.x, self.y)
        frames = self.setting.frames
        if self.visiting:
            stay = self.random.randint(*VISIT)
            start = self.random.randint(4, frames - stay - 6)
            self.events = [
                Event("appear", start, start + 1),
                Event("disappear", start + stay, start + stay + 1),
            ]
        else:
            acts = self.random.randint(2 + frames // 128, max(2, min(10, frames // 40)))
            for act in range(acts):
                self._act(1 + (frames - 1) * act // acts, (frames - 1) * (act + 1) // acts - 1)
        return Object(*begin, tuple(self.events))

    def _colours(self) -> tuple[str, ...]:
        return _colours_on(self.setting.background, self.setting.style)

    def _seen(self, shape: str, *attributes: str) -> bool:
        """Whether the split allows a shape with colours or motions."""
        return self.setting.split == "compositional" or not any(held_out(shape, each) for each in attributes)

    def _room(self, size: str) -> tuple[float, float, float, float] | None:
        """Where the centre may be (left, right, top, bottom) of an object of ``size``; None if nowhere."""
        free = RADII[self.setting.size][size] * reach(self.shape) + RIM + GAP / 2
        room = (self.box.left + free, self.box.right - free, self.box.top + free, self.box.bottom - free)
        return room if room[0] <= room[1] and room[2] <= room[3] else None

    def _inside(self, *points: tuple[float, float]) -> bool:
        room = self._room(self.size)
        return room is not None and all(
            room[0] <= x <= room[1] and room[2] <= y <= room[3] for x, y in points
        )

    def _act(self, first: int, last: int) -> None:
        """Add something that happens from frame ``first`` to ``last``: the first idea that is possible."""
        for _ in range(12):
            action = self.random.choice(ACTIONS)
            if action in ONCE and action in self.used:
                continue
            events = self._flush(first, last) if action == "flush" else self._event(action, first, last)
            if events:
                self.events += events
                self.used.add(action)
                return

    def _span(self, action: str, count: int, first: int, last: int) -> tuple[int, int]:
        """A time for an event, as long as it would take in a clip."""
        start, end = timing(self.random, action, count, None)
        begin = self.random.randint(first, last - (end - start))
        return begin, begin + end - start

    def _flush(self, first: int, last: int) -> list[Event]:
        """Another colour for a moment."""
        other = self._other_colour()
        stay = self.random.randint(*FLUSH)
        if other is None or last - first < stay + 4:
            return []
        start = self.random.randint(first, last - stay - 4)
        back = start + 2 + stay
        return [
            Event("turn", start, start + 2, colour=other),
            Event("turn", back, back + 2, colour=self.colour),
        ]

    def _other_colour(self) -> str | None:
        able = [each for each in self._colours() if each != self.colour and self._seen(self.shape, each)]
        return self.random.choice(able) if able and self._seen(self.shape, "turn") else None

    def _event(self, action: str, first: int, last: int) -> list[Event]:
        """One event that keeps the object in its box, or none; follows what it does to the object."""
        random, unit = self.random, self.setting.size / 64
        if action == "move":
            return self._move(first, last)
        direction = random.choice(TURNS) if action == "circle" else None
        if not self._seen(self.shape, f"{action} {direction}" if direction else action):
            return []
        count = random.choice((1, 2, 3)) if action in ("jump", "blink") else None
        amount = round(random.uniform(*AMOUNTS[action]) * unit, 2) if action in AMOUNTS else 0.0
        colour = None
        if action == "turn":
            colour = self._other_colour()
            if colour is None:
                return []
        if not self._try(action, amount):
            return []
        self.colour = colour or self.colour
        start, end = self._span(action, count or 1, first, last)
        return [Event(action, start, end, direction, count, colour, amount)]

    def _move(self, first: int, last: int) -> list[Event]:
        """A move in one of the directions in which there is room for one."""
        left, right, top, bottom = self._room(self.size) or (self.x, self.x, self.y, self.y)
        rooms = {"left": self.x - left, "right": right - self.x, "up": self.y - top, "down": bottom - self.y}
        shortest, longest = (each * self.setting.size / 64 for each in AMOUNTS["move"])
        able = [
            each for each in DIRECTIONS if rooms[each] > shortest and self._seen(self.shape, f"move {each}")
        ]
        if not able:
            return []
        direction = self.random.choice(able)
        amount = math.floor(self.random.uniform(shortest, min(longest, rooms[direction])) * 100) / 100
        dx, dy = VECTORS[direction]
        self.x, self.y = self.x + dx * amount, self.y + dy * amount
        start, end = self._span("move", 1, first, last)
        return [Event("move", start, end, direction, amount=amount)]

    def _try(self, action: str, amount: float) -> bool:
        """Whether there is room for an action; a change of size is noted."""
        x, y = self.x, self.y
        if action == "circle":
            return self._inside((x - amount, y), (x + amount, y + 2 * amount))
        if action == "jump":
            return self._inside((x, y - amount))
        if action == "shake":
            return self._inside((x - amount, y), (x + amount, y))
        if action in ("grow", "shrink"):
            before, after = ("small", "large") if action == "grow" else ("large", "small")
            if self.size != before:
                return False
            self.size = after
            if not self._inside((x, y)):
                self.size = before
                return False
        return True


@cache
def _colours_on(background: str, style: str) -> tuple[str, ...]:
    return tuple(each for each in COLOURS if visible_on(each, background, style))
