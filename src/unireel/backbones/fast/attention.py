"""Attention of a Wan transformer that reaches a processor's matrix units and takes a bias on the text's logits."""

# Modules of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.models.transformers import transformer_wan as stock
from torch import Tensor, nn

from unireel.backbones.fast.call import Call, is_plain

ROWS = 256
"""Queries of one block of attention as products: its scores stay in the cache of a core."""

LONG = 512
"""Keys from which on each head is computed by itself, so that its scores are still in the cache when they are read."""

LARGEST = 60.0
"""Logits up to which, in size, exponentials and their sums over any number of keys are far from overflow."""

TAKES_BIAS = (None, AttentionBackendName.NATIVE, AttentionBackendName._NATIVE_MATH)
"""Attention back ends that add a float mask to the logits."""


class FastAttention(stock.WanAttnProcessor):
    """A processor for diffusers' ``WanAttention``: same weights, same result.

    Differences: keys and values of a text are kept with its context; the bias of collapsed padding; rotary positions
    as complex products; and on processors, in bfloat16, products of matrices in place of PyTorch's fused kernel, which
    does not use their matrix units. Any back end chosen with ``set_attention_backend`` is used.
    """

    def __init__(self, call: Call, backend: AttentionBackendName | None = None) -> None:
        super().__init__()
        self._call = call
        self._attention_backend = backend

    def __call__(
        self,
        attn: stock.WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Any = None,
    ) -> Tensor:
        """Attend from ``hidden_states`` (B, N, D) to themselves or to ``encoder_hidden_states`` (B, L, D).

        Args:
            attention_mask: added to the logits, (1, 1, 1, L).
            rotary_emb: cosine and sine of each place, float32 (1, N, 1, head width / 2, 2).
        """
        if self._call.plain:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb)
        if encoder_hidden_states is None:
            query, key, value = stock._get_qkv_projections(attn, hidden_states, None)
            query, key = (_heads(attn, each) for each in (attn.norm_q(query), attn.norm_k(key)))
            query, key, value = _turn(query, rotary_emb), _turn(key, rotary_emb), _heads(attn, value)
        else:
            query = _heads(attn, attn.norm_q(attn.to_q(hidden_states)))
            key, value = self._text(attn, encoder_hidden_states)
        if by_products(query, self._attention_backend):
            query, key, value = (each.transpose(1, 2) for each in (query, key, value))
            mixed = attend(query, key, value, attention_mask).transpose(1, 2)
        else:
            mask = None if attention_mask is None else attention_mask.to(query.dtype)
            mixed = dispatch_attention_fn(query, key, value, attn_mask=mask, backend=self._attention_backend)
        mixed = mixed.flatten(2).type_as(query)
        for module in attn.to_out:
            mixed = module(mixed)
        return mixed

    def _text(self, attn: stock.WanAttention, text: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the text, (B, L, heads, width)."""
        kept = None
        if not torch.compiler.is_compiling() and keys_are_constant(attn) and self._call.context is not None:
            kept = self._call.context.kept
            if self in kept:
                return kept[self]
        _, key, value = stock._get_qkv_projections(attn, text[:, :0], text)
        found = _heads(attn, attn.norm_k(key)), _heads(attn, value)
        if kept is not None:
            kept[self] = found
        return found


def by_products(query: Tensor, backend: AttentionBackendName | None) -> bool:
    """Whether products of matrices are the faster way: bfloat16 on a processor, and no back end was asked for."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and backend is None


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k / sqrt(width) + bias) v of (B, heads, N | L, width), :data:`ROWS` queries at a time."""
    return attend_scaled(query * query.shape[-1] ** -0.5, key, value, bias)


def attend_scaled(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """As :func:`attend`, for queries that are divided by the root of their width already."""
    value = value.contiguous()
    if bias is None and _largest(query) * _largest(key) <= LARGEST:
        return _by_exponentials(query, key, value)
    keys = key.transpose(-1, -2)
    parts = []
    for rows in query.split(ROWS, dim=2):
        scores = rows @ keys
        weights = scores.softmax(-1) if bias is None else (scores.float() + bias).softmax(-1).to(value.dtype)
        parts.append(weights @ value)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _largest(states: Tensor) -> float:
    """The length of the longest of the vectors (..., width)."""
    return torch.linalg.vector_norm(states, dim=-1).max().item()


def _by_exponentials(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention whose logits are known to be small: a softmax needs neither their maximum nor weights that add up to 1,
    since the result can be divided instead, which has far fewer numbers."""
    if key.shape[2] < LONG:
        weights = (query @ key.transpose(-1, -2)).exp_()
        return (weights @ value).div_(weights.sum(-1, keepdim=True))
    mixed = torch.empty_like(query)
    for sample, heads in enumerate(zip(query.unbind(0), key.unbind(0), value.unbind(0), strict=True)):
        for head, (queries, keys, values) in enumerate(zip(*(each.unbind(0) for each in heads), strict=True)):
            for start in range(0, len(queries), ROWS):
                weights = (queries[start : start + ROWS] @ keys.T).exp_()
                part = (weights @ values).div_(weights.sum(-1, keepdim=True))
                mixed[sample, head, start : start + ROWS] = part
    return mixed


def keys_are_constant(attn: nn.Module) -> bool:
    """Whether keys and values depend on nothing but the text: no hook acts on them, and no adapter with a scale."""
    modules = [getattr(attn, name, None) for name in ("to_k", "to_v", "to_kv", "norm_k")]
    return all(each is None or is_plain(each, nn.Linear, nn.RMSNorm) for each in modules)


def _heads(attn: stock.WanAttention, states: Tensor) -> Tensor:
    return states.unflatten(2, (attn.heads, -1))


def _turn(states: Tensor, turns: Tensor) -> Tensor:
    """Turn neighbouring pairs of channels of (B, N, heads, width) by the ``turns`` of each place."""
    pairs = states.float().unflatten(-1, (-1, 2))
    if not torch.compiler.is_compiling():
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turns))
        return turned.flatten(-2).type_as(states)
    # Compilers do not know complex numbers; they fuse this.
    (one, two), (cosine, sine) = pairs.unbind(-1), turns.unbind(-1)
    turned = torch.stack((one * cosine - two * sine, one * sine + two * cosine), -1)
    return turned.flatten(-2).type_as(states)
