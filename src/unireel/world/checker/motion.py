"""Motions: which event explains a measured track, by least squares over every possible start and end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

OTHER = "other"
"""The value of a motion, and the name of a shape, that is none of the World's."""

LEAST = {"move": 0.1, "circle": 0.06, "jump": 0.085, "shake": 0.022}
"""Least amount of each action in canvas sides: about half to two thirds of what the World shows."""

MOST = {"move": 0.75, "circle": 0.22, "jump": 0.36, "shake": 0.11}

STIR = 0.02
"""Root-mean-square displacement from rest, in canvas sides, below which an object stays still."""

FIT = {"move": 0.12, "circle": 0.12, "jump": 0.12, "shake": 0.35}
"""Largest unexplained share of the squared displacement of a motion that is called by a name. A shake is known by its
rhythm even where a decoder has halved and blurred it."""


@dataclass(frozen=True)
class Motion:
    """One event seen: ``value`` as in :func:`unireel.world.facts.motion_value`, or "other" for a motion that is none
    of the World's; ``start`` and ``end`` frames as in :class:`unireel.world.scene.Event`."""

    value: str
    start: int
    end: int


@lru_cache(maxsize=4)
def _paths(frames: int) -> tuple[np.ndarray, list[tuple[str, str | int | None, int, int]]]:
    """All unit paths (K, 2, F) with what each is: (action, argument, start, end); "move" has axis "x" or "y"."""
    time = np.arange(frames)
    paths, names = [], []

    def add(name, x, y):
        paths.append((x, y))
        names.append(name)

    nothing = np.zeros(frames)
    for start in range(frames):
        for end in range(start + 4, frames):
            progress = np.clip((time - start) / (end - start), 0, 1)
            length = end - start
            add(("move", "x", start, end), progress, nothing)
            add(("move", "y", start, end), nothing, progress)
            inside = (time > start) & (time < end)
            if length >= 6:
                angle = 2 * np.pi * progress
                add(("circle", "clockwise", start, end), np.sin(angle), 1 - np.cos(angle))
                add(("circle", "counter-clockwise", start, end), -np.sin(angle), 1 - np.cos(angle))
                swing = np.array([0.0, 1.0, 0.0, -1.0])[(time - start) % 4]
                add(("shake", None, start, end), np.where(inside, swing, 0), nothing)
            for count in (1, 2, 3):
                if 4 * count <= length <= 6.5 * count + 0.5:
                    phase = progress * count % 1.0
                    add(("jump", count, start, end), nothing, np.where(inside, -4 * phase * (1 - phase), 0))
    return np.array(paths, dtype=np.float64).reshape(len(paths), 2, frames), names


@dataclass(frozen=True)
class _Paths:
    """Paths over the frames where an object is seen, without mean: ``unit`` vectors (K, 2 n), their ``length`` (K,),
    least and most amounts (K,), which may have a negative amount (K,), and what each is."""

    unit: np.ndarray
    length: np.ndarray
    least: np.ndarray
    most: np.ndarray
    signed: np.ndarray
    names: list[tuple[str, str | int | None, int, int]]


@lru_cache(maxsize=64)
def _normal_paths(frames: int, seen: bytes) -> _Paths:
    """The paths over the ``seen`` frames (F,) bool of a film."""
    paths, names = _paths(frames)
    paths = paths[:, :, np.frombuffer(seen, dtype=bool)]
    paths = (paths - paths.mean(2, keepdims=True)).reshape(len(paths), -1)
    length = np.sqrt((paths * paths).sum(1))
    keep = np.flatnonzero(length > 0.3)
    actions = [names[k][0] for k in keep]
    return _Paths(
        paths[keep] / length[keep, None],
        length[keep],
        np.array([LEAST[action] for action in actions]),
        np.array([MOST[action] for action in actions]),
        np.array([action == "move" for action in actions]),
        [names[k] for k in keep],
    )


def place_motion(x: np.ndarray, y: np.ndarray, seen: np.ndarray) -> Motion | None:
    """The motion of an object's place; None if it stays still.

    Args:
        x, y: (F,) world coordinates in canvas sides; ``seen``: (F,) bool, where they are known.
    """
    if seen.sum() < 4:
        return None
    place = np.stack([x[seen], y[seen]])
    place = place - np.median(place, axis=1, keepdims=True)
    spread = np.abs(place).max()
    place = place - place.mean(1, keepdims=True)
    energy = (place * place).sum()
    if np.sqrt(energy / seen.sum()) < STIR / 2 or spread < STIR:
        return None
    paths = _normal_paths(len(seen), seen.tobytes())
    gain = paths.unit @ place.ravel()
    amount = gain / paths.length
    size = np.where(paths.signed, np.abs(amount), amount)
    fit = np.where((size >= paths.least) & (size <= paths.most), gain * gain / energy, -1.0)
    best = int(fit.argmax())
    if fit[best] < 1 - FIT[paths.names[best][0]]:
        if np.sqrt(energy / seen.sum()) < STIR:
            return None
        moved = np.flatnonzero(seen)
        return Motion(OTHER, int(moved[0]), int(moved[-1]))
    action, argument, start, end = paths.names[best]
    if action == "move":
        negative, positive = ("left", "right") if argument == "x" else ("up", "down")
        argument = positive if amount[best] > 0 else negative
    return Motion(f"{action} {argument}" if argument else action, start, end)


@lru_cache(maxsize=64)
def _ramps(frames: int, seen: bytes) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """Unit ramps over the seen frames without mean (K, n), their lengths (K,), and their start and end."""
    time = np.arange(frames)
    spans = [(s, e) for s in range(frames) for e in range(s + 3, frames)]
    ramps = np.array([np.clip((time - s) / (e - s), 0, 1) for s, e in spans]).reshape(-1, frames)
    ramps = ramps[:, np.frombuffer(seen, dtype=bool)]
    ramps = ramps - ramps.mean(1, keepdims=True)
    length = np.sqrt((ramps * ramps).sum(1))
    keep = np.flatnonzero(length > 0.3)
    return ramps[keep] / length[keep, None], length[keep], [spans[k] for k in keep]


def size_motion(radius: np.ndarray, seen: np.ndarray, small: float, large: float) -> Motion | None:
    """Whether an object grows or shrinks; ``radius`` (F,) in pixels, ``small`` and ``large`` the World's radii."""
    if seen.sum() < 4:
        return None
    value = radius[seen]
    edge = max(1, min(3, len(value) // 4))
    change = np.median(value[-edge:]) - np.median(value[:edge])
    if abs(change) < 0.5 * (large - small):
        return None
    unit, _, spans = _ramps(len(seen), seen.tobytes())
    start, end = spans[int(np.abs(unit @ (value - value.mean())).argmax())]
    return Motion("grow" if change > 0 else "shrink", start, end)
