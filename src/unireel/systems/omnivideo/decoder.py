"""The video decoder of Omni-Video: a Wan transformer on a masked context; a source film comes in, or is copied.

An edited film is mostly its source. A gate, as of pointer-generator networks (arXiv 1704.04368), says for each latent
how much of it is the source's, so that the network draws only what changes.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import copy
from typing import Any, Literal, NamedTuple

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from unireel.backbones.context_mask import ContextMask
from unireel.backbones.wan import LEAST_TIME, Prediction, velocity_from, with_coordinates
from unireel.systems.omnivideo.context import Context

Route = Literal["tokens", "frames", "channels"]
"""How a source film comes in: as tokens of the context (the paper's); as clean frames before the noisy ones, which all
attention sees (UniVideo's, arXiv 2510.08377); or as more channels of the noisy frames (InstructPix2Pix's, arXiv
2211.09800), for which :func:`widen` makes room. Without a source the frames are zeros at time 1, the channels zeros."""

COLUMN_SCALE = 0.15
"""Standard deviation of the weights of new channels: from zeros they hardly grow beside noise (docs/log.md, run 16)."""


def widen(transformer: WanTransformer3DModel, seed: int = 0, channels: int | None = None) -> None:
    """Let a decoder take the ``channels`` latents (by default as many as it puts out) of a source, in place."""
    old: Any = transformer.patch_embedding
    more = channels or transformer.config["out_channels"]
    new = nn.Conv3d(old.in_channels + more, old.out_channels, old.kernel_size, old.stride)
    added = torch.randn(
        (old.out_channels, more, *old.kernel_size), generator=torch.Generator().manual_seed(seed)
    )
    new.weight.data = torch.cat([old.weight.detach(), COLUMN_SCALE * added.to(old.weight)], dim=1)
    new.bias = nn.Parameter(old.bias.detach().clone())
    transformer.patch_embedding = new
    transformer.register_to_config(in_channels=old.in_channels + more)


def add_gate(transformer: WanTransformer3DModel) -> None:
    """Let a decoder put out one more channel, the logits of what is copied, in place; at first it copies half."""
    old, config = transformer.proj_out, transformer.config
    channels, patch = config["out_channels"], config["patch_size"]
    count = patch[0] * patch[1] * patch[2]
    weight = old.weight.detach().view(count, channels, -1)
    bias = old.bias.detach().view(count, channels)
    new = nn.Linear(old.in_features, count * (channels + 1))
    new.weight.data = torch.cat([weight, torch.zeros_like(weight[:, :1])], dim=1).flatten(0, 1)
    new.bias.data = torch.cat([bias, torch.zeros_like(bias[:, :1])], dim=1).flatten()
    transformer.proj_out = new
    transformer.register_to_config(out_channels=channels + 1)


def editor_of(
    transformer: WanTransformer3DModel, route: Route, copies: bool, seed: int = 0
) -> WanTransformer3DModel:
    """A decoder of edits that starts as ``transformer``, which stays as it is."""
    editor = copy.deepcopy(transformer)
    if route == "channels":
        widen(editor, seed)
    if copies:
        add_gate(editor)
    return editor


class Drawn(NamedTuple):
    """What a decoder puts out (B, C, T, h, w), and if its gate acted its logits (B, 1, T, h, w) and what it let in."""

    output: Tensor
    copied: Tensor | None = None
    drawn: Tensor | None = None


class Decoder:
    """A Wan transformer, or two: one that makes films from words, and one that edits.

    Args:
        transformer: diffusers', at any size; its cross-attention learns to heed masks.
        prediction: what it puts out, see :func:`~unireel.backbones.wan.predict_velocity`.
        route: how source films come in.
        copies: whether what reads source films has a gate (:func:`add_gate`) on what it copies of them.
        sharpness, caution: of the gate, see :class:`~unireel.systems.omnivideo.settings.Settings`.
        editor: reads source films in place of ``transformer``, which then knows of none.
    """

    def __init__(
        self,
        transformer: WanTransformer3DModel,
        prediction: Prediction = "velocity",
        route: Route = "tokens",
        copies: bool = False,
        editor: WanTransformer3DModel | None = None,
        sharpness: float = 1.0,
        caution: float = 0.0,
    ) -> None:
        self.transformer, self.prediction, self.route = transformer, prediction, route
        self.copies, self.editor = copies, editor
        self.sharpness, self.caution = sharpness, caution
        self.mask = ContextMask(transformer)
        self.editor_mask = self.mask if editor is None else ContextMask(editor)

    def draw(
        self,
        state: Tensor,
        times: Tensor,
        context: Context,
        source: Tensor | None = None,
        given: Tensor | None = None,
    ) -> Drawn:
        """What the network puts out, with what is copied in its place.

        Args:
            state: (B, C, T, h, w).
            times: on the scale of 0 to 1000, (B,), or of each latent frame, (B, T).
            context: see :class:`~unireel.systems.omnivideo.context.Assembler`.
            source: latents of the source films (B, C, T', h, w); T' is T if they are copied or come in as channels.
            given: which samples have one, (B,) bool; all by default. The others copy nothing.
        """
        edits = source is not None and self.editor is not None
        network: Any = self.editor if edits else self.transformer
        mask = self.editor_mask if edits else self.mask
        reads = edits or self.editor is None
        config = network.config
        channels, frames = state.shape[1:3]
        flow_times = times
        beside = channels if reads and self.route == "channels" else 0
        inputs = with_coordinates(state, config["in_channels"] - beside)
        given = torch.ones(len(state), dtype=torch.bool) if given is None else given
        given = given.to(state.device) if source is not None else torch.zeros_like(given, device=state.device)
        slots = torch.zeros_like(state) if source is None else source * given.view(-1, 1, 1, 1, 1)
        if beside:
            inputs = torch.cat([inputs, slots.to(inputs)], dim=1)
        if reads and self.route == "frames":
            inputs = torch.cat([with_coordinates(slots, config["in_channels"]), inputs], dim=2)
            times = times[:, None].expand(-1, frames) if times.ndim == 1 else times
            free = torch.where(given, 0.0, 1000.0).to(times)[:, None].expand(-1, slots.shape[2])
            times = torch.cat([free, times], dim=1)
        if times.ndim == 2:
            _, rows, columns = config["patch_size"]
            tokens = (state.shape[3] // rows) * (state.shape[4] // columns)
            times = times.repeat_interleave(tokens, dim=1)
        with mask.of(context.mask):
            output = network(
                hidden_states=inputs,
                timestep=times,
                encoder_hidden_states=context.tokens,
                return_dict=False,
            )[0][:, :, -frames:]
        if source is None or not self.copies:
            return Drawn(output[:, :channels])
        # m source + (1 - m) drawn, m = 0 without a source; of data, or of the velocities towards both.
        logits = output[:, channels:].float()
        late = flow_times / 1000 if flow_times.ndim == 2 else flow_times[:, None] / 1000  # (B, T or 1)
        decided = self.sharpness * (logits - self.caution * late[:, None, :, None, None])
        share = decided.sigmoid() * given.view(-1, 1, 1, 1, 1)
        kept = source if self.prediction == "data" else velocity_from(state, source, flow_times)
        return Drawn(share * kept + (1 - share) * output[:, :channels], logits, output[:, :channels])

    def output(
        self,
        state: Tensor,
        times: Tensor,
        context: Context,
        source: Tensor | None = None,
        given: Tensor | None = None,
    ) -> Tensor:
        """What :meth:`draw` puts out, (B, C, T, h, w)."""
        return self.draw(state, times, context, source, given).output

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
