"""Batches of the World: scenes and their pixels as tensors."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportReturnType=false

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from unireel.world.render import render_frames
from unireel.world.sampling import MIXTURE, sample_scene
from unireel.world.scene import Scene


def scenes(
    seed: int, start: int, count: int, size: int, split: str = "train", category: str = MIXTURE
) -> list[Scene]:
    """Scenes number ``start`` to ``start + count - 1`` of the sequence that belongs to ``seed`` and ``split``."""
    return [sample_scene(seed, start + i, split, category, size) for i in range(count)]


def films(batch: list[Scene]) -> np.ndarray:
    """Render scenes of equal length and size: (B, F, H, W, 3) uint8."""
    return np.stack([render_frames(scene) for scene in batch])


def to_pixels(frames: np.ndarray) -> Tensor:
    """Frames (B, F, H, W, 3) uint8 to what the video autoencoders take: (B, 3, F, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 4, 1, 2, 3).float().div(127.5).sub(1)


def to_frames(pixels: Tensor) -> np.ndarray:
    """The inverse of :func:`to_pixels`, with rounding and clipping: (B, F, H, W, 3) uint8."""
    scaled = pixels.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    return scaled.permute(0, 2, 3, 4, 1).cpu().numpy()


def foreground(frames: np.ndarray, threshold: float = 26.0) -> np.ndarray:
    """Pixels that are not background: (B, F, H, W) bool.

    A pixel is foreground where it differs from its film's median colour by more than ``threshold`` 8-bit steps in any
    channel, which is more than the background's texture does.
    """
    median = np.median(frames[:, ::4, ::3, ::3], axis=(1, 2, 3), keepdims=True)
    return (np.abs(frames.astype(np.float32) - median) > threshold).any(-1)


def changing(frames: np.ndarray, threshold: float = 26.0, block: int = 4) -> np.ndarray:
    """Pixels that change by more than ``threshold`` within their block of frames: (B, F, H, W) bool.

    Blocks are those of a causal autoencoder: the first frame alone (never changing), then ``block`` frames each.
    """
    batch, count, height, width, _ = frames.shape
    rest = frames[:, 1:].reshape(batch, (count - 1) // block, block, height, width, 3)
    moved = (rest.max(2).astype(np.int16) - rest.min(2) > threshold).any(-1)
    return np.concatenate([np.zeros_like(moved[:, :1]), moved.repeat(block, axis=1)], axis=1)


def psnr(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB over all but the first axis, for uint8 arrays of equal shape (B, ...): (B,)."""
    error = (one.astype(np.float64) - two.astype(np.float64)) ** 2
    return 10 * np.log10(255.0**2 / np.maximum(error.reshape(len(one), -1).mean(1), 1e-10))
