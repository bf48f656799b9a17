"""Greedy decoding of the pocket video-language model, with a cache and the probability of what was said."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, Qwen2VLForConditionalGeneration

from unireel.backbones.vlm import film_positions, layout_of, text_position, visual_tokens


@dataclass(frozen=True)
class Said:
    """Token ids without the end mark, and the probability of each token (the end mark's included, last)."""

    ids: list[int]
    probabilities: list[float]


@torch.no_grad()
def film_features(vlm: Qwen2VLForConditionalGeneration, patches: Tensor, grid: Tensor) -> Tensor:
    """Visual tokens (B, N, D) of films of equal size, from :func:`~unireel.backbones.vlm.visual_patches`."""
    return visual_tokens(vlm, patches, grid)[0]


@torch.no_grad()
def greedy(
    vlm: Qwen2VLForConditionalGeneration,
    features: Tensor,
    grid: Tensor,
    starts: Tensor,
    bos: int,
    eos: int,
    most: int,
) -> list[Said]:
    """The likeliest continuation of each of ``starts``, at most ``most`` tokens.

    Args:
        features: visual tokens (B, N, D).
        grid: of one film, (3,).
        starts: tokens after the film, (B, n), of equal length.
        bos, eos: the start and end marks' ids.
    """
    embed, language = vlm.get_input_embeddings(), vlm.model.language_model
    batch, device = len(starts), features.device
    merge = layout_of(vlm).merge
    prefix = film_positions(grid, merge).to(device)
    after = text_position(grid, merge)
    text = after + torch.arange(starts.shape[1], device=device)
    positions = torch.cat([prefix, text.expand(3, -1)], dim=1)[:, None].expand(3, batch, -1)
    first = embed(torch.full((batch, 1), bos, device=device))
    inputs = torch.cat([first, features.to(first.dtype), embed(starts)], dim=1)
    cache = DynamicCache(config=vlm.config.get_text_config())
    ids: list[list[int]] = [[] for _ in range(batch)]
    probabilities: list[list[float]] = [[] for _ in range(batch)]
    alive = torch.ones(batch, dtype=torch.bool, device=device)
    for step in range(most):
        hidden = language(
            inputs_embeds=inputs, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        best, token = vlm.lm_head(hidden[:, -1]).float().softmax(-1).max(-1)
        for row in torch.nonzero(alive).flatten().tolist():
            probabilities[row].append(float(best[row]))
            if int(token[row]) != eos:
                ids[row].append(int(token[row]))
        alive &= token != eos
        if not alive.any():
            break
        inputs = embed(token[:, None])
        positions = torch.full((3, batch, 1), after + starts.shape[1] + step, device=device)
    return [Said(*pair) for pair in zip(ids, probabilities, strict=True)]
