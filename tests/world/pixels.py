"""What pixels say about one object of a scene: an independent reference for what texts claim."""

from __future__ import annotations

import dataclasses

import numpy as np

from unireel.world.render import render_frames
from unireel.world.scene import Scene

OFF_SCREEN = -1000.0
NOISE = 12
"""Least change of a pixel, in 8-bit steps, that counts: mixed edges are below it."""


def masks(scene: Scene, index: int) -> np.ndarray:
    """Where object ``index`` shows: the pixels that change when it is taken off the screen, (F, H, W) bool."""
    figures = list(scene.objects)
    figures[index] = dataclasses.replace(figures[index], x=OFF_SCREEN, y=OFF_SCREEN)
    without = render_frames(dataclasses.replace(scene, objects=tuple(figures)))
    change = np.abs(render_frames(scene).astype(int) - without.astype(int))
    return change.max(-1) > NOISE


def centres(scene: Scene, index: int) -> np.ndarray:
    """Middle (x, y) of the box around an object in each frame, (F, 2); NaN where it does not show."""
    found = np.full((scene.frames, 2), np.nan)
    for frame, mask in enumerate(masks(scene, index)):
        if mask.any():
            y, x = np.nonzero(mask)
            found[frame] = (x.min() + x.max()) / 2, (y.min() + y.max()) / 2
    return found


def index_of(scene: Scene, name: str) -> int:
    """Which object "red star" or "star" means; there must be exactly one."""
    *colour, shape = name.removeprefix("the ").split()
    found = [
        index
        for index, each in enumerate(scene.objects)
        if each.shape == shape and (not colour or each.colour == colour[0])
    ]
    assert len(found) == 1, f"{name} is ambiguous"
    return found[0]
