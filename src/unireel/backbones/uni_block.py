"""A block of Wan that moves two streams, film and text, through one attention and two feed-forward layers."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor, nn

TextFFN = Literal["own", "shared"]


@dataclass
class Rows:
    """One stream between two blocks: states (B, n, D), modulation (B, 1 or n, 6, D), and how its places turn
    queries and keys (B, n, heads, d)."""

    states: Tensor
    modulation: Tensor
    turn: Callable[[Tensor], Tensor]


class UniBlock(WanTransformerBlock):
    """A block of Wan with a feed-forward layer and a modulation table for text.

    Called as diffusers' class it moves the film alone; :meth:`streams` moves both.
    """

    def __init__(
        self, dim: int, ffn_dim: int, heads: int, text_ffn: TextFFN, cross_attn_norm: bool, eps: float
    ) -> None:
        super().__init__(dim, ffn_dim, heads, cross_attn_norm=cross_attn_norm, eps=eps)
        own = text_ffn == "own"
        self.ffn_t = FeedForward(dim, inner_dim=ffn_dim, activation_fn="gelu-approximate") if own else None
        self.norm3_t = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.scale_shift_table_t = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def streams(
        self,
        video: Rows | None,
        text: Rows | None,
        context: Tensor,
        mask: Tensor | None,
        past: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """Move the rows in place; returns keys and values (B, n, heads, d) of all of them, the film's first.

        Args:
            context: what all rows read by cross-attention, (B, L, D).
            mask: (B, 1, rows, keys) bool, None where every row reads every key.
            past: keys and values that come before those of the rows.
        """
        text_ffn = self.ffn if self.ffn_t is None else self.ffn_t
        own = [
            (rows, (table[:, None] + rows.modulation.float()).unbind(2), norm, ffn)
            for rows, table, norm, ffn in (
                (video, self.scale_shift_table, self.norm3, self.ffn),
                (text, self.scale_shift_table_t, self.norm3_t, text_ffn),
            )
            if rows is not None
        ]
        lengths = [rows.states.shape[1] for rows, *_ in own]
        # 1. Self-attention of all rows together
        normed = [
            (self.norm1(rows.states.float()) * (1 + scale) + shift).type_as(rows.states)
            for rows, (shift, scale, *_), *_ in own
        ]
        query, key, value = self._project(torch.cat(normed, 1))
        turns = [rows.turn for rows, *_ in own]
        query, key = (
            torch.cat([turn(part) for turn, part in zip(turns, each.split(lengths, 1), strict=True)], 1)
            for each in (query, key)
        )
        kept = key, value
        if past is not None:
            key, value = torch.cat([past[0], key], 1), torch.cat([past[1], value], 1)
        attended = self.attn1.to_out[0](attend(query, key, value, mask).flatten(2))
        moved = [
            (rows.states.float() + part * gate).type_as(rows.states)
            for (rows, (_, _, gate, *_), *_), part in zip(own, attended.split(lengths, 1), strict=True)
        ]
        # 2. Cross-attention of all rows together
        states = torch.cat(moved, 1)
        states = states + self.attn2(self.norm2(states.float()).type_as(states), context, None, None)
        # 3. Each stream's own feed-forward layer, on its own rows
        for (rows, (_, _, _, shift, scale, gate), norm, ffn), part in zip(
            own, states.split(lengths, 1), strict=True
        ):
            output = ffn((norm(part.float()) * (1 + scale) + shift).type_as(part))
            rows.states = (part.float() + output.float() * gate).type_as(part)
        return kept

    def _project(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, n, heads, d) of self-attention."""
        own = self.attn1
        projected = own.norm_q(own.to_q(states)), own.norm_k(own.to_k(states)), own.to_v(states)
        query, key, value = (each.unflatten(2, (own.heads, -1)) for each in projected)
        return query, key, value


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, fused: bool | None = None
) -> Tensor:
    """Attention of (B, n, heads, d) over (B, m, heads, d) with ``mask`` (B, 1, n, m) bool: (B, n, heads, d).

    ``fused`` takes PyTorch's kernel: by default everywhere but on processors, where two products and a softmax are
    faster at the lengths of pocket films (see :class:`~unireel.backbones.wan.MatmulAttention`).
    """
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
