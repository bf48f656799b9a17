"""A block of Wan that moves two streams, film and text, through one attention and two feed-forward layers."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unireel.backbones.uni_rows import Apart, Rows, Turn

TextFFN = Literal["own", "shared"]


class Passed(NamedTuple):
    """What a block gets and gives besides the words of :meth:`UniBlock.streams`: tensors, so that whoever watches calls
    of modules (FSDP, which gathers a block's weights; checkpointing) sees them all. The film's first where there are
    two."""

    states: tuple[Tensor | None, Tensor | None]
    modulations: tuple[Tensor | None, Tensor | None]
    turns: tuple[Turn | None, Turn | None]
    context: Tensor
    mask: Tensor | Apart | None
    past: tuple[Tensor, Tensor] | None


class UniBlock(WanTransformerBlock):
    """A block of Wan with a feed-forward layer and a modulation table for text.

    Called as diffusers' class it moves the film alone; :meth:`streams` moves both.

    Attributes:
        checkpointing: whether :meth:`streams` keeps its inputs alone for the backward pass, which computes it again.
    """

    checkpointing = False

    def __init__(
        self,
        dim: int,
        ffn_dim: int,
        heads: int,
        text_ffn: TextFFN,
        cross_attn_norm: bool,
        eps: float,
        text_ffn_dim: int = 0,
    ) -> None:
        super().__init__(dim, ffn_dim, heads, cross_attn_norm=cross_attn_norm, eps=eps)
        hidden = text_ffn_dim or ffn_dim
        own = text_ffn == "own"
        self.ffn_t = FeedForward(dim, inner_dim=hidden, activation_fn="gelu-approximate") if own else None
        self.norm3_t = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.scale_shift_table_t = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def streams(
        self,
        video: Rows | None,
        text: Rows | None,
        context: Tensor,
        mask: Tensor | Apart | None,
        past: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """Move the rows in place; returns keys and values (B, n, heads, d) of all of them, the film's first.

        Args:
            context: what all rows read by cross-attention, (B, L, D).
            mask: (B, 1, rows, keys) bool, or the same in two parts; None where every row reads every key.
            past: keys and values that come before those of the rows.
        """
        both = (video, text)
        passed = Passed(
            tuple(None if rows is None else rows.states for rows in both),
            tuple(None if rows is None else rows.modulation for rows in both),
            tuple(None if rows is None else rows.turn for rows in both),
            context,
            mask,
            past,
        )
        again = self.checkpointing and torch.is_grad_enabled()
        moved, kept = checkpoint(self, passed, use_reentrant=False) if again else self(passed)
        for rows, states in zip(both, moved, strict=True):
            if rows is not None:
                rows.states = states
        return kept

    def forward(
        self,
        hidden_states: Tensor | Passed,
        encoder_hidden_states: Tensor | None = None,
        temb: Tensor | None = None,
        rotary_emb: Any = None,
    ) -> Any:
        """As diffusers' class, or for :meth:`streams`: what it passes, to the moved states, keys and values."""
        if isinstance(hidden_states, Passed):
            return self._move(hidden_states)
        return super().forward(hidden_states, encoder_hidden_states, temb, rotary_emb)

    def _move(self, passed: Passed) -> tuple[tuple[Tensor | None, Tensor | None], tuple[Tensor, Tensor]]:
        text_ffn = self.ffn if self.ffn_t is None else self.ffn_t
        own = [
            (states, (table[:, None] + modulation.float()).unbind(2), norm, ffn)
            for states, modulation, table, norm, ffn in zip(
                passed.states,
                passed.modulations,
                (self.scale_shift_table, self.scale_shift_table_t),
                (self.norm3, self.norm3_t),
                (self.ffn, text_ffn),
                strict=True,
            )
            if states is not None and modulation is not None
        ]
        lengths = [states.shape[1] for states, *_ in own]
        # 1. Self-attention of all rows together
        normed = [
            (self.norm1(states.float()) * (1 + scale) + shift).type_as(states)
            for states, (shift, scale, *_), *_ in own
        ]
        query, key, value = self._project(torch.cat(normed, 1))
        turns = [turn for turn in passed.turns if turn is not None]
        query, key = (
            torch.cat(
                [turned(part, *turn) for turn, part in zip(turns, each.split(lengths, 1), strict=True)], 1
            )
            for each in (query, key)
        )
        kept = key, value
        if passed.past is not None:
            before = passed.past
            key, value = torch.cat([before[0], key], 1), torch.cat([before[1], value], 1)
        attended = self.attn1.to_out[0](attend(query, key, value, passed.mask).flatten(2))
        moved = [
            (states.float() + part * gate).type_as(states)
            for (states, (_, _, gate, *_), *_), part in zip(own, attended.split(lengths, 1), strict=True)
        ]
        # 2. Cross-attention of all rows together
        joined = torch.cat(moved, 1)
        read = self.attn2(self.norm2(joined.float()).type_as(joined), passed.context, None, None)
        joined = joined + read
        # 3. Each stream's own feed-forward layer, on its own rows
        results = []
        for (_, (_, _, _, shift, scale, gate), norm, ffn), part in zip(
            own, joined.split(lengths, 1), strict=True
        ):
            output = ffn((norm(part.float()) * (1 + scale) + shift).type_as(part))
            results.append((part.float() + output.float() * gate).type_as(part))
        rest = iter(results)
        video, text = (None if states is None else next(rest) for states in passed.states)
        return (video, text), kept

    def looks(self, text: Rows, keys: Tensor) -> Tensor:
        """How words look at given rows and at each other, before any softmax or mask: (B, heads, L, M + L).

        Args:
            text: as it goes into this block.
            keys: of the given rows in this block, (B, M, heads, d), see :class:`~unireel.backbones.uni_rows.Memory`.
        """
        shift, scale, *_ = (self.scale_shift_table_t[:, None] + text.modulation.float()).unbind(2)
        normed = (self.norm1(text.states.float()) * (1 + scale) + shift).type_as(text.states)
        query, own, _ = self._project(normed)
        query, own = turned(query, *text.turn), turned(own, *text.turn)
        scaled = (query * query.shape[-1] ** -0.5).transpose(1, 2)
        return scaled @ torch.cat([keys, own], 1).permute(0, 2, 3, 1)

    def _project(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, n, heads, d) of self-attention."""
        own = self.attn1
        projected = own.norm_q(own.to_q(states)), own.norm_k(own.to_k(states)), own.to_v(states)
        query, key, value = (each.unflatten(2, (own.heads, -1)) for each in projected)
        return query, key, value


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | Apart | None, fused: bool | None = None
) -> Tensor:
    """Attention of (B, n, heads, d) over (B, m, heads, d) with ``mask`` (B, 1, n, m) bool: (B, n, heads, d).

    With a mask in two parts the film's rows and the words attend one after the other.

    ``fused`` takes PyTorch's kernel: by default everywhere but on processors, where two products and a softmax are
    faster at the lengths of pocket films (see :class:`~unireel.backbones.wan.MatmulAttention`).
    """
    if isinstance(mask, Apart):
        film, words = query[:, : mask.tokens], query[:, mask.tokens :]
        seen = (key, value) if mask.keys is None else (key[:, mask.keys], value[:, mask.keys])
        parts = attend(film, *seen, mask.film, fused), attend(words, key, value, mask.words, fused)
        return torch.cat(parts, 1)
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    if query.device.type != "cpu" if fused is None else fused:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return (scores.float().softmax(-1).to(value.dtype) @ value).transpose(1, 2)


def turned(states: Tensor, cosine: Tensor, sine: Tensor, halves: bool = False) -> Tensor:
    """Rotate pairs of channels of (B, n, heads, d) by angles given as (1 or B, n, 1, d / 2).

    Pairs are neighbours, as in Wan, or with ``halves`` the channels i and i + d / 2.
    """
    one, two = states.chunk(2, -1) if halves else states.unflatten(-1, (-1, 2)).unbind(-1)
    rotated = one * cosine - two * sine, one * sine + two * cosine
    return (torch.cat(rotated, -1) if halves else torch.stack(rotated, -1).flatten(-2)).type_as(states)
