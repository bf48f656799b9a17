"""Encoding frames into mp4 (H.264), webm (VP9), gif, PNG and folders of PNGs.

Every writer takes frames uint8 ``(F, H, W, 3)`` and leaves at ``path`` either a complete file or what was
there before.
"""

import json
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import av.error
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from PIL import Image

from unireel.errors import UserError
from unireel.media.atomic import replacing_file, replacing_folder
from unireel.media.upright import CONVERSION, SMALL, size_tag

FOLDER_INDEX = "clip.json"
"""Name of the file that gives a folder of PNGs its frame rate."""

CRF_RANGE = {".mp4": (0, 51), ".webm": (0, 63)}
"""Constant rate factors that each encoder accepts, from lossless to worst."""

DEFAULT_CRF = {".mp4": 14, ".webm": 20}
"""Visually lossless."""

MAX_GIF_FPS = 50
"""Players slow down a gif with delays under 20 ms."""

_FOLDER_NAMES = re.compile(rf"\d{{5,}}\.png|{re.escape(FOLDER_INDEX)}")
_CODEC = {".mp4": "libx264", ".webm": "libvpx-vp9"}


def enlarge(frames: np.ndarray, scale: int) -> np.ndarray:
    """Repeat every pixel ``scale`` times in both directions: ``(..., H, W, C)`` to ``(..., H*s, W*s, C)``."""
    return frames if scale == 1 else frames.repeat(scale, axis=-3).repeat(scale, axis=-2)


def _stored_size(height: int, width: int, suffix: str) -> tuple[int, int]:
    """(height, width) that the codec can store: H.264 with 4:2:0 chroma has even sides, VP9 has any."""
    return (height + height % 2, width + width % 2) if suffix == ".mp4" else (height, width)


def _rate(fps: float, path: Path) -> Fraction:
    """The frame rate as a fraction that every container can hold (29.97002997 becomes 30000/1001)."""
    if not 0.001 <= fps <= 1000:
        raise UserError(f"cannot write {path}: {fps:g} frames a second; a film file holds 0.001 to 1000")
    return Fraction(fps).limit_denominator(1001)


def write_video(
    frames: np.ndarray, fps: float, path: Path, *, crf: int | None = None, scale: int = 1
) -> None:
    """Write ``.mp4`` (H.264, yuv420p, BT.709, index first so that it streams) or ``.webm`` (VP9).

    Args:
        frames: uint8 ``(F, H, W, 3)``.
        fps: frames per second, > 0.
        path: ends in ``.mp4`` or ``.webm``.
        crf: quality, see :data:`CRF_RANGE`; smaller is better and larger on disk. Default
            :data:`DEFAULT_CRF`.
        scale: integer nearest-neighbour enlargement.

    Raises:
        UserError: the file cannot be written, or the encoder refuses the film.
    """
    suffix = path.suffix.lower()
    height, width = (side * scale for side in frames.shape[1:3])
    options = {"crf": str(DEFAULT_CRF[suffix] if crf is None else crf)}
    # x264's macroblock tree gives now and then other bytes for the same frames where it uses AVX-512.
    h264 = {"preset": "medium", "x264-params": "mbtree=0"}
    options |= h264 if suffix == ".mp4" else {"b": "0", "row-mt": "1", "cpu-used": "2"}
    rate = _rate(fps, path)
    container_options = {"movflags": "+faststart"} if suffix == ".mp4" else {}
    with replacing_file(path) as temporary:
        try:
            with av.open(str(temporary), "w", options=container_options) as container:
                if suffix == ".mp4" and (height % 2 or width % 2):
                    container.metadata["comment"] = size_tag(height, width)
                stream = cast(VideoStream, container.add_stream(_CODEC[suffix], rate=rate, options=options))
                stream.height, stream.width = _stored_size(height, width, suffix)
                stream.pix_fmt = "yuv420p"
                context = stream.codec_context
                if height * width < SMALL:
                    context.thread_count = 1
                context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
                context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
                for picture in _yuv_pictures(frames, scale, stream.height, stream.width):
                    container.mux(stream.encode(picture))
                container.mux(stream.encode(None))
        except av.error.FFmpegError as error:
            raise UserError(f"cannot write {path}: the encoder answers: {error.strerror}") from error


def _yuv_pictures(frames: np.ndarray, scale: int, height: int, width: int) -> Iterator[av.VideoFrame]:
    """Frames enlarged, then padded to ``height x width`` by repeating the edge, which hardly shows."""
    for index, frame in enumerate(frames):
        large = enlarge(frame, scale)
        missing = ((0, height - large.shape[0]), (0, width - large.shape[1]), (0, 0))
        picture = av.VideoFrame.from_ndarray(np.pad(large, missing, mode="edge"), format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=CONVERSION,
        )
        picture.pts = index
        yield picture


def _shared_palette(frames: np.ndarray) -> Image.Image:
    """One palette of at most 256 colours for the whole film: a palette per frame would flicker."""
    stride = max(1, round(math.sqrt(frames.size / 6_000_000)))
    sample = frames[:, ::stride, ::stride]
    tall = np.ascontiguousarray(sample).reshape(-1, sample.shape[2], 3)
    return Image.fromarray(tall).quantize(256, method=Image.Quantize.MEDIANCUT)


def write_gif(frames: np.ndarray, fps: float, path: Path, *, scale: int = 1) -> None:
    """Write an endlessly looping gif with one palette; delays are rounded to 10 ms without drifting.

    Raises:
        UserError: ``fps`` is above :data:`MAX_GIF_FPS`, or the file cannot be written.
    """
    if fps > MAX_GIF_FPS:
        raise UserError(
            f"cannot write {path}: a gif shows at most {MAX_GIF_FPS} frames a second, not {fps:g}; use .mp4"
        )
    reference = _shared_palette(frames)
    colours = np.array(reference.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    palette = np.zeros((256, 4), dtype=np.uint8)
    palette[:, 0] = 255
    palette[: len(colours), 1:] = colours
    with replacing_file(path) as temporary:
        try:
            with av.open(str(temporary), "w", options={"loop": "0"}) as container:
                stream = container.add_stream("gif", rate=100)
                stream.height, stream.width = (side * scale for side in frames.shape[1:3])
                stream.pix_fmt = "pal8"
                for index, frame in enumerate(frames):
                    indices = np.asarray(
                        Image.fromarray(frame).quantize(palette=reference, dither=Image.Dither.NONE)
                    )
                    large = enlarge(indices[:, :, None], scale)[:, :, 0]
                    pair: Any = (np.ascontiguousarray(large), palette)  # PyAV's way to give pal8
                    picture = av.VideoFrame.from_ndarray(pair, format="pal8")
                    picture.pts = round(index * 100 / fps)
                    for packet in stream.encode(picture):
                        packet.duration = round((index + 1) * 100 / fps) - round(index * 100 / fps)
                        container.mux(packet)
                container.mux(stream.encode(None))
        except av.error.FFmpegError as error:
            raise UserError(f"cannot write {path}: the encoder answers: {error.strerror}") from error


def write_picture(image: Image.Image, path: Path) -> None:
    """Write a picture as PNG, atomically.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing_file(path) as temporary:
        image.save(temporary, format="PNG")


def write_folder(frames: np.ndarray, fps: float, path: Path, *, scale: int = 1) -> None:
    """Write lossless ``00000.png`` ... and :data:`FOLDER_INDEX`, which holds the frame rate and the size.

    Raises:
        UserError: ``path`` is a file or somebody else's folder, or cannot be written.
    """
    with replacing_folder(path, _FOLDER_NAMES) as temporary:
        for index, frame in enumerate(frames):
            Image.fromarray(enlarge(frame, scale)).save(temporary / f"{index:05d}.png")
        height, width = (side * scale for side in frames.shape[1:3])
        entry = {"fps": fps, "frames": len(frames), "height": height, "width": width}
        (temporary / FOLDER_INDEX).write_text(json.dumps(entry) + "\n", encoding="utf-8")
