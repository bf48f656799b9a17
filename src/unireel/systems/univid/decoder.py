"""The video decoder of UniVid: Wan with a time of its own for each token, so that a clean first frame can lead.

One process makes films from text, films from a first frame and text, and pictures, which are films of one frame.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from PIL import Image
from torch import Tensor, nn

from unireel.backbones.images import opaque, to_pixels
from unireel.backbones.vae import decode, encode
from unireel.errors import UsageError
from unireel.flow.sampling import Context, sample


@dataclass(frozen=True)
class FilmSize:
    """Frames (4 k + 1), height and width in pixels."""

    frames: int
    height: int
    width: int


@dataclass(frozen=True)
class Sampling:
    """How a film is sampled; the defaults are those of Wan2.2-TI2V-5B (50 steps, shift 5, guidance 5)."""

    steps: int = 50
    shift: float = 5.0
    guidance: float = 5.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.shift <= 0:
            raise ValueError(
                f"sampling needs at least 1 step and a positive shift, not {self.steps} and {self.shift}"
            )


class VideoDecoder:
    """A Wan transformer with its autoencoder.

    Args:
        transformer: as diffusers has it, at any size; adapters (:mod:`unireel.backbones.lora`) may be on it.
        vae: a causal video autoencoder of diffusers with the statistics of its latents.
        space, time: how many pixels a side and frames a latent stands for; by default what the autoencoder says.
    """

    def __init__(
        self,
        transformer: WanTransformer3DModel,
        vae: nn.Module,
        space: int | None = None,
        time: int | None = None,
    ) -> None:
        self.transformer, self.vae = transformer, vae
        config = vae.config  # type: ignore[attr-defined]
        self.space = space or _entry(config, "scale_factor_spatial", "spatial_compression_ratio", 8)
        self.time = time or _entry(config, "scale_factor_temporal", "temporal_compression_ratio", 4)

    @property
    def multiple(self) -> tuple[int, int]:
        """What height and width must be multiples of, so that films are whole patches of latents."""
        _, rows, columns = self.transformer.config["patch_size"]
        return self.space * rows, self.space * columns

    def latent_shape(self, size: FilmSize) -> tuple[int, int, int, int]:
        """(C, T, h, w) of a film's latents.

        Raises:
            UsageError: there are no latents of this size.
        """
        rows, columns = self.multiple
        if size.frames < 1 or (size.frames - 1) % self.time:
            raise UsageError(f"films have {self.time} k + 1 frames (1 is a picture), not {size.frames}")
        if size.height < 1 or size.width < 1 or size.height % rows or size.width % columns:
            raise UsageError(
                f"films of {size.width}x{size.height} cannot be made: width and height must be multiples of "
                f"{columns} and {rows}"
            )
        channels = self.transformer.config["out_channels"]
        return (
            channels,
            (size.frames - 1) // self.time + 1,
            size.height // self.space,
            size.width // self.space,
        )

    def noise(self, count: int, size: FilmSize, generator: torch.Generator | None = None) -> Tensor:
        """Noise (``count``, C, T, h, w), float32 on the CPU, so that a seed means the same everywhere."""
        return torch.randn((count, *self.latent_shape(size)), generator=generator)

    def fit(self, image: np.ndarray | Image.Image, area: int = 704 * 1280) -> tuple[Tensor, FilmSize]:
        """A first frame as Wan2.2 wants it: resized (Lanczos) to cover the best size, and its centre cut out.

        Args:
            image: of any size.
            area: pixels of a frame, at most.

        Returns:
            Pixels (3, H, W) in [-1, 1], and the size (of one frame) with that aspect.
        """
        picture = opaque(image)
        height, width = best_size(picture.height, picture.width, area, self.multiple)
        scale = max(width / picture.width, height / picture.height)
        covering = round(picture.width * scale), round(picture.height * scale)
        picture = picture.resize(covering, Image.Resampling.LANCZOS)
        left, top = (covering[0] - width) // 2, (covering[1] - height) // 2
        return to_pixels(picture.crop((left, top, left + width, top + height))), FilmSize(1, height, width)

    @torch.no_grad()
    def first_latents(self, pixels: Tensor) -> Tensor:
        """Clean first latent frames (B, C, 1, h, w) of pixels (B, 3, H, W) in [-1, 1]."""
        weight = next(self.vae.parameters())
        return encode(self.vae, pixels[:, :, None].to(weight.device, weight.dtype))

    @torch.no_grad()
    def generate(
        self,
        text: Context,
        avoided: Context,
        noise: Tensor,
        first: Tensor | None = None,
        sampling: Sampling = Sampling(),
        on_step: Callable[[int, Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Latents (B, C, T, h, w) from noise.

        Args:
            text, avoided: contexts of the two branches of guidance (B, L, d_c), or functions of flow time that give
                them (:class:`~unireel.systems.univid.context.TimedContext`).
            noise: from :meth:`noise`; with one latent frame a picture is made.
            first: clean first latent frames, which are kept: image to video.
            sampling, on_step: see :func:`~unireel.flow.sampling.sample`.
        """
        weight = self.transformer.patch_embedding.weight
        if first is not None and first.shape[-2:] != noise.shape[-2:]:
            raise UsageError(
                f"the first frame's latents are {tuple(first.shape[-2:])}, the film's {tuple(noise.shape[-2:])}"
            )
        return sample(
            self.transformer,
            noise.to(weight.device, weight.dtype),
            text,
            avoided,
            steps=sampling.steps,
            guidance=sampling.guidance,
            shift=sampling.shift,
            first=None if first is None else first.to(weight.device, weight.dtype),
            on_step=on_step,
        )

    @torch.no_grad()
    def frames(self, latents: Tensor) -> np.ndarray:
        """Films (B, F, H, W, 3) uint8 of latents."""
        weight = next(self.vae.parameters())
        pixels = decode(self.vae, latents.to(weight.device, weight.dtype)).float()
        return pixels.add(1).mul(127.5).round().byte().permute(0, 2, 3, 4, 1).cpu().numpy()


def best_size(height: int, width: int, area: int, multiple: tuple[int, int]) -> tuple[int, int]:
    """Height and width, multiples of ``multiple``, of at most ``area`` pixels and as near to the aspect as can be.

    Of the sizes that come from rounding the width down and from rounding the height down, that whose aspect is nearer.
    """
    rows, columns = multiple
    wide = math.sqrt(area * width / height)
    candidates = []
    for first in ("width", "height"):
        if first == "width":
            w = max(int(wide // columns) * columns, columns)
            h = max(int(area / w // rows) * rows, rows)
        else:
            h = max(int(area / wide // rows) * rows, rows)
            w = max(int(area / h // columns) * columns, columns)
        candidates.append((h, w))
    return min(candidates, key=lambda size: abs(math.log(size[1] * height / (size[0] * width))))


def _entry(config: object, first: str, second: str, default: int) -> int:
    return int(config.get(first) or config.get(second) or default)  # type: ignore[attr-defined]
