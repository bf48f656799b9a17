"""Decoding of the pocket video-language model: greedy or by beams, with a cache and the probability of what is said."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, Qwen2VLForConditionalGeneration

from unireel.backbones.vlm import film_positions, layout_of, text_position, visual_tokens

Forbidden = Callable[[list[int]], Collection[int]]
"""Which tokens may not follow the tokens said so far."""


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
def decode(
    vlm: Qwen2VLForConditionalGeneration,
    features: Tensor,
    grid: Tensor,
    starts: Tensor,
    bos: int,
    eos: int,
    most: int,
    beams: int = 1,
    forbidden: Forbidden | None = None,
) -> list[Said]:
    """The likeliest continuation of each of ``starts`` that a search finds, at most ``most`` tokens.

    Args:
        features: visual tokens (B, N, D).
        grid: of one film, (3,).
        starts: tokens after the film, (B, n), of equal length.
        bos, eos: the start and end marks' ids.
        beams: continuations that are kept at each step, by the sum of their tokens' log-probabilities; 1 is greedy.
        forbidden: tokens that may not come next.
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
    search = BeamSearch(batch, beams, eos, forbidden)
    for step in range(most):
        hidden = language(
            inputs_embeds=inputs, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        before, token = search.step(vlm.lm_head(hidden[:, -1]).float().log_softmax(-1).cpu())
        if search.done:
            break
        if beams > 1:
            cache.reorder_cache(before.to(device))
        inputs = embed(token.to(device)[:, None])
        positions = torch.full((3, len(token), 1), after + starts.shape[1] + step, device=device)
    return search.best()


class BeamSearch:
    """The continuations of a batch of texts, ``beams`` of each, the likeliest first."""

    def __init__(self, batch: int, beams: int, eos: int, forbidden: Forbidden | None) -> None:
        self.batch, self.beams, self.eos, self.forbidden = batch, beams, eos, forbidden
        self.scores = torch.zeros(batch, 1)
        self.said = [[Said([], [])] for _ in range(batch)]
        self.ended = torch.zeros(batch, 1, dtype=torch.bool)

    @property
    def done(self) -> bool:
        """Whether no continuation that is kept goes on."""
        return bool(self.ended.all())

    def step(self, likely: Tensor) -> tuple[Tensor, Tensor]:
        """Lengthen all continuations by one token.

        Args:
            likely: log-probabilities of the next token (batch * continuations, V).

        Returns:
            For each continuation that is kept, at most ``beams`` of each text: the row of ``likely`` it comes from, and
            its token.
        """
        width = self.ended.shape[1]
        likely = likely.view(self.batch, width, -1)
        allowed = likely.clone()
        if self.forbidden:
            for row, beam in (~self.ended).nonzero().tolist():
                allowed[row, beam, list(self.forbidden(self.said[row][beam].ids))] = -torch.inf
        allowed[self.ended] = -torch.inf
        allowed[..., self.eos].masked_fill_(self.ended, 0.0)  # what has ended stays as it is
        together = (self.scores[..., None] + allowed).flatten(1)
        scores, choice = together.topk(min(self.beams, together.shape[1]))
        parent, token = choice // likely.shape[-1], choice % likely.shape[-1]
        said = []
        for row in range(self.batch):
            kept = []
            for beam, new in zip(parent[row].tolist(), token[row].tolist(), strict=True):
                old = self.said[row][beam]
                if not self.ended[row, beam]:
                    new_ids = old.ids if new == self.eos else [*old.ids, new]
                    old = Said(new_ids, [*old.probabilities, float(likely[row, beam, new].exp())])
                kept.append(old)
            said.append(kept)
        self.scores, self.said = scores, said
        self.ended = self.ended.gather(1, parent) | (token == self.eos)
        return (parent + width * torch.arange(self.batch)[:, None]).flatten(), token.flatten()

    def best(self) -> list[Said]:
        """The continuation of each text with the highest mean log-probability: sums would prefer the shortest."""

        def mean(said: Said) -> float:
            return sum(math.log(max(each, 1e-30)) for each in said.probabilities) / len(said.probabilities)

        return [
            max((each for each, score in zip(said, scores, strict=True) if score > -math.inf), key=mean)
            for said, scores in zip(self.said, self.scores.tolist(), strict=True)
        ]
