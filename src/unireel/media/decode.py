"""Reading films, pictures and folders of pictures into frames, under limits that hold while decoding."""

import os
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from unireel.errors import UsageError, UserError
from unireel.media import stills
from unireel.media.keeper import Keeper
from unireel.media.limits import DEFAULT_LIMITS, Limits
from unireel.media.resize import Fit
from unireel.media.sampling import TOLERANCE, constant_rate, frames_on_display, sample_times, typical_step
from unireel.media.timeline import Timeline, by_decoding, check_source, from_packets, open_video, whole_frames
from unireel.media.upright import SMALL, display_matrix, shown_size, to_picture, true_size

OnDamage = Literal["warn", "error"]
"""What to do with a damaged or truncated film: give the readable part and warn, or refuse it."""

STILL_FPS = 1.0
"""Rate of a clip made of one picture, or of pictures without a rate of their own: each shows for a second."""

_WORTH_SEEKING = 16
"""Frames between two wanted ones from which jumping to a keyframe is cheaper than decoding on."""


@dataclass(frozen=True)
class Request:
    """What a caller wants of a film; see :func:`read`."""

    fps: float | None = None
    num_frames: int | None = None
    start: float = 0.0
    end: float | None = None
    size: tuple[int, int] | None = None
    fit: Fit = "stretch"

    def __post_init__(self) -> None:
        if self.fps is not None and self.num_frames is not None:
            raise UsageError("give either fps or num_frames, not both")
        if self.fps is not None and not (self.fps > 0 and np.isfinite(self.fps)):
            raise UsageError(f"fps={self.fps}: above 0")
        if self.num_frames is not None and self.num_frames < 1:
            raise UsageError(f"num_frames={self.num_frames}: at least 1")
        if not self.start >= 0 or (self.end is not None and not self.end > self.start):
            raise UsageError(f"start={self.start}, end={self.end}: seconds with 0 <= start < end")
        if self.size is not None and min(self.size) < 1:
            raise UsageError(f"size={self.size}: (height, width), at least 1 each")


class _Unexpected(Exception):
    """The decoder did not deliver what the packets promised."""


def read(
    path: Path,
    *,
    fps: float | None = None,
    num_frames: int | None = None,
    start: float = 0.0,
    end: float | None = None,
    size: tuple[int, int] | None = None,
    fit: Fit = "stretch",
    limits: Limits = DEFAULT_LIMITS,
    on_damage: OnDamage = "warn",
) -> tuple[np.ndarray, float]:
    """Read frames as a viewer sees them: upright, with square pixels, RGB.

    Without ``fps`` and ``num_frames`` every frame is read, at the film's own rate. A film of variable rate is
    brought to its mean rate (by time stamps: what is on display at each tick). Long films are not decoded
    whole when few frames are wanted, and never held in memory.

    Args:
        path: a film (mp4, webm, gif, mkv, mov, avi, ...), a picture (one frame), or a folder of pictures.
        fps: frames to take per second of film; for pictures without a rate of their own, their rate.
        num_frames: frames to take in all, evenly spread; more than there are repeats some. Not together with
            ``fps``.
        start: seconds at which to begin.
        end: seconds at which to stop; beyond the end of the film means its end.
        size: (height, width) to resize each frame to while reading.
        fit: what happens to another aspect ratio then: ``"stretch"``, ``"crop"`` or ``"pad"``.
        limits: the largest input accepted.
        on_damage: ``"warn"`` gives the readable part of a damaged film and a warning, ``"error"`` raises.

    Returns:
        Frames uint8 ``(F, H, W, 3)`` and their rate in frames a second.

    Raises:
        UsageError: arguments that contradict each other or are out of range.
        UserError: no such file, empty, not a video, no frame readable, ``start`` behind the end, damaged (on
            request), pictures that change size, or anything above ``limits``.
    """
    if on_damage not in ("warn", "error"):
        raise UsageError(f"on_damage={on_damage!r}: choose 'warn' or 'error'")
    request = Request(fps, num_frames, start, end, size, fit)
    if check_source(path, limits):
        return _read_folder(path, request, limits)
    if stills.is_still(path):
        return _read_pictures([path], fps or STILL_FPS, str(path), request, limits)
    return _read_film(path, request, limits, on_damage)


def _read_folder(path: Path, request: Request, limits: Limits) -> tuple[np.ndarray, float]:
    pictures, own_rate = stills.list_folder(path, limits)
    rate = own_rate or request.fps
    if rate is None:
        raise UserError(f"{path}: the folder does not say its frame rate (no clip.json); give fps")
    return _read_pictures(pictures, rate, str(path), request, limits)


def _read_pictures(
    pictures: list[Path], rate: float, name: str, request: Request, limits: Limits
) -> tuple[np.ndarray, float]:
    """Pictures that follow each other at ``rate``."""
    duration = len(pictures) / rate
    limits.check_duration(name, duration)
    timeline = Timeline(np.arange(len(pictures)) / rate, tuple(range(len(pictures))), (), duration, (rate,))
    indices, new_rate = _select(timeline, request, limits, name)
    keeper = Keeper(name, indices, request.size, request.fit, limits)
    for index in keeper.wanted:
        keeper.keep(index, stills.read_still(pictures[index], limits))
    return keeper.result(), new_rate


def _select(timeline: Timeline, request: Request, limits: Limits, name: str) -> tuple[list[int], float]:
    """Indices of the frames that answer a request, in order, and the rate of the resulting clip."""
    end = timeline.duration if request.end is None else min(request.end, timeline.duration)
    if request.start >= end:
        raise UserError(f"{name}: start={request.start:g} s is behind its end at {timeline.duration:.2f} s")
    fps, stamps = request.fps, timeline.stamps
    if fps is None and request.num_frames is None:
        rate = None if timeline.damage else constant_rate(stamps, timeline.rates)
        if len(stamps) == 1:
            rate = 1 / timeline.duration
        if rate is not None:
            return _frames_between(stamps, request.start, request.end, TOLERANCE / rate), rate
        fps = _rate_despite_gaps(timeline) if timeline.damage else len(stamps) / timeline.duration
    limits.check_frames(name, request.num_frames or round((end - request.start) * (fps or 0)), 1, 1)
    times, rate = sample_times(
        end - request.start, fps=fps, num_frames=request.num_frames, start=request.start
    )
    return frames_on_display(stamps, times).tolist(), rate


def _rate_despite_gaps(timeline: Timeline) -> float:
    """The rate at which a film ticked before some of its frames were lost."""
    for rate in timeline.rates:
        places = timeline.stamps * rate
        if np.abs(places - np.rint(places)).max() <= TOLERANCE:
            return rate
    return 1 / typical_step(timeline.stamps)


def _frames_between(stamps: np.ndarray, start: float, end: float | None, late: float) -> list[int]:
    """Frames that appear from ``start`` on and before ``end``; at least the one on display at ``start``."""
    inside = np.flatnonzero((stamps >= start - late) & (stamps < (np.inf if end is None else end - late)))
    return (inside if len(inside) else frames_on_display(stamps, np.array([start]))).tolist()


def _read_film(path: Path, request: Request, limits: Limits, on_damage: OnDamage) -> tuple[np.ndarray, float]:
    name = str(path)
    timeline = from_packets(path, limits, request.end)
    if timeline is not None and not timeline.damage:
        indices, rate = _select(timeline, request, limits, name)
        try:
            return _decode(path, timeline, indices, request, limits), rate
        except (_Unexpected, av.error.FFmpegError):
            pass  # decoding from the beginning finds out what is wrong, and says so
    if timeline is not None and timeline.damage and on_damage == "error":
        raise UserError(f"{name}: the file is damaged: {timeline.damage}")
    careful = by_decoding(path, limits, timeline, request.end)
    if careful.damage and on_damage == "error":
        raise UserError(f"{name}: the file is damaged: {careful.damage}")
    indices, rate = _select(careful, request, limits, name)
    frames = _decode(path, careful, indices, request, limits)
    if careful.damage:
        warnings.warn(f"{name}: the file is damaged: {careful.damage}", stacklevel=4)
    return frames, rate


def _decode(
    path: Path, timeline: Timeline, indices: list[int], request: Request, limits: Limits
) -> np.ndarray:
    """Decode the frames ``indices`` of a film.

    Raises:
        _Unexpected, FFmpegError: the file does not hold what its packets promised.
        UserError: it is above the limits.
    """
    keeper = Keeper(str(path), indices, request.size, request.fit, limits)
    container, film = open_video(path, limits)
    with container:
        comment = container.metadata.get("comment", "")
        context = film.codec_context
        keeper.check(*true_size(comment, context.height, context.width))
        if timeline.by_decoding:
            found = _by_number(container, film, str(path), keeper.wanted, limits)
        else:
            found = _by_stamp(container, film, timeline, keeper.wanted)
        for index, frame in found:
            true = true_size(comment, frame.height, frame.width)
            aspect = film.sample_aspect_ratio
            matrix, exact = display_matrix(frame, film.metadata.get("rotate", ""))
            if not exact:
                raise UserError(f"{path}: it asks to be shown turned by an odd angle; re-encode it upright")
            keeper.check(*shown_size(*true, aspect, matrix))
            keeper.keep(index, to_picture(frame, true, aspect, matrix))
    return keeper.result()


def _by_number(
    container: InputContainer, film: VideoStream, name: str, wanted: list[int], limits: Limits
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The wanted ones of all whole frames, by their numbers."""
    remaining = set(wanted)
    for number, _, frame in whole_frames(container, film, name, limits):
        if frame is not None and number in remaining:
            remaining.discard(number)
            yield number, frame
        if not remaining:
            return


def _by_stamp(
    container: InputContainer, film: VideoStream, timeline: Timeline, wanted: list[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The wanted frames by their time stamps; jumps to a keyframe where that saves decoding.

    Raises:
        _Unexpected: a promised frame is not there or is not whole.
    """
    # Small pictures decode faster than threads start; more than eight threads only hold more memory.
    small = film.codec_context.height * film.codec_context.width < SMALL
    film.thread_type = "SLICE" if small else "AUTO"
    film.codec_context.thread_count = 1 if small else min(8, os.cpu_count() or 1)
    frames = container.decode(film)
    reached = -1
    for index in wanted:
        target = timeline.keys[index]
        place = bisect_right(timeline.keyframes, target) - 1
        if place >= 0 and bisect_left(timeline.keys, timeline.keyframes[place]) - reached > _WORTH_SEEKING:
            container.seek(timeline.keyframes[place], stream=film)
            frames = container.decode(film)
        for frame in frames:
            if frame.is_corrupt or frame.pts is None or frame.pts > target:
                raise _Unexpected
            if frame.pts == target:
                yield index, frame
                break
        else:
            raise _Unexpected
        reached = index
