"""The pool: evenly spread frames of a film of any length, small enough to be kept in memory and on disk."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.media import decode, stills
from unireel.media.limits import DEFAULT_LIMITS, Limits
from unireel.media.sampling import frames_on_display, sample_times
from unireel.media.timeline import by_decoding, check_source, from_packets

POOL_FRAMES = 64
LONGEST_SIDE = 448
"""Pixels of the longer side of pool frames; what is smaller keeps its size."""

_INSTANT = 1e-3
"""Seconds of a film that are enough to see how large its pictures are."""

_PIECE = 2**20
"""Bytes at each end of a file by which it is known again."""


@dataclass(frozen=True, eq=False)
class Pool:
    """N frames of one film, in temporal order.

    Attributes:
        name: of the film, for people.
        key: what names the same pool of the same film again, 32 hexadecimal digits.
        frames: (N, H, W, 3) uint8.
        numbers: of the frames in the film, rising, (N,) int64.
        times: at which they appear, seconds, rising, (N,) float64.
        duration: of the film, seconds.
    """

    name: str
    key: str
    frames: np.ndarray
    numbers: np.ndarray
    times: np.ndarray
    duration: float

    def __len__(self) -> int:
        return len(self.frames)


def pool_key(film: Path | Clip, count: int = POOL_FRAMES, side: int = LONGEST_SIDE) -> str:
    """The :attr:`Pool.key` of a film without reading the film: of a file by its size, date and both ends.

    Raises:
        UserError: there is no such file, or it cannot be read.
    """
    digest = hashlib.blake2b(f"pool/1/{count}/{side}".encode(), digest_size=16)
    if isinstance(film, Clip):
        digest.update(f"{film.frames.shape}/{film.fps}".encode())
        digest.update(film.frames.data)
        return digest.hexdigest()
    files = [film]
    if check_source(film, DEFAULT_LIMITS):
        files = sorted(each for each in film.iterdir() if each.is_file())
    for each in files:
        state = each.stat()
        digest.update(f"{each.name if len(files) > 1 else ''}/{state.st_size}/{state.st_mtime_ns}".encode())
    if len(files) == 1:
        with files[0].open("rb") as file:
            digest.update(file.read(_PIECE))
            file.seek(max(0, files[0].stat().st_size - _PIECE))
            digest.update(file.read(_PIECE))
    return digest.hexdigest()


def read_pool(
    film: Path | Clip,
    count: int = POOL_FRAMES,
    side: int = LONGEST_SIDE,
    limits: Limits = DEFAULT_LIMITS,
) -> Pool:
    """``count`` frames of a film, evenly spread from its first; all frames of one that has no more.

    The film is streamed: besides the pool, memory holds a few decoded pictures and the film's time stamps.

    Args:
        film: a file, a folder of pictures, or a clip in memory.
        side: longest side of the pool's frames in pixels.

    Raises:
        UserError: as :func:`unireel.media.decode.read`.
    """
    key = pool_key(film, count, side)
    if isinstance(film, Clip):
        times, _ = sample_times(film.duration, num_frames=min(count, len(film)))
        numbers = np.unique(frames_on_display(film.times, times))
        chosen = Clip(film.frames[numbers], film.fps)
        height, width = _within(film.height, film.width, side)
        frames = chosen.frames if height == film.height else chosen.resized(height, width).frames
        return Pool("a clip", key, frames, numbers, film.times[numbers], film.duration)
    stamps, duration = _stamps(film, limits)
    first, _ = decode.read(film, num_frames=1, end=min(_INSTANT, duration), limits=limits)
    size = _within(first.shape[1], first.shape[2], side)
    times, _ = sample_times(duration, num_frames=min(count, len(stamps)))
    numbers, places = np.unique(frames_on_display(stamps, times), return_index=True)
    frames, _ = decode.read(film, num_frames=len(times), size=size, limits=limits)
    return Pool(str(film), key, frames[places], numbers, stamps[numbers], duration)


def _stamps(path: Path, limits: Limits) -> tuple[np.ndarray, float]:
    """The times at which a film's frames appear, and its duration, both in seconds."""
    if check_source(path, limits):
        pictures, rate = stills.list_folder(path, limits)
        if rate is None:
            raise UserError(
                f"{path}: the folder does not say its frame rate; write a clip.json with 'fps' into it"
            )
        return np.arange(len(pictures)) / rate, len(pictures) / rate
    if stills.is_still(path):
        return np.zeros(1), 1 / decode.STILL_FPS
    timeline = from_packets(path, limits, None)
    if timeline is None or timeline.damage:
        timeline = by_decoding(path, limits, timeline, None)
    return timeline.stamps, timeline.duration


def _within(height: int, width: int, side: int) -> tuple[int, int]:
    """The size of a picture brought to ``side`` pixels at most, never enlarged."""
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
