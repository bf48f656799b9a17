"""Video autoencoders behind one pair of functions: pixels to normalised latents and back.

Every diffusers video autoencoder whose configuration has ``latents_mean`` and ``latents_std`` (Wan, Cosmos, ...) works.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCosmos
from torch import Tensor, nn

STILL_SHOWN = 0.25
"""Difference of two pixels in [-1, 1] up to which they count as showing the same, see :func:`decode`."""


def pocket_autoencoder(
    encoder_width: int, decoder_width: int, latent_channels: int, layers: int
) -> AutoencoderKLCosmos:
    """A causal 3D autoencoder of compression 4 x 4 in space and 4 in time (17 frames to 5), deterministic.

    Cosmos' tokenizer (arXiv 2501.03575) in small: blocks of 4 x 4 x 4 pixels become channels at once, so that all
    convolutions run on a sixty-fourth of the positions; each is factorised into space and time.
    """
    return AutoencoderKLCosmos(
        latent_channels=latent_channels,
        encoder_block_out_channels=(encoder_width, encoder_width),
        decode_block_out_channels=(decoder_width, decoder_width),
        attention_resolutions=(),
        num_layers=layers,
        patch_size=4,
        patch_type="rearrange",
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
        latents_mean=[0.0] * latent_channels,
        latents_std=[1.0] * latent_channels,
    )


def encode(vae: nn.Module, pixels: Tensor) -> Tensor:
    """Pixels (B, 3, F, H, W) in [-1, 1], F = 4 k + 1, to normalised latents (B, C, T, h, w), T = k + 1."""
    mean, std = statistics(vae, pixels)
    return (vae.encode(pixels).latent_dist.mode() - mean) / std


def decode(vae: nn.Module, latents: Tensor, first: Tensor | None = None) -> Tensor:
    """Normalised latents (B, C, T, h, w) to pixels (B, 3, F, H, W) in [-1, 1] (clamped).

    Args:
        first: first frames (B, 3, 1, H, W) in [-1, 1] that the films were made from. What the autoencoder lost of them
            is given back, to the first frame wholly, and to later ones where they still look like that, the more the
            more they do (up to a difference of :data:`STILL_SHOWN`, the largest of channels and neighbours).
    """
    mean, std = statistics(vae, latents)
    pixels = vae.decode(latents * std + mean).sample.clamp(-1, 1)
    if first is None:
        return pixels
    shown = pixels[:, :, :1]
    lost = first.to(pixels) - shown
    return (pixels + lost * alike(pixels, shown, STILL_SHOWN)).clamp(-1, 1)


def alike(one: Tensor, two: Tensor, within: float, frames: int = 1) -> Tensor:
    """How much two films (B, 3, F, H, W), or a film and a picture, show the same: (B, 1, F, H, W) in [0, 1].

    Args:
        within: the difference from which on it is 0, the largest of the channels and of the 3 x 3 pixels around.
        frames: an odd number of frames, around each, in which that is looked for.
    """
    apart = (one - two).abs().amax(1, keepdim=True)
    apart = F.max_pool3d(apart, (frames, 3, 3), stride=1, padding=(frames // 2, 1, 1))
    return (1 - apart / within).clamp_min(0)


def latent_frames(frames: int, compression: int = 4) -> int:
    """How many latent frames a film of ``frames`` frames (a multiple of ``compression``, plus 1) has."""
    return (frames - 1) // compression + 1


def statistics(vae: nn.Module, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents' channels, (1, C, 1, 1, 1), of the kind of ``like``."""
    config = vae.config  # type: ignore[attr-defined]
    mean, std = (torch.tensor(each, device=like.device, dtype=like.dtype) for each in
                 (config["latents_mean"], config["latents_std"]))  # fmt: skip
    return mean.view(1, -1, 1, 1, 1), std.view(1, -1, 1, 1, 1)
