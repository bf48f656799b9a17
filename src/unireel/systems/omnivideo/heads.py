"""Vision head and adapter: from the language model's states to visual tokens, and from these to the decoder's context.

Both are the same thing: two linear layers, then an encoder-decoder transformer whose learned queries read the result.
The vision head reads all states of a request at once and puts out a few visual tokens; the adapter reads each visual
token by itself and expands it into many tokens of context.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportIncompatibleMethodOverride=false, reportCallIssue=false

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

Alignment = Literal["l2", "cosine"]

VISION_HEAD_PARAMETERS, ADAPTER_PARAMETERS = 154_840_320, 1_902_141_440
"""Of the published Omni-Video 11B, which the defaults below are the sizes of."""


class _Reader(ModelMixin, ConfigMixin):
    """Learned queries that read a sequence through an encoder-decoder transformer (pre-norm, ReLU, no positions)."""

    def __init__(self, source: int, width: int, queries: int, layers: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(source, width), nn.GELU(), nn.Linear(width, width))
        self.decoder_query = nn.Parameter(torch.randn(1, queries, width))
        shape = {
            "nhead": heads,
            "dim_feedforward": ffn,
            "dropout": 0.0,
            "batch_first": True,
            "norm_first": True,
        }
        encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, **shape),
            layers,
            nn.LayerNorm(width),
            enable_nested_tensor=False,
        )
        decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(width, **shape), layers, nn.LayerNorm(width)
        )
        self.transformer = nn.Transformer(
            width, heads, custom_encoder=encoder, custom_decoder=decoder, batch_first=True
        )

    def read(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """(B, queries, width) from (B, N, source), of which ``mask`` (B, N) bool says what is there."""
        inputs = self.fc(tokens.to(self.fc[0].weight.dtype))
        queries = self.decoder_query.expand(len(tokens), -1, -1)
        hidden = None if mask is None else ~mask
        return self.transformer(inputs, queries, src_key_padding_mask=hidden, memory_key_padding_mask=hidden)


class VisionHead(_Reader):
    """The head beside the text head: ``queries`` visual tokens of ``width`` from the states of a request."""

    @register_to_config
    def __init__(
        self,
        source: int = 4096,
        width: int = 1152,
        queries: int = 4,
        layers: int = 4,
        heads: int = 8,
        ffn: int = 4608,
    ) -> None:
        super().__init__(source, width, queries, layers, heads, ffn)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Visual tokens (B, ``queries``, ``width``); the first is that of a picture.

        Args:
            states: (B, L, ``source``) last-layer states of the language model.
            mask: which of them are there, (B, L) bool; all by default.
        """
        return self.read(states, mask)


class ContextAdapter(_Reader):
    """From each visual token ``queries`` tokens of the decoder's context."""

    @register_to_config
    def __init__(
        self,
        source: int = 1152,
        width: int = 4096,
        queries: int = 256,
        layers: int = 4,
        heads: int = 8,
        ffn: int = 16384,
    ) -> None:
        super().__init__(source, width, queries, layers, heads, ffn)
        nn.init.normal_(self.decoder_query, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, visual: Tensor) -> Tensor:
        """(B, N * ``queries``, ``width``) from visual tokens (B, N, ``source``), in their order."""
        batch, count, width = visual.shape
        tokens = self.read(visual.reshape(batch * count, 1, width), None)
        return tokens.reshape(batch, -1, tokens.shape[-1])


def vision_loss(visual: Tensor, wanted: Tensor, alignment: Alignment = "l2") -> Tensor:
    """How far visual tokens are from the embeddings of what they stand for, one number a sample (B,).

    Args:
        visual: from a :class:`VisionHead`, (B, N, D).
        wanted: embeddings by a visual encoder, one a token (B, N, D) or pooled (B, D).
        alignment: "l2" is the paper's eq. 1, the mean squared error of each token; "cosine" is the release's, one
            minus the cosine between the mean token and the (mean) embedding.
    """
    wanted = wanted.to(visual.dtype)
    if alignment == "l2":
        if wanted.ndim == 2:
            wanted = wanted[:, None].expand_as(visual)
        return (visual - wanted).square().mean(dim=(1, 2))
    pooled = wanted if wanted.ndim == 2 else wanted.mean(1)
    return 1 - F.cosine_similarity(visual.mean(1), pooled, dim=-1)
