"""Films and frames as bytes that a page can carry."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from unireel.clip import Clip


def webp(clip: Clip) -> bytes:
    """``clip`` as an endless, lossless animated WebP of its own size (a few kilobytes for a film of the World)."""
    pictures = [Image.fromarray(frame) for frame in clip]
    memory = io.BytesIO()
    pictures[0].save(
        memory,
        "WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=round(1000 / clip.fps),
        loop=0,
        lossless=True,
        method=4,
    )
    return memory.getvalue()


def png(frame: np.ndarray) -> bytes:
    """A frame (H, W, 3) uint8 as a PNG."""
    memory = io.BytesIO()
    Image.fromarray(frame).save(memory, "PNG")
    return memory.getvalue()


def photo(frame: np.ndarray) -> bytes:
    """A frame (H, W, 3) uint8 of a real film as a WebP that loses what nobody sees, a few kilobytes."""
    memory = io.BytesIO()
    Image.fromarray(frame).save(memory, "WEBP", quality=75)
    return memory.getvalue()
