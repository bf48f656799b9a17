"""Films that are to be edited: what is accepted, and how they are brought to the model's size."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from unireel.backbones.vae import alike
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


def blended(edited: Tensor, unedited: Tensor, source: Tensor, within: float) -> Tensor:
    """Edited films with the source's own pixels where nothing was edited, so that these do not age by the autoencoder.

    What was edited is seen by comparing like with like: both films as the autoencoder shows them. (Blended Diffusion,
    arXiv 2111.14818, is told by a mask.)

    Args:
        edited, unedited, source: (B, 3, F, H, W) in [-1, 1]: decoded of the edited latents, decoded of the source's
            latents, and the source.
        within: difference of the first two, the largest of the channels and neighbours, up to which the source counts,
            the more the smaller it is.
    """
    return edited.lerp(source, alike(edited, unedited, within, frames=3))
