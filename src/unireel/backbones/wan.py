"""The pocket video DiT: diffusers' Wan transformer at small sizes, with per-token time for clean first frames."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

from typing import Literal

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

Prediction = Literal["velocity", "data"]
PLACE_WAVES, TIME_WAVES = 4, 2
COORDINATES = 3 + 4 * PLACE_WAVES + 2 * TIME_WAVES
"""Channels that pocket models take beside the latents, see :func:`with_coordinates`."""

LEAST_TIME = 0.05
"""Flow time below which a velocity is computed from predicted data as if at this time."""


def pocket_transformer(
    width: int, layers: int, heads: int, ffn: int, latent_channels: int, patch: int, text_width: int
) -> WanTransformer3DModel:
    """A Wan transformer (arXiv 2503.20314) on patches of (1, ``patch``, ``patch``), with coordinate channels."""
    return WanTransformer3DModel(
        patch_size=(1, patch, patch),
        num_attention_heads=heads,
        attention_head_dim=width // heads,
        in_channels=latent_channels + COORDINATES,
        out_channels=latent_channels,
        text_dim=text_width,
        freq_dim=128,
        ffn_dim=ffn,
        num_layers=layers,
        cross_attn_norm=True,
        rope_max_seq_len=256,
    )


class MatmulAttention:
    """Wan's attention (text and self) written as two matrix products and a float32 softmax.

    A processor for diffusers' ``WanAttention``, same weights, same result. PyTorch's fused attention is slow on
    processors at the lengths of pocket films, most of all backwards in bfloat16: this takes a fifth off a step of
    training, and a compiler fuses all of it but the products.
    """

    _attention_backend = None
    _parallel_config = None

    def __init__(self, watched: int | None = None) -> None:
        """``watched`` is the head whose weights (B, N, L) of the latest call are kept in :attr:`seen`."""
        self.watched = watched
        self.seen: Tensor | None = None

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend from ``hidden_states`` (B, N, D) to themselves or to ``encoder_hidden_states`` (B, L, D)."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(context))
        query, key, value = (each.unflatten(2, (attn.heads, -1)) for each in (query, key, attn.to_v(context)))
        if rotary_emb is not None:
            query, key = (_rotate(each, *rotary_emb) for each in (query, key))
        query, key, value = (each.transpose(1, 2) for each in (query, key, value))
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        weights = self.limited(scores.float()).softmax(-1)
        if self.watched is not None:
            self.seen = weights[:, self.watched]
        weights = weights.to(value.dtype)
        return attn.to_out[0]((weights @ value).transpose(1, 2).flatten(2))

    def limited(self, scores: Tensor) -> Tensor:
        """``scores`` (B, heads, N, L) with minus infinity where nothing may be seen: everything may."""
        return scores


def _rotate(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn neighbouring pairs of channels of (B, N, heads, D) by the angles of each place."""
    one, two = states.unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = cosine[..., 0::2], sine[..., 1::2]
    return torch.stack((one * cosine - two * sine, one * sine + two * cosine), -1).flatten(-2).type_as(states)


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


def embed_times_by_frame(model: WanTransformer3DModel, tokens_per_frame: int) -> None:
    """Let ``model`` embed times given per token once for each latent frame: same result, a fraction of the work.

    All tokens of a latent frame must have the same time, as those of :func:`token_times` have.
    """
    embedder = model.condition_embedder
    stock = embedder.forward

    def forward(
        timestep: Tensor, text: Tensor, image: Tensor | None = None, timestep_seq_len: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        if timestep_seq_len is None:
            return stock(timestep, text, image)
        frames = timestep_seq_len // tokens_per_frame
        first = timestep.view(-1, tokens_per_frame)[:, 0]
        time, modulation, words, picture = stock(first, text, image, timestep_seq_len=frames)
        time, modulation = (each.repeat_interleave(tokens_per_frame, 1) for each in (time, modulation))
        return time, modulation, words, picture

    embedder.forward = forward  # pyright: ignore[reportAttributeAccessIssue]


def waves(position: Tensor, count: int) -> Tensor:
    """Cosines and sines of ``count`` half-waves over positions from 0 to 1: (...) to (..., 2 * ``count``).

    The product of two places' waves is a bump around their distance 0, so that attention finds a place by one product.
    """
    angles = torch.pi * position[..., None] * torch.arange(1, count + 1, device=position.device)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def with_coordinates(latents: Tensor, channels: int) -> Tensor:
    """Append constant channels with each latent's place, up to ``channels``: (B, C, T, h, w) to (B, channels, ...).

    Rotary positions are relative, so that tokens of pure noise could not tell a corner from the centre; large models
    pick absolute places up from content, a pocket model has to be told. The channels: time, counting latent frames / 4
    from 0; height and width, from -1 to 1; then the :func:`waves` of height, width and time.
    """
    batch, own, frames, height, width = latents.shape
    if channels == own:
        return latents
    axes = [torch.linspace(0, 1, each, device=latents.device) for each in (height, width)]
    axes = [torch.arange(frames, device=latents.device) / 4, *axes]
    t, y, x = torch.meshgrid(*axes, indexing="ij")
    plain = torch.stack([t, 2 * y - 1, 2 * x - 1], dim=-1)
    places = torch.cat([plain, waves(y, PLACE_WAVES), waves(x, PLACE_WAVES), waves(t, TIME_WAVES)], dim=-1)
    added = places[..., : channels - own].permute(3, 0, 1, 2).to(latents)
    return torch.cat([latents, added.expand(batch, -1, -1, -1, -1)], dim=1)


def predict(model: nn.Module, latents: Tensor, time: Tensor, text: Tensor) -> Tensor:
    """What the network puts out at ``latents`` (B, C, T, h, w), with coordinates added for models that take them.

    Args:
        time: on the scale of 0 to 1000, (B,) or per token (B, N), see :func:`token_times`.
        text: states (B, L, D), padding zero.
    """
    inputs = with_coordinates(latents, model.config["in_channels"])
    return model(hidden_states=inputs, timestep=time, encoder_hidden_states=text, return_dict=False)[0]


def predict_velocity(
    model: nn.Module, latents: Tensor, time: Tensor, text: Tensor, prediction: Prediction = "velocity"
) -> Tensor:
    """The model's velocity at ``latents``; arguments as in :func:`predict`.

    ``prediction`` is what the network puts out. A velocity holds the noise: where a token has about as many dimensions
    as the network is wide, carrying it through fills the residual stream. Such networks predict the "data" instead
    (arXiv 2511.13720), from which the velocity follows as (latents - data) / t, with t at least :data:`LEAST_TIME`.
    """
    output = predict(model, latents, time, text)
    return output if prediction == "velocity" else velocity_from(latents, output, time)


def velocity_from(latents: Tensor, data: Tensor, time: Tensor) -> Tensor:
    """The velocity of the straight path from ``latents`` to ``data``; ``time`` as in :func:`predict_velocity`."""
    per_frame = time.view(len(time), latents.shape[2], -1)[..., 0] if time.ndim == 2 else time[:, None]
    return (latents - data) / (per_frame / 1000).clamp_min(LEAST_TIME)[:, None, :, None, None]
