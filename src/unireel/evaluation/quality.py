"""PSNR and SSIM of frames, whole or within a region."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter, minimum_filter

from unireel.errors import UserError

MOST_DB = 99.0
"""What stands for the infinite PSNR of equal frames, so that means stay finite."""

SIGMA, RADIUS = 1.5, 5
"""Of SSIM's Gaussian window: 11 by 11 pixels."""

C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(one: np.ndarray, two: np.ndarray, region: np.ndarray | None = None) -> float | None:
    """Peak signal-to-noise ratio in dB of two uint8 frames (H, W, 3), at most :data:`MOST_DB`.

    Args:
        region: bool (H, W), the pixels that count; None counts all.

    Returns:
        None if the region is empty: there is nothing to compare.

    Raises:
        UserError: shapes differ.
    """
    _check(one, two)
    squares = (one.astype(np.float64) - two.astype(np.float64)) ** 2
    if region is not None:
        if not region.any():
            return None
        squares = squares[region]
    error = float(squares.mean())
    return min(MOST_DB, 10 * math.log10(255.0**2 / error)) if error else MOST_DB


def ssim(one: np.ndarray, two: np.ndarray, region: np.ndarray | None = None) -> float | None:
    """Structural similarity of two uint8 frames (H, W, 3), mean over channels (Wang et al. 2004, Gaussian window).

    Pixels nearer than half a window to the border do not count, nor, with ``region`` (bool (H, W)), those whose
    window holds a pixel outside it.

    Returns:
        None if no pixel counts.

    Raises:
        UserError: shapes differ.
    """
    _check(one, two)
    inner = np.zeros(one.shape[:2], dtype=bool)
    inner[RADIUS:-RADIUS, RADIUS:-RADIUS] = True
    if region is not None:
        inner &= minimum_filter(region, size=2 * RADIUS + 1, mode="constant", cval=0)
    return float(ssim_map(one, two)[inner].mean()) if inner.any() else None


def ssim_map(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """SSIM at every pixel and channel: float64 (H, W, 3)."""
    x, y = one.astype(np.float64), two.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    similar = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    return similar / ((mean_x**2 + mean_y**2 + C1) * (var_x + var_y + C2))


def _blur(values: np.ndarray) -> np.ndarray:
    return gaussian_filter(values, (SIGMA, SIGMA, 0), radius=(RADIUS, RADIUS, 0))


def _check(one: np.ndarray, two: np.ndarray) -> None:
    if one.shape != two.shape:
        raise UserError(f"frames of {one.shape} and {two.shape} cannot be compared")
