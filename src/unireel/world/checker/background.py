"""The ground of a film: which background in which tone, and how the camera moves over its texture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from unireel.world.checker.grids import length, smoothed, spread
from unireel.world.render import LUMA, NIGHT, TEXTURE_AMPLITUDE, TEXTURE_PERIOD
from unireel.world.scene import BACKGROUNDS

TONES = ("plain", "night", "grayscale")
"""How a style colours a film; style ``outline`` has the plain tone."""

NAMES = tuple(BACKGROUNDS)
NEAR = 24.0
"""A pixel within this distance (Euclidean, 8-bit steps) of a background colour may be background."""

PAN_GRID = np.arange(-16.0, 16.01, 0.25)  # pixels of a 64-pixel canvas, over the whole film
ZOOM_GRID = np.concatenate([np.arange(0.6, 1.0, 0.025), np.arange(1.025, 1.51, 0.025)])  # final zoom factors
PAN_LEAST, ZOOM_LEAST = 0.06, 0.1
"""Least pan (share of the canvas side) and least change of scale that are called camera motion."""

_FUNDAMENTAL = 1.032  # amplitude of the first harmonic of the parabolic wave


def toned(rgb: np.ndarray, tone: str) -> np.ndarray:
    """Colours (..., 3), 0 to 255, as a film of ``tone`` shows them."""
    rgb = np.asarray(rgb, dtype=np.float32)
    if tone == "night":
        return rgb * np.array(NIGHT, dtype=np.float32)
    if tone == "grayscale":
        return np.repeat((rgb @ np.array(LUMA, dtype=np.float32))[..., None], 3, axis=-1)
    return rgb


@cache
def candidates() -> np.ndarray:
    """Every background in every tone: (3 tones, 5 backgrounds, 3)."""
    nominal = np.array([BACKGROUNDS[name] for name in NAMES], dtype=np.float32)
    return np.stack([toned(nominal, tone) for tone in TONES])


@dataclass(frozen=True)
class Ground:
    """Colour of the ground of a film.

    ``colour``: (3,) measured mean, 0 to 255. ``distances``: (3, 5) distance of it from every background in every
    tone. ``share``: share of the pixels that are close to it.
    """

    colour: np.ndarray
    distances: np.ndarray
    share: float


def find_ground(frames: np.ndarray) -> Ground:
    """The most frequent of the World's background colours in ``frames`` (3, F, S, S) float32, measured anew."""
    pixels = frames[:, :: max(1, frames.shape[1] // 4), ::2, 1::2].reshape(3, -1).T
    nominal = candidates().reshape(-1, 3)
    square = (pixels * pixels).sum(1)[:, None] - 2 * pixels @ nominal.T + (nominal * nominal).sum(1)
    votes = np.exp(square / (-2 * 12.0**2)).sum(0)
    colour = nominal[int(votes.argmax())]
    share = 0.0
    for _ in range(2):
        near = ((pixels - colour) ** 2).sum(1) < NEAR * NEAR
        share = float(near.mean())
        if not near.any():
            break
        colour = pixels[near].mean(0)
    distances = np.sqrt(((candidates() - colour) ** 2).sum(-1))
    return Ground(colour.astype(np.float32), distances, share)


@dataclass(frozen=True)
class CameraPath:
    """What the camera does, as the texture shows it.

    ``motion``: one of :data:`unireel.world.scene.CAMERAS`, or "other" for what is none of them. ``shift_x``,
    ``shift_y``, ``zoom``: (F,) in pixels and as a factor, as in :func:`unireel.world.tracks.camera_path`.
    ``coherence``: share of the nominal texture that follows this path, about 1 for a clean film and 0 for none.
    ``wave``: (F, S, S) the texture, in 8-bit steps.
    """

    motion: str
    shift_x: np.ndarray
    shift_y: np.ndarray
    zoom: np.ndarray
    coherence: float
    wave: np.ndarray

    def to_world(self, x: np.ndarray, y: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World coordinates of screen places (``x``, ``y``) in pixels at frame numbers ``frame``, all (N,)."""
        middle = (self.wave.shape[1] - 1) / 2
        zoom = self.zoom[frame]
        return (
            (x + self.shift_x[frame] - middle) / zoom + middle,
            (y + self.shift_y[frame] - middle) / zoom + middle,
        )


def find_camera(difference: np.ndarray, dimming: float) -> CameraPath:
    """Follow the texture through ``difference`` = frames - ground colour, (3, F, S, S).

    Args:
        difference: float32, in 8-bit steps.
        dimming: contrast of the film's tone: 1, or about 0.53 at night.
    """
    count, size = difference.shape[1:3]
    deviation = (difference[0] + difference[1] + difference[2]) / 3
    columns, rows, weight_x, weight_y = _profiles(difference, deviation)
    still_x, still_y = _demodulate(columns, weight_x), _demodulate(rows, weight_y)
    nominal = (
        count * _FUNDAMENTAL * TEXTURE_AMPLITUDE / 2 * dimming / 2
    )  # the demodulation gives half an amplitude
    progress = np.arange(count) / max(count - 1, 1)
    omega = 2 * np.pi / (TEXTURE_PERIOD * size)
    grid = PAN_GRID * size / 64
    turn = np.exp(-1j * omega * grid[:, None] * progress)
    pan_x, pan_y = turn @ still_x, turn @ still_y
    best_x, best_y = int(np.abs(pan_x).argmax()), int(np.abs(pan_y).argmax())
    zoomed_x, zoomed_y = _zoomed(columns, weight_x), _zoomed(rows, weight_y)
    power = np.abs(zoomed_x) ** 2 + np.abs(zoomed_y) ** 2
    best_zoom = int(power.argmax())
    if count > 1 and power[best_zoom] > 1.1 * (abs(pan_x[best_x]) ** 2 + abs(pan_y[best_y]) ** 2):
        factor = float(ZOOM_GRID[best_zoom])
        amplitudes, shifts = (zoomed_x[best_zoom], zoomed_y[best_zoom]), (0.0, 0.0)
        motion = "still" if abs(factor - 1) < ZOOM_LEAST else "zooms in" if factor > 1 else "zooms out"
    else:
        factor = 1.0
        zero = len(grid) // 2
        best_x, best_y = (
            zero if count == 1 or abs(pan[best]) ** 2 < 1.05 * abs(pan[zero]) ** 2 else best
            for pan, best in ((pan_x, best_x), (pan_y, best_y))
        )
        amplitudes, shifts = (pan_x[best_x], pan_y[best_y]), (float(grid[best_x]), float(grid[best_y]))
        motion = _pan_name(shifts[0] / size, shifts[1] / size)
    coherence = float(np.sqrt((abs(amplitudes[0]) ** 2 + abs(amplitudes[1]) ** 2) / 2) / nominal)
    if coherence < 0.12:
        motion, factor, shifts = "still", 1.0, (0.0, 0.0)
    zoom = 1 + (factor - 1) * progress
    wave = _texture(amplitudes, shifts, progress, zoom, size)
    return CameraPath(motion, shifts[0] * progress, shifts[1] * progress, zoom, coherence, wave)


def _pan_name(x: float, y: float) -> str:
    """The camera's name for a pan by ``x`` and ``y``, in canvas sides."""
    if max(abs(x), abs(y)) < PAN_LEAST:
        return "still"
    if min(abs(x), abs(y)) > max(abs(x), abs(y)) / 2:
        return "other"
    if abs(x) > abs(y):
        return "pans right" if x > 0 else "pans left"
    return "pans down" if y > 0 else "pans up"


def _profiles(difference: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, ...]:
    """Texture along x and along y, each (F, S), and how many pixels are behind each value, by two-way means."""
    figure = length(smoothed(difference)) > NEAR
    ground = ~spread(figure)
    solid = ground.astype(np.float32)
    weight_x, weight_y = solid.sum(1), solid.sum(2)
    values = solid * deviation
    sum_x, sum_y = values.sum(1), values.sum(2)
    rows = sum_y / np.maximum(weight_y, 1)
    columns = np.zeros_like(rows)
    for _ in range(3):
        columns = (sum_x - np.matmul(rows[:, None, :], solid)[:, 0]) / np.maximum(weight_x, 1)
        columns -= (columns * weight_x).sum(1, keepdims=True) / np.maximum(weight_x.sum(1, keepdims=True), 1)
        rows = (sum_y - np.matmul(solid, columns[:, :, None])[:, :, 0]) / np.maximum(weight_y, 1)
    rows -= (rows * weight_y).sum(1, keepdims=True) / np.maximum(weight_y.sum(1, keepdims=True), 1)
    return columns, rows, weight_x, weight_y


def _demodulate(profile: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Complex amplitude of the texture in each frame without zoom: (F,), phase relative to the middle."""
    size = profile.shape[1]
    kernel = np.exp(-2j * np.pi * (np.arange(size) - (size - 1) / 2) / (TEXTURE_PERIOD * size))
    return (profile * weight) @ kernel / np.maximum(weight.sum(1), 1)


@lru_cache(maxsize=8)
def _zoom_kernels(count: int, size: int) -> np.ndarray:
    """Demodulation under every zoom of the grid: (Z, F, S) complex64."""
    zoom = 1 + (ZOOM_GRID[:, None] - 1) * np.arange(count) / max(count - 1, 1)
    offset = (np.arange(size) - (size - 1) / 2) / (TEXTURE_PERIOD * size)
    return np.exp(-2j * np.pi * offset / zoom[:, :, None]).astype(np.complex64)


def _zoomed(profile: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Complex amplitude of the texture over the whole film under every zoom of the grid: (Z,)."""
    share = (profile * weight / np.maximum(weight.sum(1, keepdims=True), 1)).astype(np.complex64)
    kernels = _zoom_kernels(*profile.shape)
    return kernels.reshape(len(kernels), -1) @ share.ravel()


def _texture(amplitudes, shifts, progress: np.ndarray, zoom: np.ndarray, size: int) -> np.ndarray:
    """The fitted texture (F, S, S): its first harmonic with the measured amplitudes and phases."""
    omega = 2 * np.pi / (TEXTURE_PERIOD * size)
    offset = (np.arange(size) - (size - 1) / 2) / zoom[:, None]
    wave_x, wave_y = (
        2 / len(progress) * np.real(amplitude * np.exp(1j * omega * (offset + shift * progress[:, None])))
        for amplitude, shift in zip(amplitudes, shifts, strict=True)
    )
    return (wave_x[:, None, :] + wave_y[:, :, None]).astype(np.float32)
