"""Changing the size of frames: the one place where pixels are interpolated between sizes."""

from typing import Literal

import numpy as np
from PIL import Image

from unireel.errors import UsageError

Fit = Literal["stretch", "crop", "pad"]
"""How a picture meets another aspect ratio: ``stretch`` ignores it, ``crop`` fills and cuts the sides that
stand over (centred), ``pad`` shows everything between black bars."""

_FITS = ("stretch", "crop", "pad")


def _scaled(
    image: Image.Image, width: int, height: int, box: tuple[float, float, float, float]
) -> Image.Image:
    """Scale the part ``box`` of ``image`` to ``width x height``.

    A reduction by whole factors averages whole blocks, so that a film saved with ``scale=k`` comes back
    exactly; everything else is bicubic, which Pillow widens on reduction so that nothing aliases.
    """
    across, down = (box[2] - box[0]) / width, (box[3] - box[1]) / height
    whole = across >= 1 and down >= 1 and across.is_integer() and down.is_integer()
    return image.resize((width, height), Image.Resampling.BOX if whole else Image.Resampling.BICUBIC, box=box)


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
    image = Image.fromarray(frame)
    whole = (0.0, 0.0, float(old_width), float(old_height))
    if fit == "stretch":
        return np.asarray(_scaled(image, width, height, whole))
    if fit == "crop":
        ratio = min(old_width / width, old_height / height)
        margin_x, margin_y = (old_width - width * ratio) / 2, (old_height - height * ratio) / 2
        box = (margin_x, margin_y, old_width - margin_x, old_height - margin_y)
        return np.asarray(_scaled(image, width, height, box))
    ratio = min(width / old_width, height / old_height)
    inner_width, inner_height = max(1, round(old_width * ratio)), max(1, round(old_height * ratio))
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    inner = np.asarray(_scaled(image, inner_width, inner_height, whole))
    canvas[top : top + inner_height, left : left + inner_width] = inner
    return canvas
