"""What Uni-ViGU's stages learn from: films with prompts, descriptions and questions, in four kinds of batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unireel.backbones.text import tokenize
from unireel.data.cache import FilmCache, epoch_order
from unireel.data.lessons import CAPTION, Lessons
from unireel.systems.univigu.pages import Text, caption_text, page_of, prompt_text, question_text
from unireel.world.language import prompt_for, vocabulary

Target = Literal["prompt", "caption"]
Kind = Literal["understand", "pair", "film", "text"]


@dataclass(frozen=True)
class Mix:
    """What the batches of a stage are made of.

    Attributes:
        target: what is written: the prompt (Knowledge Recall) or the detailed description (Capability Refinement).
        questions: share of texts that are a question, given, and its answer instead.
        condition_dropout: share of texts written with an empty condition, so that copying is impossible.
        understand, pair, film, text: weights of the kinds of batches: a text about a clean film; both noisy, with
            times of their own; a film without text; a text without film.
        pictures: share of the film batches that are first frames alone.
        clean_first: share of noisy films whose first latent frame is given.
        spare: most padding behind a text's end, which is drawn anew for each.
    """

    target: Target = "caption"
    questions: float = 0.0
    condition_dropout: float = 0.5
    understand: float = 0.5
    pair: float = 0.2
    film: float = 0.25
    text: float = 0.05
    pictures: float = 0.5
    clean_first: float = 0.5
    spare: int = 12

    def __post_init__(self) -> None:
        for name in ("questions", "condition_dropout", "pictures", "clean_first"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"'{name}' is {getattr(self, name)}: it must be a share between 0 and 1")
        if min(self.weights) < 0 or not sum(self.weights) or self.spare < 0:
            raise ValueError(
                "the kinds of batches need weights of which one is above 0, and 'spare' 0 or more"
            )

    @property
    def weights(self) -> tuple[float, float, float, float]:
        """Of understand, pair, film, text."""
        return self.understand, self.pair, self.film, self.text


KINDS: tuple[Kind, ...] = ("understand", "pair", "film", "text")


class Batches:
    """Batches of a film cache, each a pure function of its number.

    Args:
        latents: of the films, (N, C, T, h, w).
        prompt_length, text_length: words of the condition; places of the text stream.
    """

    def __init__(
        self,
        films: FilmCache,
        latents: np.ndarray,
        tokenizer: PreTrainedTokenizerBase,
        mix: Mix,
        size: int,
        seed: int,
        prompt_length: int,
        text_length: int,
    ) -> None:
        self.films, self.latents, self.tokenizer, self.mix = films, latents, tokenizer, mix
        self.size, self.seed = size, seed
        self.prompt_length, self.text_length = prompt_length, text_length
        self.lessons = Lessons(films, progress=False)
        self.words = np.array(vocabulary())

    def kind(self, index: int) -> Kind:
        """The kind of batch number ``index``: as often as its weight says, evenly spread."""
        shares = np.cumsum(self.mix.weights) / sum(self.mix.weights)
        place = (index * 0.6180339887498949 + 0.5) % 1  # the golden ratio spreads any shares evenly
        return KINDS[int(np.searchsorted(shares, place, side="right"))]

    def batch(self, index: int) -> dict[str, Tensor]:
        """Condition ``ids`` and ``mask`` (B, L), and what the kind has of the following.

        ``latents`` (B, C, T, h, w); with ``clean`` (B,), which first frames are given, if they are to be noisy; the
        page's ``words``, ``given`` and ``there`` (B, L).
        """
        mix, kind = self.mix, self.kind(index)
        random = np.random.default_rng([self.seed, index])
        count = len(self.latents)
        places = [epoch_order(self.seed, count, index * self.size + i) for i in range(self.size)]
        prompts = [prompt_for(self.films.scene(place), int(random.integers(2**31))).text for place in places]
        dropped = 0.1 if kind == "film" else mix.condition_dropout
        empty = random.random(self.size) < dropped
        conditions = ["" if gone else prompt for gone, prompt in zip(empty, prompts, strict=True)]
        ids, mask = tokenize(self.tokenizer, conditions, self.prompt_length)
        batch = {"ids": ids, "mask": mask}
        picture = False
        if kind != "text":
            picture = kind == "film" and random.random() < mix.pictures
            frames = slice(0, 1) if picture else slice(None)
            latents = np.stack([self.latents[place][:, frames] for place in places]).astype(np.float32)
            batch["latents"] = torch.from_numpy(latents)
        if kind in ("film", "pair"):
            clean = random.random(self.size) < (0.0 if picture else mix.clean_first)
            batch["clean"] = torch.from_numpy(clean)
        if kind != "film":
            texts = [self._text(*each, random) for each in zip(places, prompts, strict=True)]
            spare = random.integers(0, mix.spare + 1, self.size).tolist()
            page = page_of(self.tokenizer, texts, spare, self.text_length)
            batch |= {"words": page.ids, "given": page.given, "there": page.there}
        return batch

    def _text(self, place: int, prompt: str, random: np.random.Generator) -> Text:
        """What is to be written about film number ``place``."""
        first, last = self.lessons.first_turn[place : place + 2]
        turns = self.lessons.turns[first:last]
        asked = turns[turns[:, 0] != CAPTION]
        if len(asked) and random.random() < self.mix.questions:
            _, start, middle, end = asked[random.integers(len(asked))].tolist()
            return question_text(self._said(start, middle), self._said(middle, end))
        if self.mix.target == "prompt":
            return prompt_text(prompt)
        _, start, _, end = turns[turns[:, 0] == CAPTION][0].tolist()
        return caption_text(self._said(start, end))

    def _said(self, start: int, end: int) -> str:
        return " ".join(self.words[self.lessons.words[start:end]])
