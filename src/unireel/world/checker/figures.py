"""Figures: the connected pieces of foreground in every frame, with colour, area, centroid and fit of every shape."""

# NumPy's scalar and array types are too loose for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from unireel.world.checker.grids import length, smoothed, spread
from unireel.world.checker.templates import GRID, offsets, shape_errors

FAINTEST = 17.0
"""Least smoothed difference from the ground (Euclidean, 8-bit steps) of a foreground pixel."""

LEAST_AREA = 7
"""Pixels of the smallest piece that is looked at."""

LONG_ENOUGH = 9
"""Frames from which on every second frame is enough to know a shape."""

CROWD = 12
"""Pieces a frame, on average, above which nobody can see a film of the World."""

EDGE, INNER_EDGE = 0.42, 0.65
"""Share of the strongest difference nearby at which a figure ends: usually, and to part figures that nearly touch."""
_CORE = 0.8  # share of its strongest difference above which a pixel belongs to a piece's core


@dataclass(frozen=True)
class Pieces:
    """All N pieces of foreground of a film, in the order of frames, and the P pixels that they own.

    ``frame``: (N,) frame number. ``area``: (N,) pixels before growing. ``labels``: (F, S, S), 1 + number of the piece
    that owns the pixel, or 0. ``where``: (P,) flat places of owned pixels, ``owner``: (P,) whose they are,
    ``values``: (3, P) their difference from the ground. ``total``: (N, 3) sum of the difference, ``core``: (N, 3) its
    mean in the middle of the piece.
    """

    frame: np.ndarray
    area: np.ndarray
    labels: np.ndarray
    where: np.ndarray
    owner: np.ndarray
    values: np.ndarray
    total: np.ndarray
    core: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of ``values`` (P,) over the pixels of each piece: (N,)."""
        return np.bincount(self.owner, values, len(self))

    def only(self, chosen: np.ndarray) -> Pieces:
        """The pieces ``chosen`` (N,) bool alone."""
        number = np.cumsum(chosen) * chosen
        own = chosen[self.owner]
        return Pieces(
            self.frame[chosen],
            self.area[chosen],
            np.concatenate([[0], number])[self.labels],
            self.where[own],
            number[self.owner[own]] - 1,
            self.values[:, own],
            self.total[chosen],
            self.core[chosen],
        )


def find_pieces(difference: np.ndarray, edge: float = EDGE) -> Pieces:
    """Cut the foreground of ``difference`` = frames - ground (3, F, S, S) float32 into pieces that end at ``edge``."""
    smooth = smoothed(difference)
    strength = length(smooth)
    nearby = spread(spread(strength))
    labels, area = _labelled(strength > np.maximum(FAINTEST, edge * nearby))
    count = len(area)
    for _ in range(2):
        labels = np.where(labels > 0, labels, spread(labels))
    where = np.flatnonzero(labels)
    owner = labels.ravel()[where] - 1
    frame = np.zeros(count, dtype=np.int64)
    frame[owner] = where // (labels.shape[1] * labels.shape[2])
    values = difference.reshape(3, -1)[:, where]
    total = np.stack([np.bincount(owner, plane, count) for plane in values], axis=1)
    direction = (total / np.maximum(np.sqrt((total * total).sum(1, keepdims=True)), 1e-6)).astype(np.float32)
    along = (smooth.reshape(3, -1)[:, where] * direction.T[:, owner]).sum(0)
    peak = np.zeros(count, dtype=np.float32)
    np.maximum.at(peak, owner, along)
    inner = along > _CORE * peak[owner]
    size = np.maximum(np.bincount(owner[inner], minlength=count), 1)
    core = (
        np.stack([np.bincount(owner[inner], plane[inner], count) for plane in values], axis=1) / size[:, None]
    )
    return Pieces(frame, area, labels, where, owner, values, total, core.astype(np.float32))


def _labelled(solid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the connected pieces of ``solid`` (F, S, S): labels from 1 in the order of frames, and areas (N,).

    The frames are laid out below each other with an empty row between them, because labelling is fastest in a plane.
    """
    frames, height, width = solid.shape
    sheet = np.zeros((frames, height + 1, width), dtype=bool)
    sheet[:, :height] = solid
    labels, count = ndimage.label(sheet.reshape(-1, width), np.ones((3, 3)))
    labels = labels.reshape(sheet.shape)[:, :height]
    if count <= 4 * CROWD * frames:
        labels = _joined(labels, count)
    area = np.bincount(labels.ravel())
    keep = area >= LEAST_AREA
    keep[0] = False
    return (np.cumsum(keep) * keep)[labels], area[keep]


def _joined(labels: np.ndarray, count: int) -> np.ndarray:
    """Give pieces that lie inside one another (a contour and its filling) one label: the enclosing piece's."""
    boxes = ndimage.find_objects(labels.reshape(-1, labels.shape[2]), count)
    corners = np.array([[r.start, r.stop, c.start, c.stop] for r, c in boxes]).reshape(-1, 4)
    middle_y, middle_x = (corners[:, 0] + corners[:, 1] - 1) / 2, (corners[:, 2] + corners[:, 3] - 1) / 2
    tall = corners[:, 1] - corners[:, 0]
    inside = (
        (corners[:, 0] <= middle_y[:, None])
        & (middle_y[:, None] < corners[:, 1])
        & (corners[:, 2] <= middle_x[:, None])
        & (middle_x[:, None] < corners[:, 3])
        & (tall > tall[:, None])
    )
    if not inside.any():
        return labels
    same = np.arange(count + 1)
    for inner, outer in zip(*np.nonzero(inside), strict=True):
        same[inner + 1] = outer + 1
    return same[labels]


@dataclass(frozen=True)
class Figures:
    """Pieces measured: ``x``, ``y`` (N,) centroid in pixels, ``mass`` (N,) area in square pixels by coverage,
    ``errors`` (N, 7, blurs) misfit of every shape at every sharpness (nan in frames that were not looked at)."""

    x: np.ndarray
    y: np.ndarray
    mass: np.ndarray
    errors: np.ndarray


def measure(pieces: Pieces, cover: np.ndarray, filling: np.ndarray | None) -> Figures:
    """Measure all pieces.

    Shapes are looked at in every frame of short films and in every second frame of longer ones.

    Args:
        pieces: N pieces that own P pixels.
        cover: (P,) float32, the share of each pixel that its piece covers.
        filling: (P,) float32, the share that the piece covers without its contour; None in films without contours.
    """
    size = pieces.labels.shape[1]
    mass = np.maximum(pieces.sums(cover), 1.0)
    x = pieces.sums(cover * (pieces.where % size)) / mass
    y = pieces.sums(cover * (pieces.where // size % size)) / mass
    looked = np.flatnonzero(pieces.frame % (1 if len(pieces.labels) < LONG_ENOUGH else 2) == 0)
    scale = np.sqrt(mass / np.pi)[looked, None]
    columns, rows = x[looked, None] + offsets() * scale, y[looked, None] + offsets() * scale
    samples = []
    for part in (cover,) if filling is None else (cover, filling):
        picture = np.zeros(pieces.labels.shape, dtype=np.float32)
        picture.ravel()[pieces.where] = part
        samples.append(_sampled(picture, pieces.labels, looked, pieces.frame[looked], columns, rows))
    stacked = np.concatenate([part.reshape(len(looked), GRID * GRID) for part in samples], axis=1)
    fit = shape_errors(stacked, mass[looked], filling is not None)
    errors = np.full((len(pieces), *fit.shape[1:]), np.nan)
    errors[looked] = fit
    return Figures(x, y, mass, errors)


def _sampled(picture, labels, piece, frame, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``picture`` (F, S, S) of each ``piece`` alone, bilinearly at ``rows`` x ``columns`` (N, GRID) each.

    Returns (N, GRID, GRID) float32.
    """
    size = picture.shape[1]
    flat, owners = picture.ravel(), labels.ravel()
    left, top = np.floor(columns).astype(np.int64), np.floor(rows).astype(np.int64)
    across, down = (columns - left).astype(np.float32), (rows - top).astype(np.float32)
    own = piece[:, None, None] + 1
    result = np.zeros((len(piece), rows.shape[1], columns.shape[1]), dtype=np.float32)
    for dy, share_y in ((0, 1 - down), (1, down)):
        row = top + dy
        share_y = np.where((row >= 0) & (row < size), share_y, 0)
        row = (np.clip(row, 0, size - 1) + frame[:, None] * size) * size
        for dx, share_x in ((0, 1 - across), (1, across)):
            column = left + dx
            share = np.where((column >= 0) & (column < size), share_x, 0)
            place = row[:, :, None] + np.clip(column, 0, size - 1)[:, None, :]
            result += flat[place] * (owners[place] == own) * (share_y[:, :, None] * share[:, None, :])
    return result
