"""From what is asked to the segments of the context: visual tokens, text states, source tokens, for each branch."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from unireel.backbones.text import encode_text
from unireel.systems.omnivideo.context import SEGMENTS, Row
from unireel.systems.omnivideo.guidance import FULL, SOURCE
from unireel.systems.omnivideo.heads import ContextAdapter, VisionHead
from unireel.systems.omnivideo.speech import Kind
from unireel.systems.omnivideo.visual_context import VisualContextAdapter


class Conditioner(nn.Module):
    """The parts between language model, text encoder, autoencoder and the decoder's context.

    Args:
        text_encoder: the decoder's own.
        vision_head, adapter, visual_context: Omni-Video's.
        segments: which of :data:`~unireel.systems.omnivideo.context.SEGMENTS` are used; to leave "visual" or "text" out
            is what ablations do. Without text its segment is that of the empty prompt.
    """

    def __init__(
        self,
        text_encoder: nn.Module,
        vision_head: VisionHead,
        adapter: ContextAdapter,
        visual_context: VisualContextAdapter,
        segments: Collection[str] = SEGMENTS,
    ) -> None:
        super().__init__()
        self.text_encoder, self.vision_head = text_encoder, vision_head
        self.adapter, self.visual_context = adapter, visual_context
        self.segments = frozenset(segments)

    def visual_tokens(self, states: Tensor, mask: Tensor, kinds: Sequence[Kind]) -> list[Tensor]:
        """The vision head's tokens of each request: (N, D), one for a picture."""
        tokens = self.vision_head(states, mask)
        return [each[:1] if kind == "image" else each for each, kind in zip(tokens, kinds, strict=True)]

    def adapted(self, visual: Sequence[Tensor]) -> list[Tensor]:
        """Each sample's visual tokens in the decoder's context, (N * queries, D)."""
        flat = self.adapter(torch.cat(list(visual))[:, None])  # each token by itself
        return [each.flatten(0, 1) for each in flat.split([len(each) for each in visual])]

    def texts(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """States of each text, (L, D), without padding; ``ids`` and ``mask`` are (B, n)."""
        states = encode_text(self.text_encoder, ids, mask)
        return [each[there.bool()] for each, there in zip(states, mask, strict=True)]

    def rows(
        self,
        visual: Sequence[Tensor | None],
        texts: Sequence[Tensor],
        empty: Tensor,
        sources: Sequence[Tensor | None],
    ) -> list[Row]:
        """Rows of the context, of what :attr:`segments` allows.

        Args:
            visual: adapted, None where they are dropped.
            texts: states (L, D); ``empty`` those of the empty prompt.
            sources: source tokens (n, D) or None.
        """
        use = self.segments
        return [
            Row(
                source if "source" in use else None,
                tokens if "visual" in use else None,
                text if "text" in use else empty,
            )
            for tokens, text, source in zip(visual, texts, sources, strict=True)
        ]

    def branch(self, name: str, full: Sequence[Row], avoided: Tensor) -> list[Row]:
        """The rows of a branch of guidance; words and visual tokens give way to ``avoided`` (L, D)."""
        if name == FULL:
            return list(full)
        return [Row(row.source if name == SOURCE else None, None, avoided) for row in full]
