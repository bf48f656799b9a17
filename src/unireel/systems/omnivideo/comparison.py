"""An edit at a glance: before, after, and where they differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from unireel.clip import Clip
from unireel.errors import UsageError
from unireel.media.pictures import contact_sheet, side_by_side

CAPTIONS = ("before", "after", "difference")
SUFFIXES = (".png", ".mp4", ".webm", ".gif")


def difference(before: Clip, after: Clip) -> Clip:
    """The absolute difference of two films, 0 (black) where they are alike; ``before`` is resized to ``after``.

    Raises:
        UsageError: they have different lengths.
    """
    if len(before) != len(after):
        raise UsageError(f"films of {len(before)} and {len(after)} frames cannot be compared frame by frame")
    before = _like(before, after)
    return Clip(np.abs(after.frames.astype(np.int16) - before.frames).astype(np.uint8), after.fps)


def sheet(before: Clip, after: Clip, instruction: str) -> Image.Image:
    """A picture with a strip of each of :data:`CAPTIONS`."""
    clips = [_like(before, after), after, difference(before, after)]
    return contact_sheet(clips, list(CAPTIONS), title=instruction, num_frames=6, tile=96)


def save_comparison(path: Path, before: Clip, after: Clip, instruction: str) -> None:
    """Write :func:`sheet` to a .png, or a film of the three beside each other.

    Raises:
        UsageError: the file has another suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"'{path}' cannot hold a comparison; accepted: {', '.join(SUFFIXES)}")
    if suffix == ".png":
        sheet(before, after, instruction).save(path)
        return
    clips = [_like(before, after), after, difference(before, after)]
    side_by_side([Clip(each.frames, after.fps) for each in clips], CAPTIONS).save(path)


def _like(clip: Clip, other: Clip) -> Clip:
    same = (clip.height, clip.width) == (other.height, other.width)
    return clip if same else clip.resized(other.height, other.width)
