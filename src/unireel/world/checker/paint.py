"""Paint: which style a film has, which colour every piece has, and how much of each pixel it covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unireel.world.checker.background import TONES, Ground, toned
from unireel.world.checker.figures import Pieces
from unireel.world.render import _DARK, _LIGHT
from unireel.world.scene import COLOURS

RIM_SHARE, RIM_ANGLE = 0.2, 4.2
"""What tells a contour: its share of a figure, and the angle in degrees between the figure's summed difference from
the ground and that of the nearest plain colour. Decoded plain figures show up to 0.18 and 3.5, contoured ones at least
0.25 and 5; the geometric mean of both, in these units, decides."""

CHROMA = 8.0
"""Largest minus smallest channel of the summed difference from the ground, a pixel of figure, below which a film is
in shades of gray; sums see the colour also where a contour or the coding of chroma hides it from single pixels."""


FAINT = 0.4
"""Share of the contrast of its colour below which a piece is a decoder's ghost of something, and not a figure."""

FAINT_GRAY = 24.0
"""The same in grayscale films, in 8-bit steps: there objects have at least 40."""


@dataclass(frozen=True)
class Palette:
    """What a film of one tone can show, as differences from the ground: ``colours`` (8, 3) and the contour's, ``rim``
    (3,)."""

    colours: np.ndarray
    rim: np.ndarray

    @classmethod
    def of(cls, ground: np.ndarray, tone: str, light_rim: bool) -> Palette:
        """The palette over a ground of colour ``ground`` (3,)."""
        nominal = toned(np.array(list(COLOURS.values())), tone)
        rim = np.array(_LIGHT if light_rim else _DARK, dtype=np.float32)
        return cls((nominal - ground).astype(np.float32), rim - ground)


@dataclass(frozen=True)
class Paint:
    """``style`` of the film; ``colour`` (N,) number of every piece's colour, -1 in grayscale; ``cover`` (P,) share of
    every owned pixel that its piece covers, and ``filling`` (P,) the share without the contour (None if there is
    none)."""

    style: str
    colour: np.ndarray
    cover: np.ndarray
    filling: np.ndarray | None = None


def find_tone(ground: Ground, pieces: Pieces) -> str:
    """Night, grayscale or plain, by the ground, and where grounds are alike by the colours of the figures."""
    costs = {tone: float(ground.distances[i].min()) for i, tone in enumerate(TONES)}
    if len(pieces):
        cores = pieces.core + ground.colour
        chroma = float((pieces.total.max(1) - pieces.total.min(1)).sum() / pieces.area.sum())
        bright = float(np.sort(cores.max(1))[len(cores) // 2])
        costs["grayscale"] += 12 if chroma > CHROMA else 0
        costs["plain"] += 12 if chroma < CHROMA else 0
        costs["night"] += 8 if bright > 155 else 0
        costs["plain"] += 8 if bright < 155 else 0
    return min(costs, key=lambda tone: costs[tone])


def strengths(pieces: Pieces, palette: Palette, tone: str) -> np.ndarray:
    """Contrast (N,) of every piece's core, as a share of that of the colour or contour of the same direction."""
    if tone == "grayscale":
        return np.abs(pieces.core.mean(1)) * (FAINT / FAINT_GRAY)
    rays = np.vstack([palette.colours, palette.rim[None]]) if tone == "plain" else palette.colours
    reach = np.linalg.norm(rays, axis=1)
    along = pieces.core @ (rays / reach[:, None]).T
    nearest = along.argmax(1)
    return along[np.arange(len(pieces)), nearest] / reach[nearest]


def find_paint(pieces: Pieces, palette: Palette, tone: str) -> Paint:
    """Explain every piece by a colour of the palette, or by a colour and a contour where that is the film's style."""
    if tone == "grayscale":
        return Paint("grayscale", np.full(len(pieces), -1), _cover(pieces, pieces.core))
    if tone == "plain" and len(pieces):
        few = pieces.only(pieces.frame % max(1, len(pieces.labels) // 6) == 0)
        if _contoured(few if len(few) else pieces, palette):
            colour = _unmixed(pieces, palette)[0].argmin(1)
            return Paint("outline", colour, *_covers(pieces, palette, colour))
    apart = pieces.core[:, None] - palette.colours
    colour = (apart * apart).sum(-1).argmin(1)
    return Paint(tone, colour, _cover(pieces, palette.colours[colour]))


def _contoured(pieces: Pieces, palette: Palette) -> bool:
    """Whether the figures have contours, by the median over the pieces (a change of colour makes single ones odd)."""
    errors, fills, rims = _unmixed(pieces, palette)
    own, colour = np.arange(len(pieces)), errors.argmin(1)
    rim, fill = rims[own, colour], fills[own, colour]
    share = rim / np.maximum(rim + fill, 1e-6)
    rays = palette.colours / np.linalg.norm(palette.colours, axis=1, keepdims=True)
    ray = pieces.total / np.maximum(np.linalg.norm(pieces.total, axis=1, keepdims=True), 1e-6)
    angle = np.degrees(np.arccos(np.clip((ray @ rays.T).max(1), -1, 1)))
    return bool(np.median(np.sqrt(share / RIM_SHARE * angle / RIM_ANGLE)) > 1)


def _mixture(along, along_rim, square, rim_square, mixed) -> tuple[np.ndarray, np.ndarray]:
    """Shares of filling and contour in pixels, each at least 0 and together at most 1.1, from inner products."""
    determinant = np.maximum(square * rim_square - mixed * mixed, 1e-3 * square * rim_square)
    fill = np.clip((along * rim_square - along_rim * mixed) / determinant, 0, 1.1)
    rim = np.clip((along_rim - fill * mixed) / rim_square, 0, 1.1 - fill)
    return np.clip((along - rim * mixed) / square, 0, 1.1 - rim), rim


def _unmixed(pieces: Pieces, palette: Palette) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every colour: what stays unexplained of every piece (as a share of its energy), and the pixels of filling
    and of contour in it; each (N, 8)."""
    energy = np.maximum(pieces.sums((pieces.values**2).sum(0)), 1e-6)
    errors, fills, rims = np.empty((3, len(pieces), len(palette.colours)))
    along_rim, rim_square = palette.rim @ pieces.values, palette.rim @ palette.rim
    for k, colour in enumerate(palette.colours):
        along, square, mixed = colour @ pieces.values, colour @ colour, colour @ palette.rim
        fill, rim = _mixture(along, along_rim, square, rim_square, mixed)
        explained = (
            2 * (fill * along + rim * along_rim - fill * rim * mixed) - fill**2 * square - rim**2 * rim_square
        )
        errors[:, k] = 1 - pieces.sums(explained) / energy
        fills[:, k], rims[:, k] = pieces.sums(fill), pieces.sums(rim)
    return errors, fills, rims


def _cover(pieces: Pieces, paint: np.ndarray) -> np.ndarray:
    """How much of each owned pixel is covered with its piece's ``paint`` (N, 3): (P,)."""
    direction = (paint / np.maximum((paint * paint).sum(1, keepdims=True), 1e-6)).astype(np.float32)
    along = (pieces.values * direction.T[:, pieces.owner]).sum(0)
    return np.clip(along, -0.2, 1.2)


def _covers(pieces: Pieces, palette: Palette, colour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of each owned pixel is covered by filling or contour, and by filling alone: (P,) each."""
    paint = palette.colours[colour]
    along = (pieces.values * paint.T[:, pieces.owner]).sum(0)
    square, mixed = (paint * paint).sum(1)[pieces.owner], (paint @ palette.rim)[pieces.owner]
    fill, rim = _mixture(along, palette.rim @ pieces.values, square, palette.rim @ palette.rim, mixed)
    return np.minimum(fill + rim, 1.0).astype(np.float32), fill.astype(np.float32)
