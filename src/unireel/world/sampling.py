"""Random scenes: the same scene for the same (seed, index), in the wanted split and category, with room for everything.

What a scene says (its :class:`Plan`) is drawn first, until it falls into the wanted split; places are drawn after
that, until all objects stay on the screen and apart from each other in every frame.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from random import Random

import numpy as np

from unireel.errors import UsageError
from unireel.world.render import LUMA
from unireel.world.scene import (
    BACKGROUNDS,
    CLIP_FRAMES,
    COLOURS,
    DIRECTIONS,
    SHAPES,
    SIZES,
    STYLES,
    TURNS,
    Camera,
    Event,
    Object,
    Scene,
)
from unireel.world.splits import SPLITS, held_out, motion_name, split_of
from unireel.world.tracks import Track, camera_path, object_track, reach

CATEGORIES = (
    "single object",
    "two objects",
    "counting",
    "colour",
    "attribute binding",
    "position",
    "motion",
    "repetition",
    "order",
    "state change",
    "camera",
)
MIXTURE = "mixture"
"""The overall distribution: 40 % one object, 40 % two, 20 % three or four; the only one that training uses."""

GAP = 2.0
"""Least distance in pixels between two objects, and between an object and the edge of the screen (half of it)."""

LUMA_CONTRAST = 40.0
"""Least difference in brightness between object and background in style ``grayscale``."""


@dataclass(frozen=True)
class Wish:
    """What a category asks of a scene; ``None`` leaves it to the mixture."""

    objects: int | None = None
    actions: tuple[str, ...] | None = None
    group: bool | None = None
    order: bool | None = None
    camera: bool | None = None
    plain: bool | None = None
    still: float = 0.2
    related: bool = False


WISHES: dict[str, Wish] = {
    MIXTURE: Wish(),
    "single object": Wish(objects=1),
    "two objects": Wish(objects=2, order=False),
    "counting": Wish(group=True, camera=False),
    "colour": Wish(objects=1, plain=True),
    "attribute binding": Wish(objects=2, order=False, plain=True),
    "position": Wish(objects=2, order=False, camera=False, still=1.0, related=True),
    "motion": Wish(objects=1, actions=("move", "circle", "shake"), still=0.0, camera=False),
    "repetition": Wish(objects=1, actions=("jump", "blink"), still=0.0, camera=False),
    "order": Wish(objects=2, order=True, camera=False),
    "state change": Wish(
        objects=1, actions=("grow", "shrink", "turn", "appear", "disappear"), still=0.0, camera=False
    ),
    "camera": Wish(camera=True),
}


def sample_scene(
    seed: int,
    index: int,
    split: str = "train",
    category: str = MIXTURE,
    size: int = 64,
    still: bool = False,
) -> Scene:
    """Scene number ``index`` of the endless sequence that belongs to ``seed``, ``split``, ``category`` and ``size``.

    Args:
        seed, index: any integers.
        split: one of :data:`SPLITS`.
        category: :data:`MIXTURE` or one of :data:`CATEGORIES`.
        size: canvas side in pixels (64, 48 or 32).
        still: nothing moves, neither objects nor camera, so that one frame shows all there is.

    Raises:
        UsageError: unknown split, category or size, or a still scene of a category that asks for motion.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split '{split}'; accepted: {', '.join(SPLITS)}")
    if category not in WISHES:
        raise UsageError(f"unknown category '{category}'; accepted: {', '.join(WISHES)}")
    wish = WISHES[category]
    if still:
        if wish.still == 0.0 or wish.order or wish.camera:
            raise UsageError(f"category '{category}' asks for motion; still scenes have none")
        wish = dataclasses.replace(wish, still=1.0, order=False, camera=False)
    random = Random(f"{seed}/{index}/{split}/{category}/{size}")
    while True:
        said = _draw(random, wish, split, size)
        if split_of(said) != split:
            continue
        placed = place(said, random)
        if placed is not None and (not wish.related or relation(placed, 0, 1, 0)):
            return placed


def relation(scene: Scene, first: int, second: int, frame: int) -> str | None:
    """How object ``first`` lies to object ``second`` on the screen at ``frame``, if clearly one of the four relations.

    Clear means: the offset along one axis is at least twice that along the other (a cone of 27 degrees around the
    axis, tighter than GenEval's rule) and larger than the mean of the two radii; both objects are visible.
    """
    one, two = (
        object_track(scene.objects[i], scene.camera, scene.frames, scene.size) for i in (first, second)
    )
    return relation_of(one, two, frame)


def relation_of(one: Track, two: Track, frame: int) -> str | None:
    """:func:`relation` of two objects whose tracks are at hand."""
    if not (one.visible[frame] and two.visible[frame]):
        return None
    dx, dy = one.screen_x[frame] - two.screen_x[frame], one.screen_y[frame] - two.screen_y[frame]
    if max(abs(dx), abs(dy)) < (one.screen_radius[frame] + two.screen_radius[frame]) / 2:
        return None
    if abs(dx) >= 2 * abs(dy):
        return "left of" if dx < 0 else "right of"
    if abs(dy) >= 2 * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def is_placed(scene: Scene) -> bool:
    """Whether all objects are on the screen and apart from each other in every frame, as sampled ones are."""
    placed: list[_Swept] = []
    for each in scene.objects:
        spot = _Swept(each, scene).at(each.x, each.y, scene)
        room = spot.radius + GAP / 2 - 0.02  # sampled places are rounded to 0.01
        inside = all(
            (axis >= room).all() and (axis <= scene.size - 1 - room).all() for axis in (spot.x, spot.y)
        )
        if not (inside and spot.clear_of(placed, GAP - 0.04)):
            return False
        placed.append(spot)
    return True


def place(scene: Scene, random: Random, tries: int = 12) -> Scene | None:
    """Give the objects places where they are on the screen and apart in all frames; None if too crowded."""
    shapes = [_Swept(each, scene, number) for number, each in enumerate(scene.objects)]
    for _ in range(tries):
        placed: list[_Swept] = []
        for each in sorted(shapes, key=lambda swept: -swept.width):
            spot = next(
                (s for s in (each.moved(random, scene) for _ in range(12)) if s and s.clear_of(placed)), None
            )
            if spot is None:
                break
            placed.append(spot)
        if len(placed) == len(shapes):
            placed.sort(key=lambda swept: swept.number)
            moved = tuple(
                dataclasses.replace(
                    figure, x=round(float(each.origin[0]), 2), y=round(float(each.origin[1]), 2)
                )
                for figure, each in zip(scene.objects, placed, strict=True)
            )
            return dataclasses.replace(scene, objects=moved)
    return None


def place_one(scene: Scene, figure: Object, random: Random, tries: int = 24) -> Scene | None:
    """``scene`` with ``figure`` added at a free place, all others where they are; None if none was found."""
    others = [_Swept(each, scene).at(each.x, each.y, scene) for each in scene.objects]
    shape = _Swept(figure, scene)
    for _ in range(tries):
        spot = shape.moved(random, scene)
        if spot and spot.clear_of(others):
            added = dataclasses.replace(
                figure, x=round(float(spot.origin[0]), 2), y=round(float(spot.origin[1]), 2)
            )
            return dataclasses.replace(scene, objects=(*scene.objects, added))
    return None


def sample_event(random: Random, scene: Scene, colour: str) -> Event:
    """One event for an object of ``colour`` in a clip like ``scene``, as the mixture draws them."""
    event = _event(random, Wish(still=0.0), scene.style, colour, scene.background, None, scene.size)
    assert event is not None, "an object that is never still has an event"
    return event


class _Swept:
    """The room that an object takes on the screen in each frame."""

    def __init__(self, figure: Object, scene: Scene, number: int = 0) -> None:
        track = object_track(dataclasses.replace(figure, x=0.0, y=0.0), Camera(), scene.frames, scene.size)
        self.number = number
        self.dx, self.dy = track.x, track.y
        self.shift_x, self.shift_y, self.zoom = camera_path(scene.camera, scene.frames)
        rim = 1.5 if scene.style == "outline" else 0.0
        self.radius = track.radius * self.zoom * reach(figure.shape) + rim
        self.width = float(np.ptp(self.dx) + np.ptp(self.dy) + self.radius.max())
        self.origin = (0.0, 0.0)
        self.x = self.y = self.dx

    def moved(self, random: Random, scene: Scene) -> _Swept | None:
        """A copy at a random place where it is on the screen in every frame; None if there is none."""
        middle = (scene.size - 1) / 2
        spot = []
        for offset, shift in ((self.dx, self.shift_x), (self.dy, self.shift_y)):
            room = self.radius + GAP / 2
            low = ((room - middle + shift) / self.zoom + middle - offset).max()
            high = ((scene.size - 1 - room - middle + shift) / self.zoom + middle - offset).min()
            if low > high:
                return None
            spot.append(low + (high - low) * random.random())
        return self.at(spot[0], spot[1], scene)

    def at(self, x: float, y: float, scene: Scene) -> _Swept:
        """A copy whose object starts at (x, y) in pixels."""
        middle = (scene.size - 1) / 2
        other = object.__new__(_Swept)
        other.__dict__.update(self.__dict__)
        other.origin = (x, y)
        other.x = (x + self.dx - middle) * self.zoom + middle - self.shift_x
        other.y = (y + self.dy - middle) * self.zoom + middle - self.shift_y
        return other

    def clear_of(self, others: list[_Swept], gap: float = GAP) -> bool:
        """Whether this object keeps its distance from all ``others`` in every frame."""
        for each in others:
            apart = self.radius + each.radius + gap
            if ((self.x - each.x) ** 2 + (self.y - each.y) ** 2 < apart * apart).any():
                return False
        return True


def _draw(random: Random, wish: Wish, split: str, size: int) -> Scene:
    """What a scene says: objects without places (at 0, 0), background, camera, style."""
    count = wish.objects or random.choices((1, 2, 3, 4), (40, 40, 10, 10))[0]
    group = (
        wish.group if wish.group is not None else wish.objects is None and count > 2 and random.random() < 0.4
    )
    if wish.group:
        count = random.choice((2, 3, 4))
    order = wish.order if wish.order is not None else count == 2 and random.random() < 0.15
    style = "plain" if wish.plain or random.random() < 0.76 else random.choice(STYLES[1:])
    moving = wish.camera if wish.camera is not None else random.random() < 0.15
    background = random.choice(tuple(BACKGROUNDS))
    camera = _camera(random, size) if moving else Camera()
    forced = random.randrange(count) if split == "compositional" else None
    figures: list[Object] = []
    for number in range(1 if group else count):
        taken = {each.shape for each in figures} if style == "grayscale" else {each.name for each in figures}
        phase = None if not order else number
        figures.append(_figure(random, wish, style, background, taken, phase, split, number == forced, size))
    if group:
        figures = figures * count
    return Scene(tuple(figures), background, camera, style, CLIP_FRAMES, size)


def _figure(random, wish: Wish, style, background, taken, phase, split, forced, size) -> Object:
    """One object: shape, colour, size and events, respecting contrast, uniqueness and the held-out pairs."""
    for _ in range(10_000):
        shape, colour = random.choice(SHAPES), random.choice(tuple(COLOURS))
        if (shape if style == "grayscale" else (shape, colour)) in taken or not visible_on(
            colour, background, style
        ):
            continue
        event = _event(random, wish, style, colour, background, phase, size)
        colours = [colour, event.colour] if event and event.colour else [colour]
        unseen = any(held_out(shape, each) for each in (*colours, *([motion_name(event)] if event else ())))
        if (unseen and split != "compositional") or (forced and not unseen):
            continue
        forced_size = {"grow": "small", "shrink": "large"}.get(event.action if event else "")
        return Object(shape, colour, forced_size or random.choice(SIZES), 0.0, 0.0, (event,) if event else ())
    raise RuntimeError("no object fits the wish; the World's categories and splits contradict each other")


def visible_on(colour: str, background: str, style: str) -> bool:
    """Whether an object of ``colour`` can be told from ``background``, and its style from the other styles.

    White objects are left out of grayscale films and of films on black and gray, where nothing else would show the
    style, and of light outlines, which would melt into them.
    """
    if style == "grayscale":
        pair = np.array([COLOURS[colour], BACKGROUNDS[background]], dtype=float) @ np.array(LUMA)
        return colour != "white" and abs(pair[0] - pair[1]) >= LUMA_CONTRAST
    if colour == "white":
        return background == "sand" or (background in ("navy", "forest") and style != "outline")
    return True


def _camera(random: Random, size: int) -> Camera:
    motion = random.choice(("pans left", "pans right", "pans up", "pans down", "zooms in", "zooms out"))
    if motion.startswith("pans"):
        return Camera(motion, round(random.uniform(10, 14) * size / 64, 2))
    return Camera(motion, 1.3 if motion == "zooms in" else 0.75)


def _event(
    random: Random, wish: Wish, style, colour, background, phase: int | None, size: int
) -> Event | None:
    """One event of a clip, or None for an object that stays still; ``phase`` 0 or 1 puts it early or late."""
    if phase is None and random.random() < wish.still:
        return None
    kinds = wish.actions or ("move", "move", "move", "circle", "jump", "shake", "grow", "shrink", "turn", "appear",
                             "disappear", "blink")  # fmt: skip
    action = random.choice(kinds)
    if action == "turn" and style == "grayscale":
        action = "move"
    count = random.choice((1, 2, 3) if phase is None else (1,)) if action in ("jump", "blink") else None
    start, end = timing(random, action, count or 1, phase)
    unit = size / 64
    amount = {"move": (16, 28), "circle": (7, 9), "jump": (9, 13), "shake": (3, 3)}.get(action)
    direction = {"move": DIRECTIONS, "circle": TURNS}.get(action)
    others = [each for each in COLOURS if each != colour and visible_on(each, background, style)]
    return Event(
        action,
        start,
        end,
        direction=random.choice(direction) if direction else None,
        count=count,
        colour=random.choice(others) if action == "turn" else None,
        amount=round(random.uniform(*amount) * unit, 2) if amount else 0.0,
    )


def timing(random: Random, action: str, count: int, phase: int | None) -> tuple[int, int]:
    """First and last frame of an event in a clip of 17 frames; events of phase 0 end before those of phase 1 start."""
    first, last = {None: (0, 16), 0: (0, 7), 1: (9, 16)}[phase]
    length = {
        "move": random.randint(11, 16),
        "circle": random.randint(12, 16),
        "shake": random.randint(10, 16),
        "grow": random.randint(8, 16),
        "shrink": random.randint(8, 16),
        "jump": min(5 * count + random.randint(0, 1), 16),
        "blink": min(5 * count + random.randint(0, 1), 16),
        "turn": 2,
        "appear": 1,
        "disappear": 1,
    }[action]
    if length > 2:
        length = min(length, last - first)
        start = random.randint(first, last - length)
        return start, start + length
    margin = 4 if phase is None else 2
    start = random.randint(first + margin, last - margin - length)
    return start, start + length
