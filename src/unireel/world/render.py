"""The renderer: from a scene to pixels, anti-aliased, softly shaded and the same bytes on every platform.

Shapes are signed distance fields, tabulated once per shape and sampled bilinearly, so that sub-pixel motion is smooth
and a clip of 17 frames takes about two milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import cache

import numpy as np

from unireel.clip import Clip
from unireel.errors import UsageError
from unireel.world.scene import BACKGROUNDS, FPS, Scene
from unireel.world.tracks import Track, camera_path, reach, tracks

TEXTURE_AMPLITUDE = 8.0
"""Largest deviation of the background from its nominal colour, in 8-bit steps."""

TEXTURE_PERIOD = 0.25
"""Period of the background's texture, as a share of the canvas side."""

SHADING = 0.07
"""Relative brightness added at the upper left of an object and taken away at the lower right."""

OUTLINE = 1.5
"""Width in pixels of the contour that style ``outline`` draws around objects."""

NIGHT = (0.5, 0.5, 0.6)
"""Factors of red, green and blue in style ``night``."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in style ``grayscale`` (ITU-R BT.601)."""

_LIGHT, _DARK = (250.0, 250.0, 246.0), (12.0, 12.0, 14.0)
_TABLE = 161  # samples per side of a distance table
TABLE_EXTENT = 2.0
"""Half the side of a distance table, in radii."""

_STAR = [(0.0, -1.18), (0.294, -0.405), (1.122, -0.365), (0.476, 0.155), (0.694, 0.955), (0.0, 0.5), (-0.694, 0.955),
         (-0.476, 0.155), (-1.122, -0.365), (-0.294, -0.405)]  # fmt: skip
_POLYGONS = {
    "square": [(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)],
    "triangle": [(0.0, -1.1), (1.08, 0.82), (-1.08, 0.82)],
    "diamond": [(0.0, -1.2), (1.0, 0.0), (0.0, 1.2), (-1.0, 0.0)],
    "star": _STAR,
    "cross": [(-0.34, -1.0), (0.34, -1.0), (0.34, -0.34), (1.0, -0.34), (1.0, 0.34), (0.34, 0.34), (0.34, 1.0),
              (-0.34, 1.0), (-0.34, 0.34), (-1.0, 0.34), (-1.0, -0.34), (-0.34, -0.34)],
}  # fmt: skip
RING_HOLE = 0.5
"""Radius of a ring's hole, in radii of the ring."""


def render(scene: Scene) -> Clip:
    """Render ``scene``: a clip of F frames (F, S, S, 3) at 8 frames a second, S = ``scene.size``."""
    return Clip(render_frames(scene), fps=FPS)


def render_frames(scene: Scene, at: Sequence[int] | None = None) -> np.ndarray:
    """The frames of ``scene``: (F, S, S, 3) uint8.

    Args:
        at: numbers of the wanted frames, in any order; all frames without it. The pixels are the same.

    Raises:
        UsageError: a number in ``at`` is not that of a frame.
    """
    wanted = np.arange(scene.frames) if at is None else np.array(at, dtype=np.int64)
    outside = wanted[(wanted < 0) | (wanted >= scene.frames)]
    if len(outside):
        raise UsageError(f"frame {outside[0]} is not in the film; accepted: 0 to {scene.frames - 1}")
    canvas = _background(scene, wanted)
    for figure, track in zip(scene.objects, tracks(scene), strict=True):
        _draw(canvas, figure.shape, _moments(track, wanted), scene)
    if scene.style == "night":
        canvas *= np.array(NIGHT, dtype=np.float32)
    elif scene.style == "grayscale":
        red, green, blue = (
            weight * canvas[..., i] for i, weight in enumerate(np.array(LUMA, dtype=np.float32))
        )
        canvas = np.repeat((red + green + blue)[..., None], 3, axis=-1)
    np.rint(canvas, out=canvas)
    np.clip(canvas, 0, 255, out=canvas)
    return canvas.astype(np.uint8)


@cache
def distance_table(shape: str) -> np.ndarray:
    """Signed distance, in radii, from the outline of ``shape`` (negative inside), (161, 161) over [-2, 2] radii."""
    axis = np.linspace(-TABLE_EXTENT, TABLE_EXTENT, _TABLE)
    x, y = np.meshgrid(axis, axis)
    if shape in ("circle", "ring"):
        r = np.sqrt(x * x + y * y)
        distance = r - 1.0 if shape == "circle" else np.maximum(r - 1.0, RING_HOLE - r)
    else:
        distance = _polygon_distance(x, y, np.array(_POLYGONS[shape]))
    return distance.astype(np.float32)


def _polygon_distance(x: np.ndarray, y: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Exact signed distance to a simple polygon: nearest edge, sign by the even-odd rule."""
    squared = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        squared = np.minimum(squared, (x - ax - along * ex) ** 2 + (y - ay - along * ey) ** 2)
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < ex * (y - ay) / ey + ax)
    return np.where(inside, -1, 1) * np.sqrt(squared)


def shape_distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance in radii at offsets ``x`` (..., W) and ``y`` (..., H) in radii from the centre: (..., H, W)."""
    table = distance_table(shape).ravel()
    (column, across), (row, down) = _cells(x), _cells(y)
    corner = row[..., :, None] * _TABLE + column[..., None, :]
    across, down = across[..., None, :], down[..., :, None]
    top = table[corner] * (1 - across) + table[corner + 1] * across
    bottom = table[corner + _TABLE] * (1 - across) + table[corner + _TABLE + 1] * across
    return top * (1 - down) + bottom * down


def _cells(offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cell index and position within the cell of the distance table for offsets in radii."""
    position = np.clip((offset + TABLE_EXTENT) * ((_TABLE - 1) / (2 * TABLE_EXTENT)), 0, _TABLE - 1.001)
    index = position.astype(np.int64)
    return index, (position - index).astype(np.float32)


def _moments(track: Track, wanted: np.ndarray) -> Track:
    """``track`` in the ``wanted`` frames only."""
    return Track(**{each.name: getattr(track, each.name)[wanted] for each in fields(track)})


def _draw(canvas: np.ndarray, shape: str, track: Track, scene: Scene) -> None:
    """Blend one object into ``canvas`` (F, S, S, 3), in every frame where it is visible."""
    shown = np.flatnonzero(track.visible)
    if not len(shown):
        return
    x, y, r = track.screen_x[shown], track.screen_y[shown], track.screen_radius[shown]
    rim = OUTLINE if scene.style == "outline" else 0.0
    half = int(np.ceil(reach(shape) * r.max() + rim + 0.5))
    window = np.arange(-half, half + 1)
    left, top = np.rint(x).astype(int), np.rint(y).astype(int)
    u = (left[:, None] + window - x[:, None]) / r[:, None]
    v = (top[:, None] + window - y[:, None]) / r[:, None]
    distance = shape_distance(shape, u, v) * r[:, None, None].astype(np.float32)
    alpha = np.clip(0.5 - distance, 0, 1)[..., None]
    shade = 1 - np.float32(SHADING / 2) * np.clip(u[:, None, :] + v[:, :, None], -2, 2).astype(np.float32)
    colour = shade[..., None] * track.rgb[shown].astype(np.float32)[:, None, None, :]
    if rim:
        colour = alpha * colour + (1 - alpha) * np.array(outline_colour(scene.background), dtype=np.float32)
        alpha = np.clip(rim + 0.5 - distance, 0, 1)[..., None]
    for number, frame in enumerate(shown):
        rows, own_rows = _overlap(int(top[number]) - half, len(window), scene.size)
        columns, own_columns = _overlap(int(left[number]) - half, len(window), scene.size)
        patch = canvas[frame, rows, columns]
        patch += alpha[number, own_rows, own_columns] * (colour[number, own_rows, own_columns] - patch)


def _overlap(start: int, length: int, size: int) -> tuple[slice, slice]:
    """The part of [start, start + length) inside [0, size): as a slice of the canvas and as one of the window."""
    low, high = max(start, 0), max(min(start + length, size), 0)
    low = min(low, high)
    return slice(low, high), slice(low - start, high - start)


def outline_colour(background: str) -> tuple[float, float, float]:
    """The contour's colour in style ``outline``: light on dark backgrounds, dark on light ones."""
    return _LIGHT if sum(BACKGROUNDS[background]) < 330 else _DARK


def _background(scene: Scene, wanted: np.ndarray) -> np.ndarray:
    """The textured background in the ``wanted`` frames, moved by the camera: (N, S, S, 3) float32."""
    base = np.array(BACKGROUNDS[scene.background], dtype=np.float32)
    shift_x, shift_y, zoom = (each[wanted] for each in camera_path(scene.camera, scene.frames))
    middle = (scene.size - 1) / 2
    pixels = np.arange(scene.size) - middle
    still = scene.camera.motion == "still"
    count = 1 if still else len(wanted)
    wave_x = _wave((pixels / zoom[:count, None] + middle + shift_x[:count, None]) / scene.size)
    wave_y = _wave((pixels / zoom[:count, None] + middle + shift_y[:count, None]) / scene.size)
    texture = np.float32(TEXTURE_AMPLITUDE / 2) * (wave_x[:, None, :] + wave_y[:, :, None])
    canvas = np.empty((len(wanted), scene.size, scene.size, 3), dtype=np.float32)
    canvas[:] = texture[..., None] + base
    return canvas


def _wave(position: np.ndarray) -> np.ndarray:
    """A smooth periodic wave in [-1, 1] made of parabolas: only exactly rounded operations, no library cosine."""
    phase = (position / TEXTURE_PERIOD) % 1.0
    rising = np.where(phase < 0.5, phase, phase - 0.5)
    arch = 16 * rising * (0.5 - rising)
    return np.where(phase < 0.5, arch, -arch).astype(np.float32)
