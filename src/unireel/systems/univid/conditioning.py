"""From prompts and pictures to what the decoder attends to: understanding model, text encoder, connector."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unireel.backbones.understanding.interface import VIEWS, Picture, Understanding, View
from unireel.errors import UsageError
from unireel.systems.univid.connector import WHOLE, Mix
from unireel.systems.univid.context import Condition, ContextCombiner, TimedContext

EncodeTexts = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
"""Prompts to states (B, L, d_c) of the decoder's text encoder and their mask (B, L)."""

PictureTokens = Callable[[Sequence[Picture]], Tensor]
"""Pictures to latent tokens (B, n, W)."""


class Conditioner:
    """Makes the contexts of films.

    Args:
        understanding: gives Z_u.
        texts: the decoder's text encoder.
        connector, combiner: from Z_u to the context.
        tokens: the VAE's view of a picture, for understanding models that have none of their own.
        views: how pictures are read; "vit" alone leaves the VAE out, "vae" alone the ViT.
    """

    def __init__(
        self,
        understanding: Understanding,
        texts: EncodeTexts,
        connector: Any,
        combiner: ContextCombiner,
        tokens: PictureTokens | None = None,
        views: Collection[View] = VIEWS,
    ) -> None:
        self.understanding, self.texts = understanding, texts
        self.connector, self.combiner = connector, combiner
        self.tokens, self.views = tokens, views

    def encode(
        self,
        prompts: Sequence[str],
        pictures: Sequence[Picture | None] | None = None,
        texts: Sequence[str] | None = None,
    ) -> Condition:
        """One branch of guidance: a real prefill of each prompt with its picture, and the states of its text.

        Args:
            prompts: what the understanding model reads; may be empty.
            pictures: what it sees with each.
            texts: what the decoder's text encoder reads, by default the prompts.
        """
        pictures = [None] * len(prompts) if pictures is None else list(pictures)
        texts = prompts if texts is None else texts
        if not len(prompts) == len(pictures) == len(texts):
            raise UsageError(f"{len(prompts)} prompts need as many pictures and texts")
        images = [[] if each is None else [each] for each in pictures]
        features = self.understanding.hidden_states(prompts, images, self.views)
        latents = given = None
        seen = [each for each in pictures if each is not None]
        if self.tokens is not None and seen and "vae" in self.views:
            tokens = self.tokens(seen)
            given = torch.tensor([each is not None for each in pictures], device=tokens.device)
            latents = tokens.new_zeros(len(prompts), *tokens.shape[1:])
            latents[given] = tokens
        states, mask = self.texts(texts)
        return Condition(features, states, mask, latents, given)

    def context(self, condition: Condition, mix: Mix = WHOLE) -> TimedContext:
        """The decoder's context as a function of flow time."""
        return TimedContext(self.connector, self.combiner, condition, mix)

    def unsteered(self, condition: Condition) -> Tensor:
        """The context without C_t: the text encoder's states and padding, of the same length."""
        assert condition.text is not None
        return F.pad(condition.text, (0, 0, 0, self.combiner.length - condition.text.shape[1]))
