"""What each shape looks like when brought to one place and one area: templates and their moments."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage

from unireel.world.render import OUTLINE, distance_table
from unireel.world.scene import SHAPES

GRID = 21
"""Samples per side of a canonical picture."""

SPAN = 2.0
"""Half a side of a canonical picture, in radii of the disc that has the figure's area."""

RADIUS_GRID = np.arange(2.5, 13.01, 0.25)
_STEP = 4.0 / 160  # spacing of the distance table, in radii
_TEMPLATE_RADII = np.array([3.2, 3.8, 4.6, 5.6, 6.8, 8.2, 10.0, 12.0])
_BLURS = (0.45, 0.9, 1.4)  # standard deviations in pixels: sampling alone, a decoder, a soft decoder


def offsets() -> np.ndarray:
    """Canonical sample places along one axis, in radii of the disc of equal area: (GRID,)."""
    return np.linspace(-SPAN, SPAN, GRID)


def _coverage(shape: str, radius: float, rim: float) -> np.ndarray:
    """Coverage of ``shape`` of ``radius`` pixels widened by ``rim`` pixels, on the grid of the distance table."""
    return np.clip(0.5 + rim - distance_table(shape) * radius, 0, 1)


@cache
def _moments(outline: bool) -> tuple[np.ndarray, np.ndarray]:
    """Area in square pixels (7 shapes, radii of RADIUS_GRID) and centroid below the centre in pixels, likewise."""
    rim = OUTLINE if outline else 0.0
    axis = np.linspace(-2, 2, len(distance_table("circle")))
    area, drop = np.empty((2, len(SHAPES), len(RADIUS_GRID)))
    for s, shape in enumerate(SHAPES):
        for r, radius in enumerate(RADIUS_GRID):
            cover = _coverage(shape, radius, rim)
            area[s, r] = cover.sum() * (_STEP * radius) ** 2
            drop[s, r] = (cover.sum(1) @ axis) / cover.sum() * radius
    return area, drop


def radius_of(shape: int, area: np.ndarray, outline: bool) -> tuple[np.ndarray, np.ndarray]:
    """Radius in pixels, and how far the centroid lies below the centre, of figures of ``shape`` with ``area``.

    ``area`` (N,) in square pixels counts the contour where films have one (``outline``).
    """
    areas, drops = _moments(outline)
    radius = np.interp(area, areas[shape], RADIUS_GRID)
    return radius, np.interp(radius, RADIUS_GRID, drops[shape])


@cache
def _bank(outline: bool) -> np.ndarray:
    """Canonical pictures (7 shapes, radii, blurs, G) float32, G = GRID squared.

    With contours, G is twice as much: the whole figure, then its filling alone.
    """
    rims = (OUTLINE, 0.0) if outline else (0.0,)
    axis = np.linspace(-2, 2, len(distance_table("circle")))
    result = np.empty((len(SHAPES), len(_TEMPLATE_RADII), len(_BLURS), len(rims), GRID * GRID), np.float32)
    for s, shape in enumerate(SHAPES):
        for r, radius in enumerate(_TEMPLATE_RADII):
            whole = _coverage(shape, radius, rims[0])
            equal = np.sqrt(whole.sum() / np.pi) * _STEP  # in radii of the figure
            drop = (whole.sum(1) @ axis) / whole.sum()
            rows, columns = (drop + offsets() * equal + 2) / _STEP, (offsets() * equal + 2) / _STEP
            places = np.meshgrid(rows, columns, indexing="ij")
            for b, blur in enumerate(_BLURS):
                for m, rim in enumerate(rims):
                    soft = ndimage.gaussian_filter(
                        _coverage(shape, radius, rim), blur / radius / _STEP, mode="constant"
                    )
                    picture = ndimage.map_coordinates(soft, places, order=1, mode="constant")
                    result[s, r, b, m] = picture.ravel()
    return result.reshape(*result.shape[:3], -1)


def shape_errors(pictures: np.ndarray, mass: np.ndarray, outline: bool) -> np.ndarray:
    """How badly each shape of each sharpness fits: squared error over squared norm, (N, 7 shapes, blurs).

    Args:
        pictures: (N, G) canonical pictures of figures.
        mass: (N,) their areas in square pixels; only templates of about the radius that follows from it are compared.
        outline: whether the film has contours.
    """
    bank = _bank(outline)
    square = (pictures * pictures).sum(1)
    error = square[:, None] - 2 * pictures @ bank.reshape(-1, bank.shape[-1]).T + (bank**2).sum(-1).ravel()
    error = error.reshape(len(pictures), *bank.shape[:3])
    result = np.empty((len(pictures), bank.shape[0], bank.shape[2]))
    for s in range(len(SHAPES)):
        radius = radius_of(s, mass, outline)[0]
        nearest = np.abs(np.log(radius[:, None] / _TEMPLATE_RADII)).argmin(1)
        result[:, s] = error[np.arange(len(pictures)), s, nearest]
    return result / np.maximum(square, 1e-6)[:, None, None]
