"""What Uni-ViGU's stages learn from: films with prompts, descriptions and questions, in four kinds of batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from unireel.backbones.text import tokenize
from unireel.backbones.vlm import Turn
from unireel.data.cache import FilmCache, epoch_order
from unireel.data.lessons import CAPTION, Lessons
from unireel.data.turns import drawn_order, names_asked
from unireel.systems.base.stages.binding import latent_frames
from unireel.systems.univigu.pages import Page, Text, caption_text, page_of, prompt_text, question_text
from unireel.world.language import beyond_first_frame, plan_for, prompt_for, vocabulary

Target = Literal["prompt", "caption"]
Kind = Literal["understand", "pair", "film", "text"]


@dataclass(frozen=True)
class Mix:
    """What the batches of a stage are made of.

    Attributes:
        target: what is written: the prompt (Knowledge Recall) or the detailed description (Capability Refinement).
        questions: share of the batches with text in which that is a question, given, and its answer instead.
        each: questions about each clean film of a batch.
        copies: of a description of each clean film, which are made unreadable apart.
        plans: share of conditions that are plans (:mod:`unireel.world.language.plans`), as the planner writes them for
            the generator; half of them beyond the first frame where that is given.
        condition_dropout: share of texts written with an empty condition, so that copying is impossible.
        understand, pair, film, text: weights of the kinds of batches: a text about a clean film; both noisy, with
            times of their own; a film without text; a text without film.
        pictures: share of the film batches that are first frames alone.
        clean_first: share of noisy films whose first latent frame is given.
        spare: most padding behind a text's end, which is drawn anew for each.
    """

    target: Target = "caption"
    questions: float = 0.0
    each: int = 1
    copies: int = 1
    plans: float = 0.8
    condition_dropout: float = 0.5
    understand: float = 0.5
    pair: float = 0.2
    film: float = 0.25
    text: float = 0.05
    pictures: float = 0.5
    clean_first: float = 0.5
    spare: int = 12

    def __post_init__(self) -> None:
        for name in ("questions", "plans", "condition_dropout", "pictures", "clean_first"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"'{name}' is {getattr(self, name)}: it must be a share between 0 and 1")
        if (
            min(self.weights) < 0
            or not sum(self.weights)
            or self.spare < 0
            or min(self.each, self.copies) < 1
        ):
            raise ValueError(
                "the kinds of batches need weights of which one is above 0, 'spare' 0 or more, 'each' and 'copies' 1 "
                "or more"
            )

    @property
    def weights(self) -> tuple[float, float, float, float]:
        """Of understand, pair, film, text."""
        return self.understand, self.pair, self.film, self.text


ANSWER_SPARE = 5
"""Most padding behind the end of an answer, which is a word or two."""

WIDTHS = 32
"""Pages are a multiple of this wide, so that few shapes have to be compiled."""

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
        self.frames = latent_frames(films.frames.shape[1])

    def kind(self, index: int) -> Kind:
        """The kind of batch number ``index``: as often as its weight says, evenly spread."""
        shares = np.cumsum(self.mix.weights) / sum(self.mix.weights)
        place = (index * 0.6180339887498949 + 0.5) % 1  # the golden ratio spreads any shares evenly
        return KINDS[int(np.searchsorted(shares, place, side="right"))]

    def batch(self, index: int) -> dict[str, Tensor]:
        """Condition ``ids`` and ``mask`` (B, L), and what the kind has of the following.

        ``latents`` (B, C, T, h, w); with ``clean`` (B,), which first frames are given, if they are to be noisy; the
        pages' ``words``, ``given`` and ``there`` (P, L); ``about`` (P,), which of the B films each is about; whether
        they are questions, ``asking`` (). Of clean films also where objects are, ``states`` (B, O, T, S, 5) by latent
        frame, their ``shapes`` (B, O) and ``motions`` (B, O, K), what is true of the ``film`` (B, K), and whom the
        words to be written are about, ``asked`` (Q, 6).
        """
        mix, kind = self.mix, self.kind(index)
        random = np.random.default_rng([self.seed, index])
        count = len(self.latents)
        places = [epoch_order(self.seed, count, index * self.size + i) for i in range(self.size)]
        picture = kind == "film" and random.random() < mix.pictures
        clean = random.random(self.size) < (
            mix.clean_first if kind in ("film", "pair") and not picture else 0
        )
        dropped = random.random(self.size) < (0.1 if kind == "film" else mix.condition_dropout)
        asking = random.random() < mix.questions
        prompts = [prompt_for(self.films.scene(place), int(random.integers(2**31))).text for place in places]
        conditions = [
            "" if dropped[row] else self._condition(places[row], prompts[row], bool(clean[row]), random)
            for row in range(self.size)
        ]
        ids, mask = tokenize(self.tokenizer, conditions, self.prompt_length)
        batch = {"ids": ids, "mask": mask}
        if kind != "text":
            frames = slice(0, 1) if picture else slice(None)
            latents = np.stack([self.latents[place][:, frames] for place in places]).astype(np.float32)
            batch["latents"] = torch.from_numpy(latents)
        if kind in ("film", "pair"):
            batch["clean"] = torch.from_numpy(clean)
        if kind != "film":
            each = (mix.each if asking else mix.copies) if kind == "understand" else 1
            written = [self._texts(*one, asking, each, random) for one in zip(places, prompts, strict=True)]
            texts = [text for of_film in written for text in of_film]
            spare = random.integers(0, (ANSWER_SPARE if asking else mix.spare) + 1, len(texts)).tolist()
            page = page_of(self.tokenizer, texts, spare, self.text_length, WIDTHS)
            about = np.repeat(np.arange(self.size), [len(of_film) for of_film in written])
            batch |= {"words": page.ids, "given": page.given, "there": page.there}
            batch |= {"about": torch.from_numpy(about), "asking": torch.tensor(asking)}
        if kind == "understand":
            states = self.lessons.states[places][:, :, self.frames].astype(np.float32)
            batch |= {
                "states": torch.from_numpy(states),
                "shapes": torch.from_numpy(self.lessons.shapes[places]).long(),
                "motions": torch.from_numpy(self.lessons.motions[places]),
                "film": torch.from_numpy(self.lessons.films[places]),
            }
            batch |= {"asked": self._asked([places[row] for row in about], page)}
        return batch

    def _asked(self, films: list[int], page: Page) -> Tensor:
        """Whom the words to be written about films of these numbers are about, and where each stands: (Q, 6) of
        :func:`~unireel.data.turns.names_asked`."""
        turns = []
        for ids, given in zip(page.ids.tolist(), page.given.sum(1).tolist(), strict=True):
            end = ids.index(self.tokenizer.eos_token_id, given) + 1
            turns.append([Turn(ids[:end], [0.0] * given + [1.0] * (end - given))])
        asked = names_asked(self.lessons, films, turns, before=0)
        # A word is written in its own place, not by the token before it as in a language model.
        asked[:, 1] += 1
        return asked

    def _condition(self, place: int, prompt: str, clean: bool, random: np.random.Generator) -> str:
        """The prompt, or the plan that a planner would make of it."""
        if random.random() >= self.mix.plans:
            return prompt
        scene = self.films.scene(place)
        plan = plan_for(scene, random.permutation(len(scene.objects)).tolist())
        return beyond_first_frame(plan) if clean and random.random() < 0.5 else plan

    def _texts(
        self, place: int, prompt: str, asking: bool, each: int, random: np.random.Generator
    ) -> list[Text]:
        """What is to be written about film number ``place``: ``each`` times a text, or answers to up to so many
        questions."""
        first, last = self.lessons.first_turn[place : place + 2]
        turns = self.lessons.turns[first:last]
        asked = turns[turns[:, 0] != CAPTION]
        if asking and len(asked):
            chosen = drawn_order(asked[:, 0], random)[:each]
            return [
                question_text(self._said(start, middle), self._said(middle, end))
                for _, start, middle, end in asked[chosen].tolist()
            ]
        if self.mix.target == "prompt":
            return [prompt_text(prompt)] * each
        _, start, _, end = turns[turns[:, 0] == CAPTION][0].tolist()
        return [caption_text(self._said(start, end))] * each

    def _said(self, start: int, end: int) -> str:
        return " ".join(self.words[self.lessons.words[start:end]])
