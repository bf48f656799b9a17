"""Keeping a Wan transformer from looking at the padding of its context, which diffusers' own always sees."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from unireel.backbones.wan import MatmulAttention


class ContextMask:
    """Which tokens of the context the blocks of ``transformer`` may see, for as long as a ``with`` lasts.

    Usage::

        mask = ContextMask(transformer)
        with mask.of(there):                 # (B, L) bool, or None: everything is seen
            transformer(..., encoder_hidden_states=tokens)

    Only cross-attention changes, and only within: its processors are others there. Weights and names stay as they
    were. The backward pass may lie outside, except with gradient checkpointing, which runs the blocks again.
    """

    def __init__(self, transformer: WanTransformer3DModel) -> None:
        self.current: Tensor | None = None
        self._layers = [block.attn2 for block in transformer.blocks]
        self._processors = [_Masked(self) for _ in self._layers]

    def watch(self, blocks: Sequence[int], head: int) -> Sequence[MatmulAttention]:
        """Keep what ``head`` looks at in some blocks, from now on also without a mask: processors whose ``seen``
        (B, N, L) are its latest weights."""
        self._put_on()
        chosen = [self._processors[block] for block in blocks]
        for each in chosen:
            each.watched = head
        return chosen

    @contextmanager
    def of(self, there: Tensor | None) -> Iterator[None]:
        """Within, only tokens where ``there`` (B, L) is True are seen."""
        before, self.current = self.current, there
        others = [] if there is None else self._put_on()
        try:
            yield
        finally:
            self.current = before
            for layer, processor in others:
                layer.set_processor(processor)

    def _put_on(self) -> list[tuple[nn.Module, object]]:
        """Set the processors that are not in place; returns the layers where they were not, with what they had."""
        others = []
        for layer, processor in zip(self._layers, self._processors, strict=True):
            if layer.processor is not processor:
                others.append((layer, layer.processor))
                layer.set_processor(processor)
        return others


class _Masked(MatmulAttention):
    """A processor for ``WanAttention`` as cross-attention to text: fused, except on the CPU or if watched."""

    def __init__(self, mask: ContextMask) -> None:
        super().__init__()
        self.mask = mask

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        if hidden_states.device.type == "cpu" or self.watched is not None:
            return super().__call__(attn, hidden_states, encoder_hidden_states)
        query = attn.norm_q(attn.to_q(hidden_states))
        key, value = attn.norm_k(attn.to_k(encoder_hidden_states)), attn.to_v(encoder_hidden_states)
        query, key, value = (
            each.unflatten(2, (attn.heads, -1)).transpose(1, 2) for each in (query, key, value)
        )
        there = self.mask.current
        seen = None if there is None else there[:, None, None]
        result = F.scaled_dot_product_attention(query, key, value.to(query.dtype), attn_mask=seen)
        return attn.to_out[1](attn.to_out[0](result.transpose(1, 2).flatten(2).to(hidden_states.dtype)))

    def limited(self, scores: Tensor) -> Tensor:
        """See the base class: the context's padding may not be seen."""
        there = self.mask.current
        return scores if there is None else scores.masked_fill(~there[:, None, None], -torch.inf)
