"""Dense targets from exact ground truth: what lies in each cell of a film's token grid.

Small models learn slowly from captions and velocities alone, because little in them says *where* a word is true.
An auxiliary loss on these targets (in the spirit of representation alignment, arXiv 2410.06940, with the World's ground
truth in place of a pretrained encoder's features) says it for every token. Nothing of it is used at inference.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from unireel.world.scene import BACKGROUNDS, CAMERAS, COLOURS, MAX_OBJECTS, SHAPES, SIZES, STYLES, Scene
from unireel.world.splits import MOTIONS, motion_name
from unireel.world.tracks import COLOUR_NAMES, tracks

COUNTS = (1, 2, 3)
_CHANNELS = (
    *((shape, colour) for shape in SHAPES for colour in COLOURS),
    *SIZES,
    *MOTIONS,
    *(("times", count) for count in COUNTS),
    "still",
)
CELL_TARGETS = len(_CHANNELS)
"""Targets of one cell: shape and colour together (56), size (2), motion (14), repetitions (3), still (1)."""

MOTION_TARGETS = len(MOTIONS) + len(COUNTS) + 1
"""The last targets of a cell, which several frames decide: motion, repetitions, still."""

FILM_TARGETS = len(BACKGROUNDS) + len(CAMERAS) + len(STYLES)
"""Targets of a whole film: background, camera and style, one-hot each."""


@cache
def _index() -> dict:
    return {channel: number for number, channel in enumerate(_CHANNELS)}


def cell_targets(scene: Scene, groups: list[tuple[int, int]], cells: int) -> np.ndarray:
    """What touches each cell of a ``cells`` x ``cells`` grid in each group of frames: (T, cells, cells, K) bool.

    ``groups`` are T half-open ranges of frames, as a tokenizer bundles them. An object counts in the cells that its
    bounding square touches by at least a quarter of a radius, in the frames of the group where it is visible.
    """
    index = _index()
    result = np.zeros((len(groups), cells, cells, CELL_TARGETS), dtype=bool)
    step = scene.size / cells
    for figure, track in zip(scene.objects, tracks(scene), strict=True):
        fixed = [index[size] for size in (figure.size,)]
        for event in figure.events:
            fixed.append(index[motion_name(event)])
            if event.count:
                fixed.append(index["times", event.count])
        if not figure.events:
            fixed.append(index["still"])
        for number, (start, end) in enumerate(groups):
            for frame in range(start, end):
                if not track.visible[frame]:
                    continue
                x, y, r = (
                    track.screen_x[frame] + 0.5,
                    track.screen_y[frame] + 0.5,
                    0.75 * track.screen_radius[frame],
                )
                rows = slice(max(int((y - r) // step), 0), max(int((y + r) // step) + 1, 0))
                columns = slice(max(int((x - r) // step), 0), max(int((x + r) // step) + 1, 0))
                name = index[figure.shape, COLOUR_NAMES[track.colour[frame]]]
                result[number, rows, columns, [name, *fixed]] = True
    return result


def film_targets(scene: Scene) -> np.ndarray:
    """Background, camera and style, one-hot after each other: (:data:`FILM_TARGETS`,) bool."""
    result = np.zeros(FILM_TARGETS, dtype=bool)
    offset = 0
    for value, names in (
        (scene.background, tuple(BACKGROUNDS)),
        (scene.camera.motion, CAMERAS),
        (scene.style, STYLES),
    ):
        result[offset + names.index(value)] = True
        offset += len(names)
    return result


def motion_targets(scene: Scene) -> np.ndarray:
    """What each object does: (O, :data:`MOTION_TARGETS`) bool: motions, repetitions, still."""
    index = _index()
    result = np.zeros((MAX_OBJECTS, CELL_TARGETS), dtype=bool)
    for number, figure in enumerate(scene.objects):
        for event in figure.events:
            result[number, index[motion_name(event)]] = True
            if event.count:
                result[number, index["times", event.count]] = True
        result[number, index["still"]] = not figure.events
    return result[:, -MOTION_TARGETS:]


def latent_groups(frames: int, compression: int = 4) -> list[tuple[int, int]]:
    """The frames that each latent frame of a causal autoencoder stands for: the first alone, then ``compression``."""
    return [(0, 1), *((start, start + compression) for start in range(1, frames, compression))]
