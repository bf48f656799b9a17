"""What each shape looks like when brought to one place and one area: templates and their moments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage

from unireel.world.render import OUTLINE, distance_table
from unireel.world.scene import SHAPES

GRID = 21
"""Samples per side of a canonical picture."""

SPAN = 2.0
"""Half a side of a canonical picture, in radii of the disc that has the figure's area."""

_STEP = 4.0 / 160  # spacing of the distance table, in radii
RADIUS_GRID = np.arange(2.5, 13.01, 0.25)
_TEMPLATE_RADII = (3.6, 4.5, 6.0, 8.0, 10.5)
_BLURS = (0.45, 0.9, 1.4)  # standard deviations in pixels: sampling alone, a decoder, a soft decoder


def offsets() -> np.ndarray:
    """Canonical sample places along one axis, in radii of the disc of equal area: (GRID,)."""
    return np.linspace(-SPAN, SPAN, GRID)


def _cover(shape: str, radius: float, rim: float) -> np.ndarray:
    """Anti-aliased coverage of ``shape`` of ``radius`` pixels widened by ``rim`` pixels, on the distance table's grid."""
    return np.clip(0.5 + rim - distance_table(shape) * radius, 0, 1)


@cache
def moments(outline: bool) -> tuple[np.ndarray, np.ndarray]:
    """Area in square pixels (7 shapes, R radii of RADIUS_GRID) and centroid below the centre in pixels, likewise."""
    rim = OUTLINE if outline else 0.0
    axis = np.linspace(-2, 2, 161)
    area, drop = np.empty((2, len(SHAPES), len(RADIUS_GRID)))
    for s, shape in enumerate(SHAPES):
        for r, radius in enumerate(RADIUS_GRID):
            cover = _cover(shape, radius, rim)
            area[s, r] = cover.sum() * (_STEP * radius) ** 2
            drop[s, r] = (cover.sum(1) @ axis) / cover.sum() * radius
    return area, drop


def radius_of(shape: int, area: np.ndarray, outline: bool) -> tuple[np.ndarray, np.ndarray]:
    """Radius in pixels, and how far the centroid lies below the centre, of figures of ``shape`` with ``area``."""
    areas, drops = moments(outline)
    radius = np.interp(area, areas[shape], RADIUS_GRID)
    return radius, np.interp(radius, RADIUS_GRID, drops[shape])


@dataclass(frozen=True)
class Bank:
    """Templates of all shapes: ``pictures`` (K, GRID * GRID) float32 and which shape each shows, ``shape`` (K,)."""

    pictures: np.ndarray
    shape: np.ndarray
    squares: np.ndarray


@cache
def bank(outline: bool) -> Bank:
    """Canonical pictures of every shape in several sizes and sharpnesses."""
    rim = OUTLINE if outline else 0.0
    pictures, numbers = [], []
    grid = offsets()
    for s, shape in enumerate(SHAPES):
        for radius in _TEMPLATE_RADII:
            cover = _cover(shape, radius, rim)
            equal = np.sqrt(cover.sum() / np.pi) * _STEP  # in radii of the figure
            drop = (cover.sum(1) @ np.linspace(-2, 2, 161)) / cover.sum()
            rows, columns = (drop + grid * equal + 2) / _STEP, (grid * equal + 2) / _STEP
            places = np.meshgrid(rows, columns, indexing="ij")
            for blur in _BLURS:
                soft = ndimage.gaussian_filter(cover, blur / radius / _STEP, mode="constant")
                pictures.append(ndimage.map_coordinates(soft, places, order=1, mode="constant").ravel())
                numbers.append(s)
    stacked = np.array(pictures, dtype=np.float32)
    return Bank(stacked, np.array(numbers), (stacked * stacked).sum(1))


def shape_errors(pictures: np.ndarray, outline: bool) -> np.ndarray:
    """How badly each shape fits canonical pictures (N, GRID * GRID): squared error over squared norm, (N, 7)."""
    known = bank(outline)
    square = (pictures * pictures).sum(1)
    error = square[:, None] - 2 * pictures @ known.pictures.T + known.squares
    error = error.reshape(len(pictures), len(SHAPES), -1).min(2)
    return error / np.maximum(square, 1e-6)[:, None]
