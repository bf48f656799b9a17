"""Films made on the spot: every frame tells its number, so that a test sees which frames it was given."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace

TICK = Fraction(1, 90_000)
BITS = 8


def numbered(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture that carries ``number`` as 8 bars, light for 1, dark for 0; uint8 ``(height, width, 3)``."""
    picture = np.full((height, width, 3), 40, dtype=np.uint8)
    bar = width // BITS
    for bit in range(BITS):
        if number >> bit & 1:
            picture[:, bit * bar : (bit + 1) * bar] = 215
    return picture


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers that frames uint8 ``(F, H, W, 3)`` carry, at whatever size they were delivered."""
    width = frames.shape[2]
    centres = [int((bit + 0.5) * width / BITS) for bit in range(BITS)]
    lit = frames[:, frames.shape[1] // 2, :, :].mean(axis=2)[:, centres] > 128
    return [int(sum(1 << bit for bit in range(BITS) if row[bit])) for row in lit]


def write_film(
    path: Path,
    frames: Sequence[np.ndarray],
    stamps: Sequence[float],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: float | None = None,
    flips: tuple[bool, bool] = (False, False),
    aspect: Fraction | int | None = None,
    last: float | None = None,
    options: dict[str, str] | None = None,
    matrix: Colorspace | None = None,
    tick: Fraction = TICK,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write frames to be shown at ``stamps`` seconds, the last for ``last`` seconds; settings as named."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(
            codec, rate=Fraction(25), options={"threads": "1"} | (options or {})
        )
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = tick
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation, *flips)
        if matrix is not None:
            stream.codec_context.colorspace = matrix
        gaps = [*np.diff(stamps), last or (stamps[-1] - stamps[-2] if len(stamps) > 1 else 0.04)]
        lasting: dict[int, int] = {}
        packets: list[av.Packet] = []
        for frame, stamp, gap in zip(frames, stamps, gaps, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
                format=pix_fmt, dst_colorspace=matrix
            )
            picture.pts, picture.time_base = round(stamp / tick), tick
            lasting[picture.pts] = round(gap / tick)
            packets += stream.encode(picture)
        for packet in packets + stream.encode(None):
            packet.duration = lasting[packet.pts]
            container.mux(packet)
    return path
