"""Events: everything that one tracked object does, in short films and in stories."""

# NumPy's scalar and array types are too loose for these rules.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage

from unireel.world.checker.background import CameraPath
from unireel.world.checker.motion import OTHER, Motion, place_motion, size_motion
from unireel.world.tracks import COLOUR_NAMES

LONG = 40
"""Frames from which on a film is a story: an object may do several things of one kind, one after the other."""

LEAST_GAP, MOST_GAP = 2, 4
"""Frames that an object is hidden in a blink; one hidden frame is a flicker, more than four are an absence."""

ODD_COLOURS = 0.3
"""Largest share of frames in which an object has neither its first nor its last colour."""

_SPEED = 0.008  # canvas sides a frame above which an object of a story moves


@dataclass(frozen=True)
class Path:
    """One object over F frames, on the screen: ``x``, ``y``, ``radius`` (F,) in pixels (nan where unseen), ``visible``
    (F,) bool, ``colour`` (F,) number or -1."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    visible: np.ndarray
    colour: np.ndarray


def find_events(path: Path, camera: CameraPath, radii: tuple[int, int]) -> list[Motion]:
    """Everything an object does, in the order of starts; ``radii``: the World's small and large, in pixels."""
    size = camera.wave.shape[1]
    x, y = camera.to_world(path.x, path.y, np.arange(len(path.x)))
    x, y, radius = x / size, y / size, path.radius / camera.zoom
    if len(x) < LONG:
        found = [
            place_motion(x, y, path.visible),
            size_motion(radius, path.visible, *radii),
            _colour_motion(path.colour, path.visible),
        ]
    else:
        found = [
            *_place_motions(x, y, path.visible),
            *_changes(radius > sum(radii) / 2, path.visible, 5, ("shrink", "grow")),
            *_changes(path.colour, path.visible, 1, tuple(f"turn {name}" for name in COLOUR_NAMES)),
        ]
    found += _visibility_motions(path.visible)
    return sorted((each for each in found if each), key=lambda each: each.start)


def _place_motions(x: np.ndarray, y: np.ndarray, visible: np.ndarray) -> list[Motion]:
    """The motions of a story, each in a window of its own where the object is not at rest."""
    seen = np.flatnonzero(visible)
    speed = np.zeros(len(x))
    speed[seen[1:]] = np.hypot(np.diff(x[seen]), np.diff(y[seen])) / np.diff(seen)
    busy = ndimage.binary_closing(np.pad(speed > _SPEED, 3), iterations=2)[3:-3]
    windows, _ = ndimage.label(busy)
    found = []
    for (window,) in ndimage.find_objects(windows):
        start, stop = max(window.start - 3, 0), min(window.stop + 3, len(x), window.start + LONG)
        motion = place_motion(x[start:stop], y[start:stop], visible[start:stop])
        if motion:
            found.append(Motion(motion.value, motion.start + start, motion.end + start))
    return found


def _changes(state: np.ndarray, visible: np.ndarray, half: int, names: tuple[str, ...]) -> list[Motion]:
    """Lasting changes of ``state`` (F,) (a number into ``names``), each about ``2 half`` frames long."""
    seen = np.flatnonzero(visible)
    steady = ndimage.median_filter(state[seen].astype(np.int64), 5, mode="nearest")
    last = len(state) - 1
    return [
        Motion(names[steady[i]], max(int(seen[i]) - half, 0), min(int(seen[i]) + half - 1, last))
        for i in np.flatnonzero(np.diff(steady)) + 1
    ]


def _colour_motion(colour: np.ndarray, visible: np.ndarray) -> Motion | None:
    """A lasting change of colour."""
    seen = np.flatnonzero(visible)
    if len(seen) < 4:
        return None
    edge = max(1, min(3, len(seen) // 4))
    before, after = (int(np.bincount(colour[part] + 1).argmax()) - 1 for part in (seen[:edge], seen[-edge:]))
    if np.mean((colour[seen] != before) & (colour[seen] != after)) > ODD_COLOURS:
        return Motion(OTHER, int(seen[0]), int(seen[-1]))
    if before == after:
        return None
    start = int(seen[np.flatnonzero(colour[seen] == before)[-1]])
    end = int(seen[np.flatnonzero(colour[seen] == after)[0]])
    return Motion(f"turn {COLOUR_NAMES[after]}", min(start, end - 1), max(end, start + 1))


def _visibility_motions(visible: np.ndarray) -> list[Motion]:
    """Appearing, disappearing and blinking, by the gaps in which an object is hidden."""
    seen = np.flatnonzero(visible)
    first, last, end = int(seen[0]), int(seen[-1]), len(visible) - 1
    found = [Motion("appear", first - 1, first)] if first >= LEAST_GAP else []
    gaps = [(int(a), int(b)) for a, b in pairwise(seen) if b - a > LEAST_GAP]
    blinks: list[list[tuple[int, int]]] = []
    for before, after in gaps:
        if after - before - 1 > MOST_GAP:
            found += [Motion("disappear", before, before + 1), Motion("appear", after - 1, after)]
        elif blinks and before - blinks[-1][-1][1] < 6:
            blinks[-1].append((before, after))
        else:
            blinks.append([(before, after)])
    found += [Motion(f"blink {len(run)}", max(run[0][0] - 1, 0), min(run[-1][1] + 1, end)) for run in blinks]
    if end - last >= LEAST_GAP:
        found.append(Motion("disappear", last, last + 1))
    return found
