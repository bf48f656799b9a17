"""Films that are to be edited: what is accepted, and how they are brought to the model's size."""

from __future__ import annotations

import numpy as np

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.world.scene import CLIP_FRAMES

LENGTHS = tuple(range(1, CLIP_FRAMES + 1, 4))
"""Frames that the pocket model edits; 1 is a picture."""


def prepare_source(clip: Clip, size: int) -> tuple[np.ndarray, str | None]:
    """The frames (F, ``size``, ``size``, 3) of a film to edit, and what was changed about it.

    Raises:
        UserError: the film has a length or a shape that the model cannot edit.
    """
    listed = f"{', '.join(map(str, LENGTHS[:-1]))} or {LENGTHS[-1]}"
    if len(clip) not in LENGTHS:
        hint = f"; cut it (clip[:{max(n for n in LENGTHS if n <= len(clip))}])"
        raise UserError(f"the film has {len(clip)} frames; the model edits {listed} (1 is a picture){hint}")
    if clip.width != clip.height or clip.width < size // 2:
        raise UserError(
            f"the film is {clip.width}x{clip.height}; the model edits square films of at least "
            f"{size // 2}x{size // 2}, at {size}x{size}"
        )
    if clip.width == size:
        return clip.frames, None
    return clip.resized(
        size, size
    ).frames, f"the film was resized from {clip.width}x{clip.height} to {size}x{size}"
