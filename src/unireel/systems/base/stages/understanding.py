"""Training the video-language model: many questions and a caption behind each film."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportIndexIssue=false

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2VLForConditionalGeneration

from unireel.backbones.text import word_tokenizer
from unireel.backbones.vlm import (
    PatchLayout,
    caption_turn,
    pack,
    pocket_vlm,
    question_turn,
    visual_patches,
)
from unireel.data.cache import CacheConfig, FilmCache, build, epoch_order
from unireel.data.targets import CELL_TARGETS, FILM_TARGETS, cell_targets, film_targets
from unireel.data.world import films, scenes
from unireel.training.stage import ParameterRule, Stage
from unireel.world.language import DYNAMIC_TYPES, caption_for, questions_for, vocabulary

STATIC_CELLS = 58
"""The first targets of a cell (shape with colour, size) can be read from a few frames; motion cannot."""


@dataclass(frozen=True)
class UnderstandingConfig:
    """Sizes of the model and what it sees.

    Each film carries up to ``questions`` questions and, with probability ``captions``, its caption, whose tokens weigh
    ``caption_weight``. ``noise`` is the largest standard deviation, in 8-bit steps, of noise added to films.
    ``alignment`` weighs the auxiliary loss on dense targets, at the ViT's output and at the last layer. The first
    ``vision_batches`` batches train the ViT alone on its dense targets, on four frames of each of ``vision_batch``
    films: a twentieth of the cost of a film with its questions, and nothing can be answered before shapes are seen.
    """

    films: str = "cache/films-48"
    film_count: int = 40_000
    size: int = 48
    width: int = 192
    layers: int = 5
    heads: int = 3
    ffn: int = 512
    vision: int = 128
    depth: int = 4
    patch: int = 8
    merge: int = 2
    tube: int = 4
    batch_size: int = 16
    questions: int = 6
    captions: float = 0.35
    caption_weight: float = 0.3
    noise: float = 6.0
    alignment: float = 0.1
    vision_batches: int = 0
    vision_batch: int = 64
    data_seed: int = 4
    start_from: str = ""


class UnderstandingStage(Stage):
    """Cross-entropy on answers and captions."""

    config_class = UnderstandingConfig
    config: UnderstandingConfig

    def __init__(self, config: UnderstandingConfig) -> None:
        super().__init__(config)
        build(Path(config.films), CacheConfig(config.film_count, config.size))
        self.films = FilmCache(config.films)
        self.tokenizer = word_tokenizer(vocabulary())
        self.layout = PatchLayout(config.patch, config.merge, config.tube)
        if config.start_from:
            vlm = Qwen2VLForConditionalGeneration.from_pretrained(Path(config.start_from) / "vlm")
        else:
            vlm = pocket_vlm(
                self.tokenizer,
                config.width,
                config.layers,
                config.heads,
                config.ffn,
                config.vision,
                config.depth,
                self.layout,
            )
        heads = {
            "patches": nn.Linear(config.vision, STATIC_CELLS),
            "seen": nn.Linear(config.width, STATIC_CELLS),
            "moved": nn.Linear(config.width, CELL_TARGETS + FILM_TARGETS),
        }
        self.module = nn.ModuleDict({"vlm": vlm, **heads})
        self.samples_per_batch = config.batch_size
        self._hidden: list[Tensor] = []
        vlm.model.visual.blocks[-1].register_forward_hook(
            lambda module, args, output: self._hidden.append(output) if torch.is_grad_enabled() else None
        )
        length = self.films.frames.shape[1]
        self._groups = [(start, min(start + config.tube, length)) for start in range(0, length, config.tube)]

    def parameter_groups(self) -> list[ParameterRule]:
        """Embeddings and auxiliary heads are not hidden matrices."""
        return [
            ParameterRule(pattern, muon=False)
            for pattern in ("*embed_tokens*", "*patch_embed*", "*merger*", "patches*", "seen*", "moved*")
        ]

    def compile(self) -> None:
        """Compile the language model's layers once for all lengths; the ViT's attention loops over films."""
        for layer in self.module["vlm"].model.language_model.layers:
            layer.forward = torch.compile(layer.forward, dynamic=True)

    def batch(self, index: int) -> dict[str, Tensor]:
        """A packed batch (see :func:`~unireel.backbones.vlm.pack`) with patches, grid and dense targets."""
        own = self.config
        random = np.random.default_rng([own.data_seed, index])
        vision = index < own.vision_batches
        count = own.vision_batch if vision else own.batch_size
        places = [epoch_order(own.data_seed, len(self.films), index * count + i) for i in range(count)]
        frames = self.films.frames[places]
        parts = zip(*(self._targets(place) for place in places), strict=True)
        fine, cells, film = (np.stack(each) for each in parts)
        if vision:
            tubes = random.integers(0, frames.shape[1] // own.tube, count)
            frames = np.stack(
                [each[own.tube * t :][: own.tube] for each, t in zip(frames, tubes, strict=True)]
            )
            cells, fine = (
                np.stack([each[t : t + 1] for each, t in zip(all_tubes, tubes, strict=True)])
                for all_tubes in (cells, fine)
            )
        sigma = random.random((count, 1, 1, 1, 1)) * own.noise
        noisy = frames + random.standard_normal(frames.shape, dtype=np.float32) * sigma.astype(np.float32)
        patches, grid = visual_patches(np.clip(np.rint(noisy), 0, 255).astype(np.uint8), self.layout)
        batch = {
            "patches": patches,
            "grid": grid,
            "cells": torch.from_numpy(cells).flatten(1, 3).float(),
            "fine": torch.from_numpy(fine).flatten(0, -2).float(),
            "film": torch.from_numpy(film).float(),
        }
        if vision:
            return batch
        return batch | pack(
            [self._turns(place, random) for place in places], grid[0], self.tokenizer, merge=own.merge
        )

    def _turns(self, place: int, random: np.random.Generator) -> list:
        """Some questions on film ``place``, dynamic ones first in line, and perhaps its caption."""
        own = self.config
        scene = self.films.scene(place)
        questions = questions_for(scene, int(random.integers(2**31)))
        dynamic = np.array([1.0 + (each.type in DYNAMIC_TYPES) for each in questions])
        count = min(own.questions, len(questions))
        chosen = random.choice(len(questions), count, replace=False, p=dynamic / dynamic.sum())
        turns = [question_turn(self.tokenizer, questions[i].text, questions[i].answer) for i in chosen]
        if random.random() < own.captions:
            turns.append(caption_turn(self.tokenizer, caption_for(scene, None), own.caption_weight))
        return turns

    @lru_cache(maxsize=100_000)  # noqa: B019 - lives as long as the training
    def _targets(self, place: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Static targets of every patch, in the ViT's order; all targets of every token; targets of the film."""
        scene = self.films.scene(place)
        side, merge = self.config.size // self.layout.side, self.layout.merge
        fine = cell_targets(scene, self._groups, side * merge)[..., :STATIC_CELLS]
        fine = fine.reshape(len(fine), side, merge, side, merge, STATIC_CELLS).transpose(0, 1, 3, 2, 4, 5)
        return fine, cell_targets(scene, self._groups, side), film_targets(scene)

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Weighted cross-entropy of answers and captions, plus the auxiliary losses."""
        vlm = self.module["vlm"]
        self._hidden.clear()
        seen = vlm.model.get_video_features(batch["patches"], batch["grid"]).pooler_output
        seen = torch.stack(list(seen))  # (B, N, D)
        static = self._static(seen, batch)
        if "input_ids" not in batch:
            return static, {"seen": static.detach()}
        embeds = vlm.get_input_embeddings()(batch["input_ids"])
        count = seen.shape[1]
        embeds = torch.cat([embeds[:, :1], seen.to(embeds.dtype), embeds[:, 1 + count :]], dim=1)
        hidden = vlm.model.language_model(
            inputs_embeds=embeds, position_ids=batch["position_ids"], attention_mask=batch["attention_mask"]
        ).last_hidden_state
        weights = batch["weights"][:, 1:]
        chosen = weights > 0
        logits = vlm.lm_head(hidden[:, :-1][chosen]).float()
        targets = batch["input_ids"][:, 1:][chosen]
        entropy = F.cross_entropy(logits, targets, reduction="none")
        loss = (entropy * weights[chosen]).sum() / weights.sum()
        answers = weights[chosen] == 1
        right = (logits.argmax(-1) == targets).float()
        logs: dict[str, Tensor | float] = {
            "answer_loss": entropy.detach()[answers].mean(),
            "answer_tokens_right": right[answers].mean(),
            "caption_tokens_right": right[~answers].mean() if (~answers).any() else float("nan"),
        }
        moved = self._moved(hidden[:, 1 : 1 + count], batch)
        logs |= {"seen": static.detach(), "moved": moved.detach()}
        return loss + self.config.alignment * (static + moved), logs

    def _static(self, seen: Tensor, batch: Any) -> Tensor:
        """Auxiliary loss of the ViT: what lies in each patch, and after merging in each token."""
        cells = batch["cells"][..., :STATIC_CELLS]
        tokens = F.binary_cross_entropy_with_logits(
            self.module["seen"](seen).float(), cells, reduction="none"
        )
        logits = self.module["patches"](self._hidden.pop()).float()
        patches = F.binary_cross_entropy_with_logits(logits, batch["fine"], reduction="none")
        return tokens.sum(-1).mean() + patches.sum(-1).mean()

    def _moved(self, hidden: Tensor, batch: Any) -> Tensor:
        """Auxiliary loss at the last layer, on the film's second half: all of a cell's targets, and the film's."""
        cells = batch["cells"]
        late = cells.shape[1] // 5 * 2
        logits = self.module["moved"](hidden[:, late:]).float()
        moved = F.binary_cross_entropy_with_logits(
            logits[..., :CELL_TARGETS], cells[:, late:], reduction="none"
        )
        film = F.binary_cross_entropy_with_logits(
            logits[..., CELL_TARGETS:].mean(1), batch["film"], reduction="none"
        )
        return moved.sum(-1).mean() + film.sum(-1).mean()

    def evaluate(self) -> dict[str, float]:
        """Share of right answers on 96 test films: every token, greedily given the ones before it."""
        batch_scenes = scenes(8, 0, 96, self.config.size, "test")
        patches, grid = visual_patches(films(batch_scenes), self.layout)
        questions = [questions_for(scene, 0) for scene in batch_scenes]
        turns = [[question_turn(self.tokenizer, q.text, q.answer) for q in each] for each in questions]
        packed = pack(turns, grid[0], self.tokenizer, merge=self.layout.merge)
        seen = torch.stack(list(self.module["vlm"].model.get_video_features(patches, grid).pooler_output))
        embeds = self.module["vlm"].get_input_embeddings()(packed["input_ids"])
        embeds = torch.cat([embeds[:, :1], seen, embeds[:, 1 + seen.shape[1] :]], dim=1)
        hidden = (
            self.module["vlm"]
            .model.language_model(
                inputs_embeds=embeds,
                position_ids=packed["position_ids"],
                attention_mask=packed["attention_mask"],
            )
            .last_hidden_state
        )
        right = self.module["vlm"].lm_head(hidden[:, :-1]).argmax(-1) == packed["input_ids"][:, 1:]
        wrong = ((~right) & (packed["weights"][:, 1:] > 0)).cumsum(1)
        scores: dict[str, list[bool]] = {}
        for row, each in enumerate(questions):
            end, before = 1 + seen.shape[1], 0
            for question, turn in zip(each, turns[row], strict=True):
                end += len(turn.ids)
                now = int(wrong[row, end - 2])
                scores.setdefault(question.type, []).append(now == before)
                scores.setdefault("dynamic" if question.type in DYNAMIC_TYPES else "static", []).append(
                    now == before
                )
                before = now
        return {f"qa/{name}": float(np.mean(values)) for name, values in sorted(scores.items())}

    def export(self, folder: Path) -> None:
        """Write the ``vlm`` folder with its tokenizer."""
        self.module["vlm"].save_pretrained(folder / "vlm")
        self.tokenizer.save_pretrained(folder / "vlm")
