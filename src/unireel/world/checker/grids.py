"""Image operations on whole films at once, by shifted slices: several times as fast as general filters here."""

from __future__ import annotations

import numpy as np


def spread(values: np.ndarray) -> np.ndarray:
    """Largest value in the 3 x 3 neighbourhood along the last two axes; same shape and type."""
    tall = values.copy()
    np.maximum(tall[..., 1:, :], values[..., :-1, :], out=tall[..., 1:, :])
    np.maximum(tall[..., :-1, :], values[..., 1:, :], out=tall[..., :-1, :])
    wide = tall.copy()
    np.maximum(wide[..., 1:], tall[..., :-1], out=wide[..., 1:])
    np.maximum(wide[..., :-1], tall[..., 1:], out=wide[..., :-1])
    return wide


def smoothed(values: np.ndarray) -> np.ndarray:
    """Binomial smoothing (1, 2, 1) along the last two axes; edges are repeated."""
    tall = 2 * values
    tall[..., 1:, :] += values[..., :-1, :]
    tall[..., :-1, :] += values[..., 1:, :]
    tall[..., 0, :] += values[..., 0, :]
    tall[..., -1, :] += values[..., -1, :]
    wide = 2 * tall
    wide[..., 1:] += tall[..., :-1]
    wide[..., :-1] += tall[..., 1:]
    wide[..., 0] += tall[..., 0]
    wide[..., -1] += tall[..., -1]
    wide *= np.float32(1 / 16)
    return wide


def length(planes: np.ndarray) -> np.ndarray:
    """Euclidean length over the first axis of ``planes`` (3, ...)."""
    return np.sqrt(planes[0] * planes[0] + planes[1] * planes[1] + planes[2] * planes[2])
