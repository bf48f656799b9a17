"""Changing the size of frames: the one place where pixels are interpolated between sizes."""

from typing import Literal

import numpy as np
from PIL import Image

from unireel.errors import UsageError

Fit = Literal["stretch", "crop", "pad"]
"""How a picture meets another aspect ratio: ``stretch`` ignores it, ``crop`` fills and cuts the sides that
stand over (centred), ``pad`` shows everything between black bars."""

_FITS = ("stretch", "crop", "pad")


def _scaled(frame: np.ndarray, height: int, width: int, box: tuple[float, float, float, float]) -> np.ndarray:
    """Scale the part ``box`` (left, top, right, bottom) of ``frame`` to ``(height, width, 3)``.

    A reduction by whole factors is the mean of whole blocks, so that a film saved with ``scale=k`` comes back
    exactly; everything else is bicubic, which Pillow widens on reduction so that nothing aliases.
    """
    left, top, right, bottom = box
    across, down = (right - left) / width, (bottom - top) / height
    if all(value.is_integer() for value in (*box, across, down)):
        part = frame[int(top) : int(bottom), int(left) : int(right)].astype(np.uint32)
        blocks = part.reshape(height, int(down), width, int(across), 3).sum(axis=(1, 3))
        count = int(down * across)
        return ((2 * blocks + count) // (2 * count)).astype(np.uint8)
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC, box=box))


def resize_frame(frame: np.ndarray, height: int, width: int, fit: Fit = "stretch") -> np.ndarray:
    """Resize one frame uint8 ``(H, W, 3)`` to ``(height, width, 3)``.

    Raises:
        UsageError: a size below 1 or an unknown ``fit``.
    """
    if height < 1 or width < 1:
        raise UsageError(f"size {width}x{height}: height and width must be at least 1")
    if fit not in _FITS:
        raise UsageError(f"fit={fit!r}: choose one of {', '.join(_FITS)}")
    old_height, old_width = frame.shape[:2]
    if (old_height, old_width) == (height, width):
        return frame
    whole = (0.0, 0.0, float(old_width), float(old_height))
    if fit == "stretch":
        return _scaled(frame, height, width, whole)
    if fit == "crop":
        ratio = min(old_width / width, old_height / height)
        margin_x, margin_y = (
            max(0.0, old_width - width * ratio) / 2,
            max(0.0, old_height - height * ratio) / 2,
        )
        box = (margin_x, margin_y, old_width - margin_x, old_height - margin_y)
        return _scaled(frame, height, width, box)
    ratio = min(width / old_width, height / old_height)
    inner_width, inner_height = max(1, round(old_width * ratio)), max(1, round(old_height * ratio))
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    inner = _scaled(frame, inner_height, inner_width, whole)
    canvas[top : top + inner_height, left : left + inner_width] = inner
    return canvas
