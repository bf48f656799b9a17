"""Which frames to take: arithmetic on time stamps, without any file.

One convention holds everywhere: frame ``i`` of a clip stands for the time ``start + i / fps``, and what
stands there is the frame that the film has on display at that moment. So the first frame is always kept,
halving the rate takes every second frame, and a clip lasts as long as the part of the film it was taken from.
"""

from collections.abc import Iterable

import numpy as np

from unireel.errors import UsageError

TOLERANCE = 0.25
"""Part of a frame step by which time stamps may be late: files round them to 1 ms, gifs to 10 ms."""


def sample_times(
    duration: float, *, fps: float | None = None, num_frames: int | None = None, start: float = 0.0
) -> tuple[np.ndarray, float]:
    """Evenly spaced times at which to look at a film.

    Args:
        duration: seconds to cover, > 0.
        fps: take this many a second: ``round(duration * fps)`` times, at least one.
        num_frames: take this many in all, ``duration / num_frames`` seconds apart.
        start: seconds at which the part begins.

    Returns:
        Times in seconds, float64 ``(F,)``, from ``start`` on, and the rate of the resulting clip in frames a
        second.

    Raises:
        UsageError: not exactly one of ``fps`` and ``num_frames``, or a value that is not above 0.
    """
    if (fps is None) == (num_frames is None):
        raise UsageError("give either fps or num_frames, not both")
    if not duration > 0:
        raise UsageError(f"duration={duration}: above 0 seconds")
    if num_frames is not None:
        if num_frames < 1:
            raise UsageError(f"num_frames={num_frames}: at least 1")
        rate = num_frames / duration
        return start + np.arange(num_frames) * (duration / num_frames), rate
    assert fps is not None
    if not (fps > 0 and np.isfinite(fps)):
        raise UsageError(f"fps={fps}: above 0")
    count = max(1, round(duration * fps))
    return start + np.arange(count) / fps, float(fps)


def typical_step(stamps: np.ndarray) -> float:
    """Median distance between neighbouring time stamps, seconds; 0 for a single frame."""
    return float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0


def frames_on_display(stamps: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Index of the frame that is on display at each of ``times``.

    Args:
        stamps: rising time stamps of the film's frames, seconds, float64 ``(F,)``, F at least 1.
        times: moments, seconds, float64 ``(N,)``.

    Returns:
        int64 ``(N,)``: the last frame whose stamp is not later than the time (by more than :data:`TOLERANCE`
        of the typical step); the first frame for times before it.
    """
    late = TOLERANCE * typical_step(stamps)
    return np.maximum(np.searchsorted(stamps, times + late, side="right") - 1, 0)


def constant_rate(stamps: np.ndarray, candidates: Iterable[float] = ()) -> float | None:
    """The rate at which ``stamps`` tick, or ``None`` if they do not tick evenly.

    A rate fits when every stamp lies within :data:`TOLERANCE` of a step of its place on the even grid. Of
    ``candidates`` (what the header claims), the measured mean rounded to a whole number, and the mean itself,
    the first is taken that fits about as well as the best: headers may count a last frame of another length.

    Args:
        stamps: rising time stamps, seconds, float64 ``(F,)``, F at least 2.
        candidates: rates to try first, frames a second.
    """
    if len(stamps) < 2:
        return None
    elapsed = stamps - stamps[0]
    mean = (len(stamps) - 1) / float(elapsed[-1])
    rates = [float(r) for r in (*candidates, round(mean), mean) if r > 0 and np.isfinite(r)]
    misses = [float(np.abs(elapsed * rate - np.arange(len(stamps))).max()) for rate in rates]
    good_enough = min(TOLERANCE, 2 * min(misses) + 0.02)
    return next((rate for rate, miss in zip(rates, misses, strict=True) if miss <= good_enough), None)
