"""Reading films as the benchmarks' own programs do, so that figures computed from pixels can be compared with theirs.

:meth:`unireel.clip.Clip.load` converts colours with more care (full chroma resolution, exact rounding, upright): that
gives better pictures and other numbers. On a compressed pair of films the two conversions differ by 0.04 dB in PSNR and
by 0.03 in SSIM.
"""

from __future__ import annotations

from pathlib import Path

import av.error
import numpy as np

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.media.limits import DEFAULT_LIMITS, Limits
from unireel.media.stills import is_still
from unireel.media.timeline import check_source, open_video


def read_plainly(path: Path, limits: Limits = DEFAULT_LIMITS) -> Clip:
    """All frames of a film as FFmpeg's default conversion to RGB gives them; pictures and folders as usual.

    Rotation marks and the shape of pixels are not regarded, and the rate is the nominal one: metrics compare frame by
    frame.

    Raises:
        UserError: no such file, not a video, above the limits, or damaged: half a film has no score.
    """
    if check_source(path, limits) or is_still(path):
        return Clip.load(path, limits=limits)
    name = str(path)
    container, film = open_video(path, limits)
    frames: list[np.ndarray] = []
    with container:
        rate = float(film.average_rate or film.guessed_rate or 1)
        try:
            for frame in container.decode(film):
                limits.check_picture(name, frame.height, frame.width)
                frames.append(frame.to_ndarray(format="rgb24"))
                limits.check_frames(name, len(frames), frame.height, frame.width)
        except av.error.FFmpegError as error:
            raise UserError(
                f"{name}: the file is damaged after {len(frames)} frames: {error.strerror}"
            ) from error
        if film.frames > len(frames) or not frames:
            raise UserError(f"{name}: the file is damaged: {len(frames)} of {film.frames} frames can be read")
    if len({frame.shape for frame in frames}) > 1:
        raise UserError(f"{name}: its pictures change size")
    return Clip(np.stack(frames), rate)
