"""A Wan block on a processor in as few operations as will do.

At the sizes of pocket films most of a block's time goes into starting operations and converting between formats, not
into arithmetic. Here queries, keys and values are one product; normalisation, rotary positions and the softmax's scale
act in place; modulation is the affine part of the normalisation; the feed-forward activation happens in its product's
loop; the residual stream is float32, whose additions cost less than conversions. Only for blocks whose layers are
torch's own, without hooks or adapters (:func:`fits`).
"""

# Modules of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.activations import GELU
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers import transformer_wan as stock
from torch import Tensor, nn

from unireel.backbones.fast.attention import attend_scaled
from unireel.backbones.fast.call import Call, is_plain
from unireel.backbones.fast.times import Runs


def fits(block: stock.WanTransformerBlock, modulation: Tensor) -> bool:
    """Whether :func:`forward` computes this block now: on a processor, plain layers, the same times for all samples."""
    if modulation.device.type != "cpu" or len(modulation) > 1 or torch.compiler.is_compiling():
        return False
    for attn in (block.attn1, block.attn2):
        layers = (attn.to_q, attn.to_k, attn.to_v, attn.to_out[0])
        if not all(is_plain(each, nn.Linear) for each in layers) or getattr(attn, "fused_projections", False):
            return False
        if not (is_plain(attn.norm_q, nn.RMSNorm) and is_plain(attn.norm_k, nn.RMSNorm)):
            return False
        if attn.processor._attention_backend is not None or attn.add_k_proj is not None:
            return False
    rise, _, fall = block.ffn.net
    plain = is_plain(rise, GELU) and is_plain(rise.proj, nn.Linear) and is_plain(fall, nn.Linear)
    return plain and is_plain(block.norm2, FP32LayerNorm, nn.Identity)


def forward(
    block: stock.WanTransformerBlock, call: Call, states: Tensor, modulation: Tensor, turns: Tensor
) -> Tensor:
    """The block's output, float32 (B, N, D).

    Args:
        states: float32 (B, N, D); not changed.
        modulation: float32 of each run of times, table added, (6, R, D).
        turns: cosine and sine of each place, float32 (1, N, 1, head width / 2, 2).
    """
    shift, scale, gate, late_shift, late_scale, late_gate = modulation
    runs, dtype = call.runs, call.dtype
    normal = _modulated(states, shift, scale + 1, runs, block.norm1.eps, dtype)
    update = _self_attention(block.attn1, normal, turns)
    states = _gated(states, update, gate, runs, torch.empty_like(states))
    norm = block.norm2
    normal = (
        states.to(dtype)
        if isinstance(norm, nn.Identity)
        else _normal(states, norm.weight, norm.bias, norm.eps, dtype)
    )
    states.add_(_text_attention(block.attn2, normal, call))
    normal = _modulated(states, late_shift, late_scale + 1, runs, block.norm3.eps, dtype)
    rise, _, fall = block.ffn.net
    inner = torch.ops.mkldnn._linear_pointwise(
        normal, rise.proj.weight, rise.proj.bias, "gelu", [], rise.approximate
    )
    return _gated(states, F.linear(inner, fall.weight, fall.bias), late_gate, runs, states)


def _normal(states: Tensor, gain: Tensor, shift: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    return F.layer_norm(states, gain.shape, gain.float(), shift.float(), eps).to(dtype)


def _modulated(
    states: Tensor, shift: Tensor, gain: Tensor, runs: Runs, eps: float, dtype: torch.dtype
) -> Tensor:
    if len(runs) == 1:
        return _normal(states, gain[0], shift[0], eps, dtype)
    normal = torch.empty_like(states, dtype=dtype)
    for run, (start, stop) in enumerate(runs):
        part = F.layer_norm(states[:, start:stop], gain.shape[1:], gain[run], shift[run], eps)
        normal[:, start:stop].copy_(part)
    return normal


def _gated(states: Tensor, update: Tensor, gate: Tensor, runs: Runs, into: Tensor) -> Tensor:
    for run, (start, stop) in enumerate(runs):
        part = slice(start, stop)
        torch.addcmul(states[:, part], update[:, part], gate[run], out=into[:, part])
    return into


def _self_attention(attn: stock.WanAttention, normal: Tensor, turns: Tensor) -> Tensor:
    batch, tokens, width = normal.shape
    weight, bias = fuse(attn)
    joint = F.linear(normal, weight, bias)
    # Queries and keys (B, N, 2, D): normalised and turned in place.
    pair = joint[..., : 2 * width].float().unflatten(2, (2, width))
    pair.mul_(_inverse_rms(pair, width, attn.norm_q.eps)).mul_(
        torch.stack((attn.norm_q.weight * (width // attn.heads) ** -0.5, attn.norm_k.weight))
    )
    torch.view_as_complex(pair.view(batch, tokens, 2, attn.heads, -1, 2)).mul_(
        torch.view_as_complex(turns)[:, :, None]
    )
    heads = torch.empty(2, batch, attn.heads, tokens, width // attn.heads, dtype=normal.dtype)
    heads.copy_(pair.view(batch, tokens, 2, attn.heads, -1).permute(2, 0, 3, 1, 4))
    value = joint[..., 2 * width :].unflatten(2, (attn.heads, -1)).transpose(1, 2)
    if normal.dtype == torch.bfloat16:
        mixed = attend_scaled(heads[0], heads[1], value)
    else:
        mixed = F.scaled_dot_product_attention(heads[0], heads[1], value, scale=1.0)
    return _out(attn, mixed)


def _text_attention(attn: stock.WanAttention, normal: Tensor, call: Call) -> Tensor:
    """Attention to the text; the queries' norm acts on the scores, its weight on the keys, both for good once."""
    context = call.context
    assert context is not None
    if attn not in context.kept:
        text = context.states
        key = attn.norm_k(attn.to_k(text)) * (attn.norm_q.weight * (text.shape[-1] // attn.heads) ** -0.5)
        value = attn.to_v(text)
        key, value = (
            each.unflatten(2, (attn.heads, -1)).transpose(1, 2).contiguous() for each in (key, value)
        )
        context.kept[attn] = key.to(normal.dtype).transpose(-1, -2), value
    key, value = context.kept[attn]
    query = F.linear(normal, attn.to_q.weight, attn.to_q.bias)
    inverse = _inverse_rms(query, query.shape[-1], attn.norm_q.eps)[:, None]
    scores = (query.unflatten(2, (attn.heads, -1)).transpose(1, 2) @ key).float().mul_(inverse)
    if context.bias is not None:
        scores.add_(context.bias)
    return _out(attn, scores.softmax(-1).to(value.dtype) @ value)


def _out(attn: stock.WanAttention, mixed: Tensor) -> Tensor:
    return F.linear(mixed.transpose(1, 2).flatten(2), attn.to_out[0].weight, attn.to_out[0].bias)


def _inverse_rms(states: Tensor, width: int, eps: float) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) over the last dimension, kept, float32."""
    norm = torch.linalg.vector_norm(states, dim=-1, keepdim=True, dtype=torch.float32)
    return norm.square_().div_(width).add_(eps).rsqrt_()


def fuse(attn: stock.WanAttention) -> tuple[Tensor, Tensor]:
    """Weight (3 D, D) and bias (3 D) of queries, keys and values as one layer.

    The three layers' own weights become views of it, so that there is no second copy and changes in place are seen;
    after a change of device or format they are fused again.
    """
    layers = (attn.to_q, attn.to_k, attn.to_v)
    kept = getattr(attn, "_joint", None)
    if kept is not None and all(
        layer.weight.data_ptr() == part.data_ptr() and layer.weight.dtype == part.dtype
        for layer, part in zip(layers, kept[2], strict=True)
    ):
        return kept[0], kept[1]
    weight = torch.cat([layer.weight.data for layer in layers])
    bias = torch.cat([layer.bias.data for layer in layers])
    parts = weight.chunk(3)
    for layer, part, shift in zip(layers, parts, bias.chunk(3), strict=True):
        layer.weight.data, layer.bias.data = part, shift
    attn._joint = weight, bias, parts
    return weight, bias
