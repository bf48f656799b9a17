"""The pocket video DiT: diffusers' Wan transformer at small sizes, with per-token time for clean first frames."""

from __future__ import annotations

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor


def pocket_transformer(
    width: int, layers: int, heads: int, ffn: int, latent_channels: int, patch: int, text_width: int
) -> WanTransformer3DModel:
    """A Wan transformer (arXiv 2503.20314) on patches of (1, ``patch``, ``patch``), with coordinate channels."""
    return WanTransformer3DModel(
        patch_size=(1, patch, patch),
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=latent_channels + 3,
        out_channels=latent_channels,
        text_dim=text_width,
        freq_dim=128,
        ffn_dim=ffn,
        num_layers=layers,
        cross_attn_norm=True,
        rope_max_seq_len=256,
    )


def token_times(time: Tensor, clean_first: Tensor, latent_frames: int, tokens_per_frame: int) -> Tensor:
    """The model's time input per token, as TI2V decoders take it: (B, N) with N = T * tokens per frame.

    Args:
        time: flow time in [0, 1] of each sample, (B,); 1 is noise.
        clean_first: which samples have a clean first latent frame (time 0 there), (B,) bool.
        latent_frames: T.
        tokens_per_frame: tokens of one latent frame.

    Returns:
        time * 1000, the scale on which Wan models are trained.
    """
    times = time[:, None].expand(-1, latent_frames).clone()
    times[:, 0] = torch.where(clean_first, torch.zeros_like(time), time)
    return (1000 * times).repeat_interleave(tokens_per_frame, dim=1)


def add_coordinates(latents: Tensor) -> Tensor:
    """Append three constant channels with the place of each latent: (B, C, T, h, w) to (B, C + 3, T, h, w).

    Rotary positions are relative, so that tokens of pure noise could not tell a corner from the centre; large models
    pick absolute places up from content, a pocket model has to be told. Time counts latent frames / 4 from 0; height
    and width run from -1 to 1.
    """
    batch, _, frames, height, width = latents.shape
    axes = (torch.arange(frames) / 4, torch.linspace(-1, 1, height), torch.linspace(-1, 1, width))
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).to(latents)
    return torch.cat([latents, grid.expand(batch, -1, -1, -1, -1)], dim=1)


def predict_velocity(model: torch.nn.Module, latents: Tensor, time: Tensor, text: Tensor) -> Tensor:
    """The model's velocity at ``latents`` (B, C, T, h, w), with coordinates added for models that take them.

    Args:
        time: on the scale of 0 to 1000, (B,) or per token (B, N), see :func:`token_times`.
        text: states (B, L, D), padding zero.
    """
    config = model.config  # type: ignore[attr-defined]
    if config["in_channels"] == config["out_channels"] + 3:
        latents = add_coordinates(latents)
    return model(hidden_states=latents, timestep=time, encoder_hidden_states=text, return_dict=False)[0]
