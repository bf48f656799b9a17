"""BAGEL's mixture of transformers (arXiv 2505.14683): Qwen2 with two experts for every weight and one attention.

Tokens of the autoencoder go through the *generation* expert (weights named ``..._moe_gen``), all others through
the *understanding* expert: norms, queries, keys, values, output projection and feed-forward. Attention is shared.
Queries and keys are RMS-normalised per head before their rotation. Parameter names are those of the published files.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportOptionalOperand=false

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import Cache, Qwen2Config
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2.modeling_qwen2 import (
    Qwen2MLP,
    Qwen2RMSNorm,
    Qwen2RotaryEmbedding,
    apply_rotary_pos_emb,
)

GENERATION = "_moe_gen"
"""What the names of the generation expert's weights end in."""


@dataclass(frozen=True)
class Routing:
    """Which tokens of (B, L) go to which expert.

    Attributes:
        understanding, generation: places of the experts' tokens in the flattened rows.
        back: order that brings the experts' results, one after the other, to their places.
    """

    understanding: Tensor
    generation: Tensor
    back: Tensor

    @classmethod
    def of(cls, generation: Tensor) -> Routing | None:
        """The routing for a mask (B, L) bool of the generation expert's tokens; None if there are none."""
        flat = generation.flatten()
        if not flat.any():
            return None
        order = torch.cat([(~flat).nonzero(), flat.nonzero()]).flatten()
        count = int((~flat).sum())
        return cls(order[:count], order[count:], order.argsort())


class Expert(nn.Module):
    """Base of modules that hold each of their parts twice, as ``name`` and as ``name_moe_gen``."""

    def add_experts(self, name: str, make: Callable[[], nn.Module]) -> None:
        """Register the two copies of a part."""
        self.add_module(name, make())
        self.add_module(name + GENERATION, make())

    def route(self, name: str, states: Tensor, routing: Routing | None) -> Tensor:
        """Each token of ``states`` (B, L, ...) through its expert's part ``name``."""
        understand, generate = self.get_submodule(name), self.get_submodule(name + GENERATION)
        if routing is None:
            return understand(states)
        flat = states.flatten(0, 1)
        parts = understand(flat[routing.understanding]), generate(flat[routing.generation])
        return torch.cat(parts)[routing.back].unflatten(0, states.shape[:2])


class MoTAttention(Expert):
    """Grouped-query attention over all tokens, with projections and norms of the tokens' experts."""

    def __init__(self, config: Qwen2Config, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        heads, groups, width = config.num_attention_heads, config.num_key_value_heads, config.hidden_size
        self.head_dim = getattr(config, "head_dim", None) or width // heads
        self.num_key_value_groups = heads // groups
        self.scaling = self.head_dim**-0.5
        self.add_experts("q_proj", lambda: nn.Linear(width, heads * self.head_dim))
        self.add_experts("k_proj", lambda: nn.Linear(width, groups * self.head_dim))
        self.add_experts("v_proj", lambda: nn.Linear(width, groups * self.head_dim))
        self.add_experts("o_proj", lambda: nn.Linear(heads * self.head_dim, width, bias=False))
        self.add_experts("q_norm", lambda: Qwen2RMSNorm(self.head_dim, config.rms_norm_eps))
        self.add_experts("k_norm", lambda: Qwen2RMSNorm(self.head_dim, config.rms_norm_eps))

    def forward(
        self,
        states: Tensor,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | BlockMask | None,
        routing: Routing | None,
        cache: Cache | None,
    ) -> Tensor:
        """Attend: (B, L, D) to (B, L, D); see :meth:`MoTModel.forward`."""
        query, key, value = (
            self.route(name, states, routing).unflatten(-1, (-1, self.head_dim))
            for name in ("q_proj", "k_proj", "v_proj")
        )
        query = self.route("q_norm", query, routing).transpose(1, 2)
        key = self.route("k_norm", key, routing).transpose(1, 2)
        query, key = apply_rotary_pos_emb(query, key, *rotation)
        value = value.transpose(1, 2)
        if cache is not None:
            key, value = cache.update(key, value, self.layer)
        kernel = "flex_attention" if isinstance(mask, BlockMask) else "sdpa"
        attend = ALL_ATTENTION_FUNCTIONS[kernel]
        seen, _ = attend(self, query, key, value, mask, scaling=self.scaling, dropout=0.0, is_causal=False)
        return self.route("o_proj", seen.flatten(2), routing)


class MoTLayer(Expert, GradientCheckpointingLayer):
    """Attention and feed-forward, each with a norm before it and a residual around it."""

    def __init__(self, config: Qwen2Config, layer: int) -> None:
        super().__init__()
        self.self_attn = MoTAttention(config, layer)
        self.add_experts("mlp", lambda: Qwen2MLP(config))
        for name in ("input_layernorm", "post_attention_layernorm"):
            self.add_experts(name, lambda: Qwen2RMSNorm(config.hidden_size, config.rms_norm_eps))

    def forward(
        self,
        states: Tensor,
        rotation: tuple[Tensor, Tensor],
        mask: Tensor | BlockMask | None,
        routing: Routing | None,
        cache: Cache | None,
    ) -> Tensor:
        """One layer: (B, L, D) to (B, L, D); see :meth:`MoTModel.forward`."""
        normed = self.route("input_layernorm", states, routing)
        states = states + self.self_attn(normed, rotation, mask, routing, cache)
        normed = self.route("post_attention_layernorm", states, routing)
        return states + self.route("mlp", normed, routing)


class MoTModel(Expert):
    """The layers between embeddings and logits."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([MoTLayer(config, layer) for layer in range(config.num_hidden_layers)])
        self.add_experts("norm", lambda: Qwen2RMSNorm(config.hidden_size, config.rms_norm_eps))
        self.rotary_emb = Qwen2RotaryEmbedding(config)

    def forward(
        self,
        states: Tensor,
        positions: Tensor,
        mask: Tensor | BlockMask | None,
        generation: Tensor,
        cache: Cache | None = None,
    ) -> Tensor:
        """Last-layer states after the final norm.

        Args:
            states: embedded tokens (B, L, D).
            positions: rotary positions (B, L).
            mask: who sees whom, (B, 1, L, K) bool with K keys (those in the cache first), or a block mask, with which
                FlexAttention is used; None lets every token see all.
            generation: tokens of the generation expert (B, L) bool.
            cache: keys and values of earlier tokens, to which these are added.

        Returns:
            (B, L, D).
        """
        routing = Routing.of(generation)
        rotation = self.rotary_emb(states, positions)
        for layer in self.layers:
            states = layer(states, rotation, mask, routing, cache)
        return self.route("norm", states, routing)


class MoTLanguageModel(nn.Module):
    """:class:`MoTModel` with its language head, nested as in the published files."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.model = MoTModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
