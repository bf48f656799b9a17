"""Images on their way into a model: sizes that keep the aspect ratio, pixels, patches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unireel.errors import UserError

MAX_PIXELS = 14 * 14 * 9 * 1024
"""Pixels of all images of one request together, at most."""


@dataclass(frozen=True)
class ImageRule:
    """How an image is brought to size: its longer side at most ``longest``, the shorter one at least ``shortest`` if
    the longer one allows.

    Both sides become multiples of ``stride``; the aspect ratio stays, up to that rounding.
    """

    longest: int
    shortest: int
    stride: int

    def size(self, width: int, height: int, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
        """Width and height that an image of ``width`` x ``height`` is resized to.

        Raises:
            UserError: the image is so narrow that no size within the limits has its aspect ratio.
        """
        ratio = self.longest // self.stride
        if min(width, height) < 1 or max(width, height) > ratio * min(width, height):
            raise UserError(
                f"an image of {width}x{height} is too narrow: one side may be {ratio} times the other"
            )
        scale = min(self.longest / max(width, height), 1.0)
        scale = max(scale, self.shortest / min(width, height))
        sides = [self._multiple(scale * side, round) for side in (width, height)]
        if sides[0] * sides[1] > max_pixels:
            scale = (max_pixels / (sides[0] * sides[1])) ** 0.5
            sides = [self._multiple(scale * side, math.floor) for side in sides]
        if max(sides) > self.longest:
            sides = [self._multiple(self.longest / max(sides) * side, round) for side in sides]
        return sides[0], sides[1]

    def resize(self, image: np.ndarray | Image.Image, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """An image, uint8 (H, W, 3 or 4) or PIL, in RGB at its size; bicubic, antialiased, on white if transparent."""
        picture = opaque(image)
        return picture.resize(self.size(*picture.size, max_pixels), Image.Resampling.BICUBIC)

    def _multiple(self, side: float, whole: Callable[[float], int]) -> int:
        return max(self.stride, whole(side / self.stride) * self.stride)


VIT_RULE, VAE_RULE = ImageRule(980, 224, 14), ImageRule(1024, 512, 16)
"""The published model's sizes for its ViT and its autoencoder."""


def to_pixels(image: Image.Image) -> Tensor:
    """(3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(127.5).sub(1)


def opaque(image: np.ndarray | Image.Image) -> Image.Image:
    """The image in RGB, on white where it is transparent."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
    if picture.mode == "P":
        picture = picture.convert("RGBA")
    if picture.mode in ("RGBA", "LA"):
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def cut(picture: Tensor, patch: int) -> Tensor:
    """Tokens (h * w, patch * patch * C) of (C, h * patch, w * patch): row by row, each (row, column, channel)."""
    channels, height, width = picture.shape
    rows = picture.reshape(channels, height // patch, patch, width // patch, patch)
    return rows.permute(1, 3, 2, 4, 0).reshape(-1, patch * patch * channels)
