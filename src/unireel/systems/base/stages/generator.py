"""Training the text encoder and the video DiT together by flow matching: pictures first, then films."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportIndexIssue=false

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCosmos, WanTransformer3DModel
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from unireel.backbones.text import encode_text, pocket_text_encoder, tokenize, word_tokenizer
from unireel.backbones.vae import decode, encode
from unireel.backbones.wan import (
    LEAST_TIME,
    MatmulAttention,
    pocket_transformer,
    predict,
    token_times,
)
from unireel.data.cache import CacheConfig, FilmCache, build, epoch_order
from unireel.data.latents import autoencoder_digest, latents_of
from unireel.data.targets import CELL_TARGETS, FILM_TARGETS, cell_targets, film_targets, latent_groups
from unireel.data.world import films, to_frames, to_pixels
from unireel.flow.matching import interpolate, sample_times, velocity
from unireel.flow.sampling import sample
from unireel.training.stage import ParameterRule, Stage
from unireel.world.language import prompt_for, vocabulary
from unireel.world.sampling import sample_scene

MOST_WEIGHT = 8.0
"""Largest weight of an error in predicted data. The error of the velocity that follows from it weighs 1 / t squared,
which without a limit would spend the model on the last traces of noise."""


@dataclass(frozen=True)
class GeneratorConfig:
    """Sizes of the model and what it sees.

    Of the ``film_count`` cached films the first ``used_films`` are encoded and trained on.
    ``picture_batches`` micro-batches of ``picture_batch`` first frames come first (a fifth of the tokens), then
    batches of ``batch_size`` films, every ``picture_every``-th of them pictures again. ``empty`` is the share of
    prompts dropped for guidance, ``clean_first`` the share of films whose first latent frame is given (I2V).
    ``alignment`` weighs the auxiliary loss on dense targets after block ``alignment_block``.
    ``prediction`` is what the network puts out, see :func:`~unireel.backbones.wan.predict_velocity`.
    """

    films: str = "cache/films-48"
    film_count: int = 40_000
    used_films: int = 40_000
    size: int = 48
    vae: str = "runs/pocket/autoencoder-whole/export/vae"
    width: int = 128
    layers: int = 8
    heads: int = 2
    ffn: int = 384
    text_width: int = 128
    text_layers: int = 2
    text_length: int = 50
    patch: int = 2
    batch_size: int = 40
    picture_batch: int = 128
    picture_batches: int = 0
    picture_every: int = 2
    empty: float = 0.1
    clean_first: float = 0.75
    shift: float = 2.0
    uniform: float = 0.2
    prediction: Literal["velocity", "data"] = "data"
    alignment: float = 0.05
    alignment_block: int = 4
    data_seed: int = 3
    start_from: str = ""


class GeneratorStage(Stage):
    """Flow matching on latents, conditioned on text states that are trained along."""

    config_class = GeneratorConfig
    config: GeneratorConfig

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config)
        build(Path(config.films), CacheConfig(config.film_count, config.size))
        self.films = FilmCache(config.films)
        self.vae = AutoencoderKLCosmos.from_pretrained(config.vae).eval().requires_grad_(False)
        self.latents = latents_of(self.films, self.vae, autoencoder_digest(config.vae), config.used_films)
        self.tokenizer = word_tokenizer(vocabulary())
        if config.start_from:
            text_encoder = UMT5EncoderModel.from_pretrained(Path(config.start_from) / "text_encoder").float()
            transformer = WanTransformer3DModel.from_pretrained(
                Path(config.start_from) / "transformer"
            ).float()
        else:
            text_encoder = pocket_text_encoder(len(self.tokenizer), config.text_width, config.text_layers, 4)
            transformer = pocket_transformer(
                config.width,
                config.layers,
                config.heads,
                config.ffn,
                self.latents.shape[1],
                config.patch,
                config.text_width,
            )
        transformer.set_attn_processor(MatmulAttention())
        head = nn.Linear(config.width, CELL_TARGETS + FILM_TARGETS)
        self.module = nn.ModuleDict(
            {"text_encoder": text_encoder, "transformer": transformer, "alignment": head}
        )
        self._hidden: list[Tensor] = []
        transformer.blocks[config.alignment_block].register_forward_hook(
            lambda module, args, output: self._hidden.append(output) if torch.is_grad_enabled() else None
        )

    def parameter_groups(self) -> list[ParameterRule]:
        """Embeddings and the auxiliary head are not hidden matrices."""
        return [ParameterRule("text_encoder.shared*", muon=False), ParameterRule("alignment*", muon=False)]

    def compile(self) -> None:
        """Compile the blocks' forward for each shape of batch; the hook on one of them stays outside."""
        for block in self.module["transformer"].blocks:
            block.forward = torch.compile(block.forward, dynamic=False)

    def _is_picture(self, index: int) -> bool:
        own = self.config
        return index < own.picture_batches or (bool(own.picture_every) and index % own.picture_every == 0)

    def batch(self, index: int) -> dict[str, Tensor]:
        """Latents (B, C, T, h, w), token ids and mask (B, L), dense targets, and which films are I2V (B,)."""
        own = self.config
        picture = self._is_picture(index)
        count = own.picture_batch if picture else own.batch_size
        places = [
            epoch_order(own.data_seed + picture, len(self.latents), index * count + i) for i in range(count)
        ]
        random = np.random.default_rng([own.data_seed, index])
        texts = [prompt_for(self.films.scene(place), int(random.integers(2**31))).text for place in places]
        texts = ["" if random.random() < own.empty else text for text in texts]
        ids, mask = tokenize(self.tokenizer, texts, own.text_length)
        latents = np.stack(
            [self.latents[place, :, :1] if picture else self.latents[place] for place in places]
        )
        cells, film = zip(*(self._targets(place) for place in places), strict=True)
        cells = np.stack([each[:1] for each in cells] if picture else cells)
        return {
            "latents": torch.from_numpy(latents.astype(np.float32)),
            "ids": ids,
            "mask": mask,
            "cells": torch.from_numpy(cells).flatten(1, 3).float(),
            "film": torch.from_numpy(np.stack(film)).float(),
            "clean": torch.from_numpy(random.random(count) < (0.0 if picture else own.clean_first)),
        }

    @lru_cache(maxsize=100_000)  # noqa: B019 - lives as long as the training
    def _targets(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        scene = self.films.scene(place)
        cells = self.latents.shape[-1] // self.config.patch
        return cell_targets(scene, latent_groups(scene.frames), cells), film_targets(scene)

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Mean squared error over latent frames that are not given, plus the auxiliary loss."""
        own = self.config
        data, clean = batch["latents"], batch["clean"]
        time = sample_times(len(data), own.shift, own.uniform, data.device)
        noise = torch.randn_like(data)
        per_frame = time[:, None].repeat(1, data.shape[2])
        per_frame[:, 0] = torch.where(clean, torch.zeros_like(time), time)
        state = interpolate(data, noise, per_frame[:, None, :, None, None])
        tokens = data.shape[3] * data.shape[4] // own.patch**2
        text = encode_text(self.module["text_encoder"], batch["ids"], batch["mask"])
        times = token_times(time, clean, data.shape[2], tokens)
        self._hidden.clear()
        output = predict(self.module["transformer"], state, times, text).float()
        if own.prediction == "velocity":
            error, weight = output - velocity(data, noise), torch.ones_like(per_frame)
        else:
            error, weight = output - data, per_frame.clamp_min(LEAST_TIME).pow(-2).clamp_max(MOST_WEIGHT)
        wanted = torch.ones_like(per_frame)
        wanted[:, 0] = (~clean).float()
        flow = (error.square().mean(dim=(1, 3, 4)) * weight * wanted).sum() / wanted.sum()
        logs: dict[str, Tensor | float] = {
            "film_flow" if data.shape[2] > 1 else "picture_flow": flow.detach()
        }
        if not own.alignment:
            return flow, logs
        logits = self.module["alignment"](self._hidden.pop()).float()
        cells = F.binary_cross_entropy_with_logits(
            logits[..., :CELL_TARGETS], batch["cells"], reduction="none"
        )
        film = F.binary_cross_entropy_with_logits(
            logits[..., CELL_TARGETS:].mean(1), batch["film"], reduction="none"
        )
        aligned = cells.sum(-1).mean() + film.sum(-1).mean()
        logs["align_film" if data.shape[2] > 1 else "align_picture"] = aligned.detach()
        return flow + own.alignment * aligned, logs

    def samples(self) -> dict[str, np.ndarray]:
        """Six films of test prompts from fixed noise, in two stages, beside six from given first frames.

        Every fourth frame of each is shown.
        """
        scenes = [sample_scene(5, i, "test", size=self.config.size) for i in range(6)]
        prompts = [prompt_for(scene, i).text for i, scene in enumerate(scenes)]
        noise = torch.randn((6, *self.latents.shape[1:]), generator=torch.Generator().manual_seed(0))
        ids, mask = tokenize(self.tokenizer, [*prompts, ""], self.config.text_length)
        states = encode_text(self.module["text_encoder"], ids.to(self.device), mask.to(self.device))
        integrate = partial(
            sample,
            self.module["transformer"],
            text=states[:-1],
            empty=states[-1:].expand(6, -1, -1),
            steps=16,
            guidance=2.5,
            prediction=self.config.prediction,
        )
        noise = noise.to(self.device)
        drawn = integrate(noise[:, :, :1])
        given = encode(self.vae, to_pixels(films(scenes)[:, :1]).to(self.device))
        rows = [to_frames(decode(self.vae, integrate(noise, first=first))) for first in (drawn, given)]
        columns = [np.concatenate([np.concatenate(list(film[::4]), axis=1) for film in row]) for row in rows]
        return {"films": np.concatenate(columns, axis=1)}

    def export(self, folder: Path) -> None:
        """Write ``text_encoder``, ``transformer`` and ``tokenizer`` folders."""
        self.module["text_encoder"].save_pretrained(folder / "text_encoder")
        self.module["transformer"].save_pretrained(folder / "transformer")
        self.tokenizer.save_pretrained(folder / "tokenizer")
