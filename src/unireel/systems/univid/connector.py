"""The connector C_t = g(Z_u, t) of UniVid (eq. 1): from the understanding model's states to the decoder's text context.

Z_u is laid out as [ViT | VAE | text] (:class:`~unireel.backbones.understanding.Features`). Its tokens are brought to
the decoder's context width by convolutions along the sequence that know the flow time. How many tokens come out follows
from how many go in, up to a budget for each kind, beyond which neighbours are averaged. Padding neither changes a token
nor becomes one.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
from torch import Tensor, nn

from unireel.backbones.understanding.interface import Features, Kind

KINDS = (Kind.VIT, Kind.VAE, Kind.TEXT)
TIME_CHANNELS = 256


@dataclass(frozen=True)
class Mix:
    """How much of each visual kind reaches the decoder, in [0, 1] (stage III raises the VAE's share from 0)."""

    vit: float = 1.0
    vae: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.vit <= 1 and 0 <= self.vae <= 1):
            raise ValueError(f"shares of ViT and VAE lie in [0, 1], not {self.vit} and {self.vae}")

    def of(self, kind: Kind) -> float:
        """The share of one kind; text always counts whole."""
        return {Kind.VIT: self.vit, Kind.VAE: self.vae}.get(kind, 1.0)


WHOLE = Mix()
"""Everything there is."""


@dataclass(frozen=True)
class Conditions:
    """C_t: ``tokens`` (B, M, d_c), zero where ``mask`` (B, M) bool is False."""

    tokens: Tensor
    mask: Tensor


class TimedConvolution(nn.Module):
    """A residual block: depthwise convolution along the tokens, then a perceptron; time scales, shifts and gates.

    Gates start at zero, so that the block starts as the identity (as in DiT, arXiv 2212.09748).
    """

    def __init__(self, width: int, kernel: int, time: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(time, 3 * width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, tokens: Tensor, mask: Tensor, time: Tensor) -> Tensor:
        """Tokens (B, M, D), zero where ``mask`` (B, M, 1) is; ``time`` (B, time)."""
        shift, scale, gate = self.modulation(F.silu(time))[:, None].chunk(3, dim=-1)
        seen = self.convolution(tokens.mT).mT
        seen = self.norm(seen) * (1 + scale) + shift
        return (tokens + gate * self.contract(F.gelu(self.expand(seen)))) * mask


class Connector(ModelMixin, ConfigMixin):
    """g(Z_u, t), convolutional and time-indexed.

    Args:
        width: D, of Z_u.
        context_width: d_c, of the decoder's text context (4096 for Wan).
        hidden: channels of the convolutions.
        layers, kernel: how many, and over how many tokens (odd).
        vit_tokens, vae_tokens, text_tokens: the budgets.
        latent_width: channels of latent tokens that are given beside Z_u (see :meth:`forward`), 0 for none.
        time_width: channels of the flow time's embedding, by default as many as ``hidden``; all that depends on it is a
            curve, which few of them describe.
        scale: standard deviation of the tokens that come out at the start; that of the context the decoder knows.
    """

    _no_split_modules = ["TimedConvolution"]  # noqa: RUF012 - as the library has it
    _repeated_blocks = ["TimedConvolution"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        width: int,
        context_width: int = 4096,
        hidden: int = 1024,
        layers: int = 4,
        kernel: int = 5,
        vit_tokens: int = 96,
        vae_tokens: int = 96,
        text_tokens: int = 160,
        latent_width: int = 0,
        scale: float = 1.0,
        time_width: int | None = None,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0 or min(vit_tokens, vae_tokens, text_tokens) < 1:
            raise ValueError("the connector's kernel must be odd and its budgets at least 1")
        self.budgets = {Kind.VIT: vit_tokens, Kind.VAE: vae_tokens, Kind.TEXT: text_tokens}
        self.norm_in = nn.LayerNorm(width)
        self.read = nn.Linear(width, hidden)
        self.read_latents = nn.Linear(latent_width, hidden) if latent_width else None
        self.kind = nn.Embedding(len(KINDS), hidden)
        timed = time_width or hidden
        self.time = TimestepEmbedding(TIME_CHANNELS, timed)
        self.blocks = nn.ModuleList([TimedConvolution(hidden, kernel, timed) for _ in range(layers)])
        self.norm_out = nn.LayerNorm(hidden)
        self.write = nn.Linear(hidden, context_width)
        nn.init.normal_(self.kind.weight, std=0.02)
        nn.init.normal_(self.write.weight, std=scale / hidden**0.5)
        nn.init.zeros_(self.write.bias)

    def forward(
        self,
        features: Features,
        time: Tensor,
        latents: Tensor | None = None,
        mix: Mix = WHOLE,
        given: Tensor | None = None,
    ) -> Conditions:
        """C_t for each sample.

        Args:
            features: Z_u.
            time: flow time (B,) in [0, 1], 1 is noise.
            latents: for understanding models that do not read images through an autoencoder: latent tokens
                (B, n, ``latent_width``) of the reference image, which become the VAE block.
            mix: shares of the visual blocks, of what goes in and of what comes out; one with share 0 is left out.
            given: which rows have latents (B,) bool; all by default.

        Returns:
            M tokens, laid out as Z_u is.
        """
        states = self.read(self.norm_in(features.states.to(self.read.weight.dtype)))
        kinds = features.kinds
        if latents is not None:
            if self.read_latents is None:
                raise ValueError("this connector was made without latent_width: it takes no latents")
            states = torch.cat([states, self.read_latents(latents.to(states.dtype))], dim=1)
            added = kinds.new_full(latents.shape[:2], int(Kind.VAE))
            if given is not None:
                added[~given] = int(Kind.PADDING)
            kinds = torch.cat([kinds, added], dim=1)
        kept = [kind for kind in KINDS if mix.of(kind) > 0]
        pooled = [pool(states, kinds == kind, self.budgets[kind]) for kind in kept]
        blocks = [block + self.kind.weight[kind] for kind, (block, _) in zip(kept, pooled, strict=True)]
        shares = [
            block.new_full((*block.shape[:2], 1), mix.of(kind))
            for kind, block in zip(kept, blocks, strict=True)
        ]
        there = torch.cat([inside for _, inside in pooled], dim=1)
        tokens, mask = gather(torch.cat(blocks, dim=1), there)
        share, _ = gather(torch.cat(shares, dim=1), there)
        tokens, present = tokens * share, mask[..., None].to(tokens.dtype)
        waves = get_timestep_embedding(
            1000 * time.float(), TIME_CHANNELS, flip_sin_to_cos=True, downscale_freq_shift=0
        )
        when = self.time(waves.to(tokens.dtype))
        for block in self.blocks:
            tokens = block(tokens, present, when)
        # The norm has undone the shares: they count again, so that a block fades to the zeros of the padding.
        return Conditions(self.write(self.norm_out(tokens)) * share, mask)


def pool(states: Tensor, mask: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """The masked tokens of each row in their order, as they are, or averaged in groups of neighbours to ``budget``.

    The n-th of N tokens falls into group floor(n M / N) of M = min(N, budget).

    Args:
        states: (B, N, D).
        mask: (B, N) bool.

    Returns:
        Tokens (B, M, D), M the largest of the batch, zero where the returned mask (B, M) is False.
    """
    counts = mask.sum(1)
    sizes = counts.clamp(max=budget)
    largest = int(sizes.max())
    place = mask.cumsum(1) - 1
    group = torch.where(mask, place * sizes[:, None] // counts.clamp(min=1)[:, None], largest)
    groups = F.one_hot(group, largest + 1)[..., :largest].to(states.dtype)  # (B, N, M)
    weights = groups / groups.sum(1, keepdim=True).clamp(min=1)
    inside = torch.arange(largest, device=mask.device) < sizes[:, None]
    return weights.mT @ states, inside


def gather(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move each row's masked tokens to its beginning, in their order, and cut what no row uses; zero elsewhere."""
    order = (~mask).int().argsort(dim=1, stable=True)
    mask = mask.gather(1, order)
    most = int(mask.sum(1).max())
    order, mask = order[:, :most], mask[:, :most]
    moved = tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[2]))
    return moved * mask[..., None].to(tokens.dtype), mask
