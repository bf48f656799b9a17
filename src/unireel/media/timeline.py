"""The time stamps of a film: which frames there are and when each is shown, before any of them is kept.

A film is read twice. The first pass finds its frames: as a rule from the packets alone, without decoding; if
the film turns out to be damaged, or its packets bear no usable stamps, by decoding it from the beginning and
noting which frames come out whole. The second pass (:mod:`unireel.media.decode`) decodes and keeps only what
is wanted. So the memory used does not grow with the film, sampling follows the true time stamps, and a frame
count is never taken on trust.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from unireel.errors import UserError
from unireel.media.limits import Limits
from unireel.media.sampling import typical_step

# Readers of play lists, of concatenations and of devices would open other files than the one that was named.
_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,nut,ivf,apng,"
    "h264,hevc,m4v,obu,yuv4mpegpipe,mjpeg"
)

CUT_OFF = "it is cut off"

MAX_RATE = 1000
"""No film shows more frames a second; a file that claims more is made to exhaust its reader."""


@dataclass(frozen=True)
class Timeline:
    """The frames of a film in order of display.

    Attributes:
        stamps: seconds at which each frame appears, float64 ``(F,)``, rising, the first is 0.
        keys: names of the frames for the second pass: their ``pts``, or their numbers if ``by_decoding``.
        keyframes: stamps' ``pts`` at which decoding may start, rising (empty: only at the beginning).
        duration: seconds until the last frame disappears.
        rates: frame rates that the header claims, the most trustworthy first.
        damage: what is wrong with the file, ``""`` if nothing that is known yet.
        by_decoding: whether the frames were found by decoding rather than from packets.
    """

    stamps: np.ndarray
    keys: tuple[int, ...]
    keyframes: tuple[int, ...]
    duration: float
    rates: tuple[float, ...]
    damage: str = ""
    by_decoding: bool = False


def open_video(path: Path, limits: Limits) -> tuple[InputContainer, VideoStream]:
    """Open a file (see :func:`check_source`) and choose its film; the caller closes the container.

    Raises:
        UserError: it is not a video, holds no film or one of an unknown codec, or is above the limits.
    """
    name = str(path)
    # Absolute, so that no part of the name can be taken for a protocol.
    options = {"protocol_whitelist": "file", "format_whitelist": _DEMUXERS}
    if limits.decoders is not None:
        options["codec_whitelist"] = ",".join(limits.decoders)
    try:
        container = av.open(
            os.path.abspath(path), "r", format=limits.container, options=options, metadata_errors="replace"
        )
    except av.error.FFmpegError as error:
        raise UserError(
            f"{name}: not a video that can be read (mp4, webm, gif, mkv, mov, avi and others are)"
        ) from error
    try:
        film = _best_film(container)
        if film is None:
            raise UserError(f"{name}: it holds no video")
        context = film.codec_context
        if context is None:
            raise UserError(f"{name}: no decoder for the kind of video in it")
        limits.check_decoder(name, context.codec.name)
        limits.check_picture(name, context.height, context.width)
        # The decoder itself refuses a picture that grows later; twice, as it counts its blocks' padding.
        context.options = {"max_pixels": str(2 * limits.max_pixels + 2**16)}
        return container, film
    except BaseException:
        container.close()
        raise


def _best_film(container: InputContainer) -> VideoStream | None:
    """The main film of a file; the cover picture of a piece of music is none."""
    films = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    return next(
        (film for film in films if best is not None and film.index == best.index), films[0] if films else None
    )


def check_source(path: Path, limits: Limits) -> bool:
    """Whether ``path`` is a folder rather than a file; a file must be readable, not empty, within limits.

    Raises:
        UserError: it is neither, or is not there, or cannot be read.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            return True
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path}: not a file")
        if found.st_size == 0:
            raise UserError(f"{path}: the file is empty")
        limits.check_file(str(path), found.st_size)
        with path.open("rb"):
            return False
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path}: there is no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{str(path)!r}: not a file name ({error})") from error


def from_packets(path: Path, limits: Limits, until: float | None) -> Timeline | None:
    """The timeline from packets alone, or ``None`` if they bear no usable time stamps.

    Args:
        path: the film.
        limits: what is accepted.
        until: seconds of the film that are wanted; what lies beyond is not held against the limit of
            duration.

    Raises:
        UserError: as :func:`open_video`; or the film is longer than the limits allow.
    """
    container, film = open_video(path, limits)
    with container:
        scan = _scan(container, film, str(path), limits, until)
        if scan is None or not scan.durations:
            return None
        keys = sorted(scan.durations)
        base = float(film.time_base or 0)
        rates = header_rates(film)
        stamps = (np.array(keys, dtype=np.float64) - keys[0]) * base
        duration = float(stamps[-1]) + _last_duration(scan.durations[keys[-1]] * base, stamps, rates)
        damage = scan.damage
        if scan.stopped and until is not None:
            duration = max(duration, until)
        elif not damage:
            damage = _shortfall(container, film, duration, scan.end, typical_step(stamps))
        return Timeline(
            stamps=stamps,
            keys=tuple(keys),
            keyframes=tuple(sorted(scan.keyframes)) if _is_kind(container, "mp4", "matroska") else (),
            duration=duration,
            rates=rates,
            damage=damage,
        )


def _last_duration(claimed: float, stamps: np.ndarray, rates: tuple[float, ...]) -> float:
    """Seconds for which the last frame is shown: many writers leave this out or put a clock tick there."""
    usual = typical_step(stamps) or (1 / rates[0] if rates else 1.0)
    return claimed if claimed >= usual / 2 else usual


@dataclass
class _Scan:
    durations: dict[int, int] = field(default_factory=dict)
    """Duration of each frame by its pts, both in the stream's time base; 0 where the file does not say."""
    keyframes: set[int] = field(default_factory=set)
    packets: int = 0
    """Packets of the film so far, also those that share a time stamp."""
    end: float = 0.0
    """Seconds at which the last packet of any stream ends."""
    damage: str = ""
    stopped: bool = False
    """Whether all that was wanted lies behind, so that the rest of the file was not looked at."""


def _scan(
    container: InputContainer, film: VideoStream, name: str, limits: Limits, until: float | None
) -> _Scan | None:
    """Walk through all packets of a file; ``None`` if some of the film's bear no time stamp."""
    scan = _Scan()
    first: int | None = None
    packets = container.demux()
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            scan.damage = f"reading stops: {error.strerror}"
            return scan
        if packet is None:
            return scan
        if packet.pts is not None:
            scan.end = max(scan.end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index != film.index or packet.size == 0 or packet.is_discard:
            continue
        if packet.pts is None or film.time_base is None:
            return None
        if packet.is_corrupt:
            scan.damage = CUT_OFF
            continue
        first = packet.pts if first is None else first
        scan.packets += 1
        scan.durations[packet.pts] = packet.duration or 0
        if packet.is_keyframe:
            scan.keyframes.add(packet.pts)
        elapsed = float((packet.pts - first) * film.time_base)
        check_pace(name, scan.packets, elapsed, limits)
        limits.check_duration(name, elapsed if until is None else min(elapsed, until))
        # Packets come in order of decoding: what is shown earlier than this one is decoded has all been seen.
        if until is not None and packet.dts is not None and (packet.dts - first) * film.time_base > until:
            scan.stopped = True
            scan.durations = {pts: lasts for pts, lasts in scan.durations.items() if pts <= packet.dts}
            return scan


def check_pace(name: str, count: int, elapsed: float, limits: Limits) -> None:
    """Refuse a film with more frames than any true one: its time stamps stand still to exhaust the reader."""
    if count > MAX_RATE * (min(max(elapsed, 0.0), limits.max_duration) + 1):
        raise UserError(
            f"{name}: more than {MAX_RATE} frames a second, {count:,} in {elapsed:.2f} s; not a true film"
        )


def _is_kind(container: InputContainer, *kinds: str) -> bool:
    return any(kind in container.format.name for kind in kinds)


def header_rates(film: VideoStream) -> tuple[float, ...]:
    """Frame rates that the header claims, the most trustworthy first."""
    rates = (film.average_rate, film.guessed_rate, film.base_rate)
    return tuple(dict.fromkeys(float(rate) for rate in rates if rate))


def _shortfall(container: InputContainer, film: VideoStream, duration: float, end: float, step: float) -> str:
    """:data:`CUT_OFF` if the header promises clearly more than the packets hold, else ``""``."""
    slack = 0.1 + 2 * step
    if _is_kind(container, "mp4") and film.duration and film.time_base:
        missing = float(film.duration * film.time_base) - duration
    elif _is_kind(container, "matroska") and container.duration:
        missing = container.duration / av.time_base - end
    else:
        return ""
    return CUT_OFF if missing > slack else ""


def whole_frames(
    container: InputContainer, film: VideoStream, name: str, limits: Limits
) -> Iterator[tuple[int, float, av.VideoFrame | None]]:
    """Decode from the beginning and yield every frame that is whole: its number, its seconds, and itself.

    After an error nothing is yielded until the next keyframe, since what lies between refers to pictures that
    are not there. Errors are yielded too, as frame ``None`` with the number and time of the last whole frame.
    """
    film.codec_context.thread_count = 1
    film.thread_type = "SLICE"  # frame threads report errors late, and then other frames get lost at each run
    rates = header_rates(film)
    base = float(film.time_base or 0)
    number, seen, origin, last = 0, 0, None, 0.0
    waiting = False
    packets = container.demux(film)
    while True:
        try:
            packet = next(packets, None)
            frames = packet.decode() if packet is not None else None
        except av.error.FFmpegError:
            waiting = True
            yield number - 1, last, None
            continue
        if frames is None:
            return
        for frame in frames:
            seen += 1
            waiting = waiting and not frame.key_frame
            if waiting or frame.is_corrupt:
                yield number - 1, last, None
                continue
            if frame.pts is None and not rates:
                raise UserError(
                    f"{name}: it has neither time stamps nor a frame rate; convert it to mp4 first"
                )
            moment = (seen - 1) / rates[0] if frame.pts is None else frame.pts * base
            origin = moment if origin is None else origin
            if number and moment - origin <= last:
                yield number - 1, last, None
                continue
            last = moment - origin
            check_pace(name, number + 1, last, limits)
            yield number, last, frame
            number += 1


def by_decoding(path: Path, limits: Limits, promised: Timeline | None, until: float | None) -> Timeline:
    """The timeline of the frames that come out whole when the film is decoded from the beginning.

    Args:
        path: the film.
        limits: what is accepted.
        promised: the timeline that the packets promised, if any.
        until: as in :func:`from_packets`.

    Raises:
        UserError: no frame at all is readable; or as :func:`open_video`.
    """
    container, film = open_video(path, limits)
    name = str(path)
    stamps: list[float] = []
    lost = False
    with container:
        for _, moment, frame in whole_frames(container, film, name, limits):
            if frame is None:
                lost = True
                continue
            if until is not None and moment > until:
                break
            limits.check_duration(name, moment)
            stamps.append(moment)
        rates, expected = header_rates(film), film.frames
    if not stamps:
        raise UserError(f"{name}: it is damaged, no picture in it can be read")
    seconds = np.array(stamps, dtype=np.float64)
    expected = max(expected, len(promised.keys) if promised is not None else 0)
    damage = promised.damage if promised is not None else ""
    if lost or damage:
        share = f"{len(stamps)} of {expected}" if expected > len(stamps) else f"{len(stamps)}"
        damage = f"{damage}{'; ' if damage else ''}{share} frames can be read, up to {stamps[-1]:.2f} s"
    return Timeline(
        stamps=seconds,
        keys=tuple(range(len(stamps))),
        keyframes=(),
        duration=stamps[-1] + _last_duration(0.0, seconds, rates),
        rates=rates,
        damage=damage,
        by_decoding=True,
    )
