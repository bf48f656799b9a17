"""The video decoder of Omni-Video: a Wan transformer on a masked context; a source film comes in one of two ways."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import Any, Literal

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from unireel.backbones.context_mask import ContextMask
from unireel.backbones.wan import LEAST_TIME, Prediction, with_coordinates
from unireel.systems.omnivideo.context import Context

Route = Literal["tokens", "frames", "channels"]
"""How a source film comes in: as tokens of the context (the paper's); as clean frames before the noisy ones, which all
attention sees (UniVideo's, arXiv 2510.08377); or as more channels of the noisy frames (InstructPix2Pix's, arXiv
2211.09800), for which :func:`widen` makes room. Without a source the frames are zeros at time 1, the channels zeros."""

COLUMN_SCALE = 0.15
"""Standard deviation of the weights of new channels: from zeros they hardly grow beside noise (docs/log.md, run 16)."""


def widen(transformer: WanTransformer3DModel, seed: int = 0) -> None:
    """Let a decoder take the latents of a source beside its own input, in place; what is known stays."""
    old: Any = transformer.patch_embedding
    more = transformer.config["out_channels"]
    new = nn.Conv3d(old.in_channels + more, old.out_channels, old.kernel_size, old.stride)
    added = torch.randn(
        (old.out_channels, more, *old.kernel_size), generator=torch.Generator().manual_seed(seed)
    )
    new.weight.data = torch.cat([old.weight.detach(), COLUMN_SCALE * added.to(old.weight)], dim=1)
    new.bias = nn.Parameter(old.bias.detach().clone())
    transformer.patch_embedding = new
    transformer.register_to_config(in_channels=old.in_channels + more)


class Decoder:
    """A Wan transformer.

    Args:
        transformer: diffusers', at any size; its cross-attention learns to heed masks.
        prediction: what it puts out, see :func:`~unireel.backbones.wan.predict_velocity`.
        route: how source films come in.
    """

    def __init__(
        self, transformer: WanTransformer3DModel, prediction: Prediction = "velocity", route: Route = "tokens"
    ) -> None:
        self.transformer, self.prediction, self.route = transformer, prediction, route
        self.mask = ContextMask(transformer)

    def output(
        self,
        state: Tensor,
        times: Tensor,
        context: Context,
        source: Tensor | None = None,
        given: Tensor | None = None,
    ) -> Tensor:
        """What the network puts out, (B, C, T, h, w).

        Args:
            state: (B, C, T, h, w).
            times: on the scale of 0 to 1000, (B,), or of each latent frame, (B, T).
            context: see :class:`~unireel.systems.omnivideo.context.Assembler`.
            source: for the routes "frames" and "channels", latents of the source films (B, C, T', h, w).
            given: which samples have one, (B,) bool; all by default.
        """
        config = self.transformer.config
        frames = state.shape[2]
        beside = config["out_channels"] if self.route == "channels" else 0
        inputs = with_coordinates(state, config["in_channels"] - beside)
        given = torch.ones(len(state), dtype=torch.bool) if given is None else given
        given = given.to(state.device) if source is not None else torch.zeros_like(given, device=state.device)
        slots = torch.zeros_like(state) if source is None else source * given.view(-1, 1, 1, 1, 1)
        if self.route == "channels":
            inputs = torch.cat([inputs, slots.to(inputs)], dim=1)
        if self.route == "frames":
            inputs = torch.cat([with_coordinates(slots, config["in_channels"]), inputs], dim=2)
            times = times[:, None].expand(-1, frames) if times.ndim == 1 else times
            free = torch.where(given, 0.0, 1000.0).to(times)[:, None].expand(-1, slots.shape[2])
            times = torch.cat([free, times], dim=1)
        if times.ndim == 2:
            _, rows, columns = config["patch_size"]
            tokens = (state.shape[3] // rows) * (state.shape[4] // columns)
            times = times.repeat_interleave(tokens, dim=1)
        with self.mask.of(context.mask):
            output = self.transformer(
                hidden_states=inputs,
                timestep=times,
                encoder_hidden_states=context.tokens,
                return_dict=False,
            )[0]
        return output[:, :, -frames:]

    def velocity(
        self,
        state: Tensor,
        time: Tensor,
        sigma: Tensor,
        context: Context,
        source: Tensor | None = None,
        given: Tensor | None = None,
        first: bool = False,
    ) -> Tensor:
        """The velocity at ``state`` for sampling.

        Args:
            time, sigma: see :func:`~unireel.systems.omnivideo.sampling.integrate`.
            first: whether the first latent frame is clean and given.
        """
        times = time.expand(len(state)).to(state.device)
        if first:
            times = times[:, None].repeat(1, state.shape[2])
            times[:, 0] = 0
        output = self.output(state, times, context, source, given)
        if self.prediction == "velocity":
            return output
        return (state - output) / sigma.clamp_min(LEAST_TIME)
