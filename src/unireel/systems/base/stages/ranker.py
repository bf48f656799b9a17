"""Training the ranker: frames of stories and clips with the texts that describe them.

A story is the hardest place to rank frames in: the same objects, a little elsewhere or in another colour. So a batch
holds several frames of each of its stories, drawn evenly over what happens in them, and every text is a negative of
every frame that it does not describe word for word.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SiglipImageProcessorPil, SiglipModel

from unireel.backbones.ranker import (
    TEXT_LENGTH,
    frame_embeddings,
    frame_pixels,
    match_logits,
    picture_side,
    pocket_ranker,
    ranker_tokenizer,
    text_embeddings,
    unit,
)
from unireel.backbones.text import tokenize
from unireel.data.cache import epoch_order
from unireel.data.galleries import StoryGalleries, recall_hits, story_galleries
from unireel.data.targets import cell_targets
from unireel.training.stage import ParameterRule, Stage
from unireel.world.language import vocabulary
from unireel.world.language.names import PLACES
from unireel.world.render import render_frames
from unireel.world.sampling import CATEGORIES, MIXTURE, sample_scene
from unireel.world.scene import COLOURS, SHAPES, SIZES, STORY_FRAMES, Scene
from unireel.world.stories import describe_frame, sample_story

NAMES = len(SHAPES) * len(COLOURS)
"""The first targets of a cell: shape with colour."""

_PROPERTIES = (*COLOURS, *SIZES, *PLACES)
SAID = len(SHAPES) * len(_PROPERTIES)
"""What a text can say of each shape: its colour, its size, its place."""


@dataclass(frozen=True)
class RankerConfig:
    """Sizes of the model and what it sees.

    Batches are drawn from ``stories`` stories, of each of which ``story_frames`` frames are known, and from ``clips``
    ordinary clips, of each of which ``clip_frames`` are; one batch has ``batch_stories`` times ``per_story`` frames and
    ``batch_clips`` times ``per_clip``. ``noise`` is the largest standard deviation, in 8-bit steps, of noise added to
    frames. The first ``vision_batches`` batches train the vision tower alone, on the auxiliary targets, because no text
    can be matched before shapes are seen, and the text tower costs a third of a batch. ``cells`` weighs the auxiliary
    loss on what lies in each patch, ``said`` the one on what the text says, read from either tower's embedding.
    ``test_stories`` and ``gallery`` say what :meth:`RankerStage.evaluate` ranks.
    """

    size: int = 48
    width: int = 128
    layers: int = 4
    heads: int = 4
    text_width: int = 96
    text_layers: int = 2
    stories: int = 1000
    story_frames: int = 24
    clips: int = 6000
    clip_frames: int = 3
    batch_stories: int = 8
    per_story: int = 6
    batch_clips: int = 8
    per_clip: int = 2
    noise: float = 6.0
    vision_batches: int = 700
    cells: float = 0.05
    said: float = 0.1
    data_seed: int = 5
    test_stories: int = 12
    gallery: int = 64
    start_from: str = ""


@dataclass(frozen=True)
class Shots:
    """K frames of one film: pixels (K, S, S, 3) uint8, their texts, and names in each patch (K, N, NAMES) bool."""

    frames: np.ndarray
    texts: list[str]
    cells: np.ndarray


class RankerStage(Stage):
    """Sigmoid loss (arXiv 2303.15343) on all pairs of frames and texts in a batch."""

    config_class = RankerConfig
    config: RankerConfig

    def __init__(self, config: RankerConfig) -> None:
        super().__init__(config)
        self.tokenizer = ranker_tokenizer(vocabulary())
        if config.start_from:
            ranker = SiglipModel.from_pretrained(Path(config.start_from) / "ranker")
        else:
            ranker = pocket_ranker(
                self.tokenizer,
                config.width,
                config.layers,
                config.heads,
                config.text_width,
                config.text_layers,
                config.size,
            )
        vision = ranker.vision_model.config
        self._cells = round(ranker.vision_model.embeddings.num_positions**0.5)
        heads = {"cells": nn.Linear(vision.hidden_size, NAMES), "said": nn.Linear(vision.hidden_size, SAID)}
        self.module: nn.ModuleDict = nn.ModuleDict({"ranker": ranker, **heads})
        self.samples_per_batch = (
            config.batch_stories * config.per_story + config.batch_clips * config.per_clip
        )

    @property
    def ranker(self) -> SiglipModel:
        """The model that is trained and exported."""
        return cast(SiglipModel, self.module["ranker"])

    def parameter_groups(self) -> list[ParameterRule]:
        """Embeddings and auxiliary heads are not hidden matrices; temperature and bias have far to go."""
        outside = ("*embedding*", "*probe", "cells*", "said*")
        return [
            ParameterRule("*logit_scale", lr=2.0),
            ParameterRule("*logit_bias", lr=20.0),
            *(ParameterRule(pattern, muon=False) for pattern in outside),
        ]

    def batch(self, index: int) -> dict[str, Tensor]:
        """A batch of N frames and M different texts.

        ``pixels`` (N, 3, S, S), ``text`` (N,) int64: which of the texts describes each frame, ``cells`` (N, h * w,
        NAMES) and ``said`` (M, SAID): what lies in each patch and what the texts say, 0 or 1; after the first
        ``vision_batches`` batches the texts themselves, ``ids`` (M, 64).
        """
        own = self.config
        random = np.random.default_rng([own.data_seed, index])
        kinds = (
            (self._story, own.stories, own.batch_stories, own.per_story),
            (self._clip, own.clips, own.batch_clips, own.per_clip),
        )
        frames, texts, cells = [], [], []
        for kind, (shots_of, films, count, each) in enumerate(kinds):
            for i in range(count):
                shots = shots_of(epoch_order(own.data_seed + kind, films, index * count + i))
                chosen = choose_different(shots.texts, each, random)
                frames.append(shots.frames[chosen])
                cells.append(shots.cells[chosen])
                texts += [shots.texts[number] for number in chosen]
        pixels = np.concatenate(frames)
        sigma = random.random((len(pixels), 1, 1, 1), dtype=np.float32) * np.float32(own.noise)
        noisy = pixels + random.standard_normal(pixels.shape, dtype=np.float32) * sigma
        different = list(dict.fromkeys(texts))
        ids = (
            {"ids": tokenize(self.tokenizer, different, TEXT_LENGTH)[0]}
            if index >= own.vision_batches
            else {}
        )
        return {
            **ids,
            "pixels": frame_pixels(np.clip(np.rint(noisy), 0, 255).astype(np.uint8)),
            "text": torch.tensor([different.index(text) for text in texts]),
            "cells": torch.from_numpy(np.concatenate(cells)).float(),
            "said": torch.from_numpy(np.stack([said(text) for text in different])).float(),
        }

    @cache  # noqa: B019 - lives as long as the training
    def _story(self, number: int) -> Shots:
        story = sample_story(self.config.data_seed, number, "train", STORY_FRAMES, self.config.size)
        return self._shots(story, self.config.story_frames, number)

    @cache  # noqa: B019 - lives as long as the training
    def _clip(self, number: int) -> Shots:
        """Every third clip belongs to one of the categories in turn, so that rare kinds are seen too."""
        category = CATEGORIES[number // 3 % len(CATEGORIES)] if number % 3 == 0 else MIXTURE
        scene = sample_scene(self.config.data_seed, number, "train", category, self.config.size)
        return self._shots(scene, self.config.clip_frames, number)

    def _shots(self, scene: Scene, count: int, number: int) -> Shots:
        random = np.random.default_rng([self.config.data_seed, number, scene.frames])
        chosen = eventful_frames(scene, count, random)
        cells = cell_targets(scene, [(frame, frame + 1) for frame in chosen], self._cells)[..., :NAMES]
        texts = [describe_frame(scene, frame) for frame in chosen]
        return Shots(render_frames(scene, chosen), texts, cells.reshape(len(chosen), -1, NAMES))

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Auxiliary losses of the frames; with texts also theirs, and the sigmoid loss on all pairs."""
        if "ids" not in batch:
            seen = self.ranker.vision_model(pixel_values=batch["pixels"])
            return self._auxiliary(seen.last_hidden_state, unit(seen.pooler_output), None, batch)
        output = self.ranker(input_ids=batch["ids"], pixel_values=batch["pixels"])
        frames, texts = unit(output.image_embeds), unit(output.text_embeds)
        auxiliary, logs = self._auxiliary(output.vision_model_output.last_hidden_state, frames, texts, batch)
        logits = match_logits(self.ranker, frames, texts)
        match = F.one_hot(batch["text"], len(texts)).float()
        pairs = F.binary_cross_entropy_with_logits(logits, match, reduction="none").sum(1).mean()
        logs["pairs"] = pairs.detach()
        logs["frames_right"] = (logits.argmax(1) == batch["text"]).float().mean()
        logs["scale"] = self.ranker.logit_scale.detach().exp().mean()
        return pairs + auxiliary, logs

    def _auxiliary(
        self, patches: Tensor, frames: Tensor, texts: Tensor | None, batch: Any
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """What lies in each patch, read from its state (N, h * w, D); what is said, from embeddings (N, D), (M, D)."""
        named = self.module["cells"](patches).float()
        cells = F.binary_cross_entropy_with_logits(named, batch["cells"], reduction="none").sum(-1).mean()
        shown = self._said(frames, batch["said"][batch["text"]])
        logs: dict[str, Tensor | float] = {"cells": cells.detach(), "said_by_frames": shown.detach()}
        loss = self.config.cells * cells + self.config.said * shown
        if texts is not None:
            told = self._said(texts, batch["said"])
            logs["said_by_texts"] = told.detach()
            loss = loss + self.config.said * told
        return loss, logs

    def _said(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        """Loss of reading ``targets`` (N, SAID) from embeddings (N, D) of length 1, with one head for both towers."""
        logits = self.module["said"](embeddings * embeddings.shape[1] ** 0.5).float()
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(-1).mean()

    def evaluate(self) -> dict[str, float]:
        """Recall at 1 on stories of the test split and of the compositional one.

        No story has 64 different descriptions (5 to 30 in 513 frames), so each test story is ranked in two ways:

        - ``gallery``: one frame of each of its descriptions, filled up to 64 different ones from other test stories;
          ``text_to_frame`` and ``frame_to_text`` over all 64, ``own_...`` over those of the story itself only.
        - ``spread``: 64 frames at equal distances; a frame is right for a text if it is the one that describes it.
        """
        scores = {}
        for split in ("test", "compositional"):
            found = self._evaluate(self._galleries(split))
            scores.update({f"{split}/{name}": float(np.mean(hits)) for name, hits in found.items()})
        return scores

    @lru_cache(maxsize=2)  # noqa: B019 - lives as long as the training
    def _galleries(self, split: str) -> StoryGalleries:
        return story_galleries(split, self.config.test_stories, self.config.gallery, self.config.size)

    def _evaluate(self, tests: StoryGalleries) -> dict[str, list[float]]:
        model = self.ranker
        names = list(dict.fromkeys(tests.texts))
        described = text_embeddings(model, self.tokenizer, names)
        rows = np.array([names.index(text) for text in tests.texts])
        similarity = match_logits(model, frame_embeddings(model, tests.frames), described).cpu().numpy()
        scores: dict[str, list[float]] = {}
        for own, entries in tests.galleries:
            to_frame, to_text = recall_hits(similarity[entries][:, rows[entries]], np.arange(len(entries)))
            for name, hits in (("text_to_frame", to_frame), ("frame_to_text", to_text)):
                scores.setdefault(f"gallery/{name}", []).extend(hits.tolist())
                scores.setdefault(f"gallery/own_{name}", []).extend(hits[:own].tolist())
        for entries in tests.spreads:
            shown, text_of = np.unique(rows[entries], return_inverse=True)
            to_frame, to_text = recall_hits(similarity[entries][:, shown], text_of)
            scores.setdefault("spread/text_to_frame", []).extend(to_frame.tolist())
            scores.setdefault("spread/frame_to_text", []).extend(to_text.tolist())
        return scores

    def export(self, folder: Path) -> None:
        """Write the ``ranker`` folder with its tokenizer and picture processor."""
        side = picture_side(self.ranker)
        self.ranker.save_pretrained(folder / "ranker")
        self.tokenizer.save_pretrained(folder / "ranker")
        SiglipImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder / "ranker")


def eventful_frames(scene: Scene, count: int, random: np.random.Generator) -> list[int]:
    """``count`` different frames (all, if there are fewer) in order, drawn evenly over the phases of a film.

    A phase lies between two neighbouring starts and ends of events, however short it is: drawn by time alone, what
    shows for a moment would hardly ever be seen.
    """
    times = {0, scene.frames}
    for figure in scene.objects:
        for event in figure.events:
            times |= {event.start, event.end}
    edges = np.array(sorted(times))
    weights = np.repeat(1 / np.diff(edges), np.diff(edges))
    chosen = random.choice(scene.frames, min(count, scene.frames), replace=False, p=weights / weights.sum())
    return sorted(chosen.tolist())


def choose_different(texts: list[str], count: int, random: np.random.Generator) -> list[int]:
    """Numbers of ``count`` of the ``texts``, with as many different ones among them as there are."""
    order = random.permutation(len(texts)).tolist()
    first = {texts[number]: number for number in reversed(order)}
    different = [number for number in order if first[texts[number]] == number]
    return [*different, *(number for number in order if first[texts[number]] != number)][:count]


@lru_cache(maxsize=100_000)
def said(text: str) -> np.ndarray:
    """What ``text``, made by :func:`~unireel.world.stories.describe_frame`, says of each shape: (SAID,) bool."""
    result = np.zeros((len(SHAPES), len(_PROPERTIES)), dtype=bool)
    for phrase in text.split(", "):
        thing, _, place = phrase.partition(" the ")
        words = thing.split()
        shape = next((word for word in words if word in SHAPES), None)
        if shape is None:
            continue  # "there is nothing"
        for each in (*words, place):
            if each in _PROPERTIES:
                result[SHAPES.index(shape), _PROPERTIES.index(each)] = True
    return result.ravel()
