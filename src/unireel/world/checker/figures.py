"""Figures: the connected foreground pieces of every frame, with colour, area, centroid and fit of every shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from unireel.world.checker.background import toned
from unireel.world.checker.templates import GRID, offsets, shape_errors
from unireel.world.render import _DARK, _LIGHT
from unireel.world.scene import COLOURS

FAINTEST = 17.0
"""Least smoothed difference from the ground (Euclidean, 8-bit steps) of a foreground pixel."""

LEAST_AREA = 7
"""Pixels of the smallest piece that is looked at."""

_HALF_CONTRAST = 0.42  # share of the strongest difference nearby at which a figure's edge lies


@dataclass(frozen=True)
class Pieces:
    """All foreground pieces of a film; arrays of length N, in the order of frames.

    ``frame``: frame number. ``area``: pixels. ``labels``: (F, S, S), 1 + number of the piece that owns the pixel or 0.
    ``mean``: (N, 3) sum of the difference over the piece. ``core``: (N, 3) difference from the ground in its middle.
    """

    frame: np.ndarray
    area: np.ndarray
    labels: np.ndarray
    total: np.ndarray
    core: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)


def find_pieces(difference: np.ndarray) -> Pieces:
    """Cut the foreground of ``difference`` = frames - ground (F, S, S, 3) into pieces."""
    smooth = _smoothed(difference)
    strength = np.sqrt((smooth * smooth).sum(-1))
    nearby = ndimage.maximum_filter(strength, size=(1, 5, 5))
    solid = strength > np.maximum(FAINTEST, _HALF_CONTRAST * nearby)
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1] = True
    labels, count = ndimage.label(solid, in_plane)
    labels = _joined(labels, count)
    area = np.bincount(labels.ravel())
    keep = area >= LEAST_AREA
    keep[0] = False
    number = np.cumsum(keep) * keep
    labels = number[labels]
    grown = ndimage.maximum_filter(labels, size=(1, 3, 3))
    grown = np.where(labels > 0, labels, grown)
    labels = np.where(grown > 0, grown, ndimage.maximum_filter(grown, size=(1, 3, 3)))
    count = int(keep.sum())
    where = np.flatnonzero(labels.ravel())
    owner = labels.ravel()[where]
    frame = np.zeros(count, dtype=np.int64)
    frame[owner - 1] = where // (labels.shape[1] * labels.shape[2])
    flat = difference.reshape(-1, 3)[where]
    total = _sums(owner, flat, count)
    direction = total / np.maximum(np.sqrt((total * total).sum(1, keepdims=True)), 1e-6)
    along = (smooth.reshape(-1, 3)[where] * direction[owner - 1]).sum(1)
    peak = np.zeros(count)
    np.maximum.at(peak, owner - 1, along)
    inner = along > 0.8 * peak[owner - 1]
    core = (
        _sums(owner[inner], flat[inner], count)
        / np.maximum(np.bincount(owner[inner] - 1, minlength=count), 1)[:, None]
    )
    order = np.argsort(frame, kind="stable")
    assert (order == np.arange(count)).all()
    return Pieces(frame, area[keep], labels, total, core.astype(np.float32))


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Binomial smoothing over 3 x 3 pixels of (F, S, S, 3)."""
    wide = np.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    wide = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]
    return (wide[:, :, :-2] + 2 * wide[:, :, 1:-1] + wide[:, :, 2:]) / 16


def _sums(owner: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Sums of ``values`` (P, 3) over the pieces: (count, 3); ``owner`` counts from 1."""
    return np.stack([np.bincount(owner - 1, values[:, c], count) for c in range(values.shape[1])], axis=1)


def _joined(labels: np.ndarray, count: int) -> np.ndarray:
    """Give pieces that lie inside one another (a contour and its filling) one label."""
    boxes = ndimage.find_objects(labels)
    same = np.arange(count + 1)
    by_frame: dict[int, list[int]] = {}
    for number, box in enumerate(boxes, start=1):
        by_frame.setdefault(box[0].start, []).append(number)
    for numbers in by_frame.values():
        for inner in numbers:
            box = boxes[inner - 1]
            y, x = (box[1].start + box[1].stop - 1) / 2, (box[2].start + box[2].stop - 1) / 2
            for outer in numbers:
                around = boxes[outer - 1]
                larger = around[1].stop - around[1].start > box[1].stop - box[1].start
                if (
                    inner != outer
                    and larger
                    and around[1].start <= y < around[1].stop
                    and around[2].start <= x < around[2].stop
                ):
                    same[inner] = outer
    return same[labels]


@dataclass(frozen=True)
class Palette:
    """Differences from the ground that a film of one tone can show: ``colours`` (8, 3) and the contour's, ``rim`` (3,)."""

    colours: np.ndarray
    rim: np.ndarray

    @classmethod
    def of(cls, ground: np.ndarray, tone: str, light_rim: bool) -> Palette:
        """The palette over a ground of colour ``ground`` (3,)."""
        nominal = toned(np.array(list(COLOURS.values())), tone)
        return cls(nominal - ground, np.array(_LIGHT if light_rim else _DARK, dtype=np.float32) - ground)


def unmix(
    difference: np.ndarray, pieces: Pieces, palette: Palette
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Explain every piece as filling plus contour, for every colour of the palette.

    Returns:
        error (N, 8): what stays unexplained, as a share of the piece's energy; filling (N, 8) and rim (N, 8): sums of
        the two parts in pixels.
    """
    where = np.flatnonzero(pieces.labels.ravel())
    owner, flat, count = pieces.labels.ravel()[where], difference.reshape(-1, 3)[where], len(pieces)
    energy = np.maximum(np.bincount(owner - 1, (flat * flat).sum(1), count), 1e-6)
    errors, fills, rims = np.empty((3, count, len(palette.colours)))
    along_rim, rim_square = flat @ palette.rim, palette.rim @ palette.rim
    for k, colour in enumerate(palette.colours):
        along, square, mixed = flat @ colour, colour @ colour, colour @ palette.rim
        determinant = max(square * rim_square - mixed * mixed, 1e-3 * square * rim_square)
        fill = np.clip((along * rim_square - along_rim * mixed) / determinant, 0, 1.1)
        rim = np.clip((along_rim - fill * mixed) / rim_square, 0, 1.1 - fill)
        fill = np.clip((along - rim * mixed) / square, 0, 1.1 - rim)
        rest = flat - fill[:, None] * colour - rim[:, None] * palette.rim
        errors[:, k] = np.bincount(owner - 1, (rest * rest).sum(1), count) / energy
        fills[:, k], rims[:, k] = np.bincount(owner - 1, fill, count), np.bincount(owner - 1, rim, count)
    return errors, fills, rims


@dataclass(frozen=True)
class Figures:
    """Pieces measured: ``x``, ``y`` (N,) centroid in pixels, ``mass`` (N,) area in square pixels by coverage,
    ``errors`` (N, 7) misfit of every shape."""

    x: np.ndarray
    y: np.ndarray
    mass: np.ndarray
    errors: np.ndarray


def measure(cover: np.ndarray, pieces: Pieces, outline: bool) -> Figures:
    """Measure all pieces on ``cover`` (F, S, S), the share of each pixel that its piece covers."""
    count, size = len(pieces), cover.shape[1]
    labels = pieces.labels.ravel()
    where = np.flatnonzero(labels)
    owner, weight = labels[where] - 1, cover.ravel()[where].astype(np.float64)
    mass = np.maximum(np.bincount(owner, weight, count), 1.0)
    x = np.bincount(owner, weight * (where % size), count) / mass
    y = np.bincount(owner, weight * (where // size % size), count) / mass
    scale = np.sqrt(mass / np.pi)
    grid = offsets()
    columns, rows = x[:, None] + grid * scale[:, None], y[:, None] + grid * scale[:, None]
    pictures = _sampled(cover, pieces, columns, rows)
    return Figures(x, y, mass, shape_errors(pictures.reshape(count, GRID * GRID), outline))


def _sampled(cover: np.ndarray, pieces: Pieces, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``cover`` of each piece alone, bilinearly at ``rows`` x ``columns`` (N, GRID): (N, GRID, GRID) float32."""
    size = cover.shape[1]
    flat, labels = cover.ravel(), pieces.labels.ravel()
    left, top = np.floor(columns).astype(np.int64), np.floor(rows).astype(np.int64)
    across, down = (columns - left).astype(np.float32), (rows - top).astype(np.float32)
    own = np.arange(1, len(pieces) + 1)[:, None, None]
    result = np.zeros((len(pieces), rows.shape[1], columns.shape[1]), dtype=np.float32)
    for dy, share_y in ((0, 1 - down), (1, down)):
        row = top + dy
        share_y = np.where((row >= 0) & (row < size), share_y, 0)
        row = np.clip(row, 0, size - 1) + pieces.frame[:, None] * size
        for dx, share_x in ((0, 1 - across), (1, across)):
            column = left + dx
            share = np.where((column >= 0) & (column < size), share_x, 0)
            place = row[:, :, None] * size + np.clip(column, 0, size - 1)[:, None, :]
            result += np.where(labels[place] == own, flat[place], 0) * (
                share_y[:, :, None] * share[:, None, :]
            )
    return result
