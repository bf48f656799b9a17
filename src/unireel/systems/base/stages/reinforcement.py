"""Training the video DiT on verdicts: it draws films of the World, the checker judges them, it learns from that."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unireel.backbones.fast import accelerate
from unireel.backbones.text import encode_text, tokenize
from unireel.backbones.vae import decode
from unireel.backbones.wan import MatmulAttention, embed_times_by_frame, predict, token_times
from unireel.data.cache import CacheConfig, FilmCache, build, epoch_order
from unireel.data.latents import latents_of
from unireel.data.world import to_frames
from unireel.errors import UserError
from unireel.flow.matching import interpolate, sample_times
from unireel.flow.reinforcement import follow, negative_aware_loss, shared_draws, worth_learning
from unireel.flow.sampling import sample
from unireel.systems.base.pipeline import TEXT_LENGTH, BasePipeline
from unireel.systems.base.stages.verdicts import film_reward, picture_reward
from unireel.training.stage import Stage
from unireel.world.language import beyond_first_frame, plan_for, prompt_for


@dataclass(frozen=True)
class ReinforcementConfig:
    """What is drawn, how, and how much is learnt from it.

    A batch holds ``groups`` scenes of the first ``used_films`` of the cache, of the training split. Of each, ``drawn``
    films are made of its plan by the policy, in ``steps`` steps without guidance, with ``restart`` drawn once more as
    the model does; with ``truth`` the film itself joins them as one that fulfils everything. ``given`` is the share of
    the scenes whose true first frame is given, with the plan of what lies beyond it; for the others the policy draws
    one first frame, which all their films go on from. Every ``picture_every``-th batch are first frames alone, of
    ``picture_groups`` scenes. Groups whose members fare all alike teach nothing, and their places are taken by others.
    Every sample is learnt from at ``times`` flow times, the same for all of a scene and drawn as in
    :class:`~unireel.systems.base.stages.generator.GeneratorConfig`. ``strength`` is that of
    :func:`~unireel.flow.reinforcement.negative_aware_loss`. The policy is a running average of the trained weights
    with ``policy_decay``, which keeps them from running away from what was judged.
    """

    films: str = "cache/films-48"
    film_count: int = 60_000
    used_films: int = 60_000
    start_from: str = "src/unireel/assets/pocket/base"
    groups: int = 10
    drawn: int = 7
    picture_groups: int = 32
    picture_every: int = 3
    given: float = 0.5
    times: int = 1
    steps: int = 4
    restart: bool = True
    shift: float = 6.0
    uniform: float = 0.2
    strength: float = 1.0
    truth: bool = True
    policy_decay: float = 0.8
    data_seed: int = 41


class ReinforcementStage(Stage):
    """Negative-aware fine-tuning (arXiv 2509.16117) of a base model's transformer; its other components stay."""

    config_class = ReinforcementConfig
    config: ReinforcementConfig

    def __init__(self, config: ReinforcementConfig) -> None:
        super().__init__(config)
        pipeline = BasePipeline.from_pretrained(config.start_from)
        if pipeline.film_settings["prediction"] != "data":
            raise UserError(f"'{config.start_from}' does not predict data, which this training needs")
        build(Path(config.films), CacheConfig(config.film_count, pipeline.size))
        self.films = FilmCache(config.films)
        self.latents = latents_of(self.films, pipeline.vae, config.used_films)
        transformer = pipeline.transformer
        policy = deepcopy(transformer).requires_grad_(False)
        transformer.set_attn_processor(MatmulAttention())
        self._tokens = (self.latents.shape[-1] // transformer.config.patch_size[1]) ** 2
        embed_times_by_frame(transformer, self._tokens)
        self.module = nn.ModuleDict({"transformer": transformer, "policy": policy})
        # What draws: the policy in the machine's fastest precision, renewed before every batch.
        self._drawer = pipeline
        pipeline.register_modules(transformer=deepcopy(policy))
        accelerate(pipeline, precision="auto")

    def to(self, device: torch.device) -> None:
        """Move what draws as well."""
        super().to(device)
        self._drawer.to(device)

    def compile(self) -> None:
        """Compile the trained blocks' forward for each shape of batch."""
        for block in self.module["transformer"].blocks:
            block.forward = torch.compile(block.forward, dynamic=False)

    def batch(self, index: int) -> dict[str, Tensor]:
        """Scenes (G,) by their place in the cache, seeds of their prompts, which have their true first frame.

        Also ids and mask (G, L) of their plans, and the scenes' own latents (G, C, T, h, w), T = 1 for first frames.
        """
        own = self.config
        picture = bool(own.picture_every) and index % own.picture_every == own.picture_every - 1
        count = own.picture_groups if picture else own.groups
        places = [
            epoch_order(own.data_seed + picture, len(self.latents), index * count + i) for i in range(count)
        ]
        random = np.random.default_rng([own.data_seed, index])
        given = (random.random(count) < own.given) & (not picture)
        scenes = [self.films.scene(place) for place in places]
        plans = [plan_for(scene, random.permutation(len(scene.objects))) for scene in scenes]
        texts = [
            beyond_first_frame(plan) if known else plan for plan, known in zip(plans, given, strict=True)
        ]
        ids, mask = tokenize(self._drawer.tokenizer, texts, TEXT_LENGTH)
        latents = np.stack([self.latents[place, :, : 1 if picture else None] for place in places])
        return {
            "places": torch.tensor(places),
            "seeds": torch.from_numpy(random.integers(2**31, size=count)),
            "given": torch.from_numpy(given),
            "ids": ids,
            "mask": mask,
            "latents": torch.from_numpy(latents.astype(np.float32)),
        }

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Mean of the negative-aware loss over samples and times; logs how those that were drawn fared."""
        self._follow()
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            text = encode_text(self._drawer.text_encoder, batch["ids"], batch["mask"])
            drawn = self._draw(batch, text)
            rewards, right = self._judge(batch, drawn)
        data = torch.cat([drawn, batch["latents"][:, None]], 1)  # (G, K + 1, C, T, h, w)
        used, good = worth_learning(
            rewards, self.config.times * self.config.drawn * len(data), self.config.truth
        )
        loss, moved = self._flow(data.flatten(0, 1)[used], text, used // data.shape[1], good)
        kind = "picture" if data.shape[3] == 1 else "film"
        logs: dict[str, Tensor | float] = {
            f"{kind}_reward": rewards.mean(),
            f"{kind}_right": right.mean(),
            "telling": (rewards.amin(1) < 1).float().mean(),
            "moved": moved,
        }
        return loss, logs

    @torch.no_grad()
    def _follow(self) -> None:
        """The policy moves on to where the trained weights are, and what draws gets it."""
        policy = self.module["policy"]
        follow(policy.parameters(), self.module["transformer"].parameters(), self.config.policy_decay)
        for own, new in zip(self._drawer.transformer.parameters(), policy.parameters(), strict=True):
            own.copy_(new)
        self._drawer.transformer.forget()

    def _draw(self, batch: Any, text: Tensor) -> Tensor:
        """What the policy makes: (G, K, C, T, h, w)."""
        latents, own = batch["latents"], self.config
        groups, count = len(latents), own.drawn
        options = {
            "steps": own.steps,
            "guidance": 1.0,
            "shift": self._drawer.film_settings["shift"],
            "prediction": "data",
        }
        noise = torch.randn(groups * count, *latents.shape[1:], device=latents.device)
        several = text.repeat_interleave(count, 0)
        first = None
        if latents.shape[2] > 1:
            first, drawn = latents[:, :, :1].clone(), ~batch["given"]
            if drawn.any():
                start = torch.randn_like(first[drawn])
                first[drawn] = sample(self._drawer.transformer, start, text[drawn], text[drawn], **options)
            first = first.repeat_interleave(count, 0)
        restart = self._drawer.film_settings["restart"] if own.restart else 0.0
        made = sample(
            self._drawer.transformer, noise, several, several, first=first, restart=restart, **options
        )
        return made.unflatten(0, (groups, count))

    def _judge(self, batch: Any, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards (G, K) of what was drawn, (G, K, C, T, h, w), and whether all that was asked for holds, (G * K,)."""
        frames = to_frames(decode(self._drawer.vae, drawn.flatten(0, 1)))
        verdicts = []
        for number, film in enumerate(frames):
            group = number // drawn.shape[1]
            place = int(batch["places"][group])
            scene = self.films.scene(place)
            if len(film) == 1:
                verdicts.append(picture_reward(film[0], self.films.frames[place][0], scene))
            else:
                asked = prompt_for(scene, int(batch["seeds"][group])).facts
                verdicts.append(film_reward(film, scene, asked))
        found = torch.tensor(verdicts, dtype=torch.float32, device=drawn.device)
        return found[:, 0].view(drawn.shape[:2]), found[:, 1]

    def _flow(self, data: Tensor, text: Tensor, group: Tensor, good: Tensor) -> tuple[Tensor, Tensor]:
        """The loss at random times, and how far the trained network is from the policy there."""
        own, film = self.config, data.shape[2] > 1
        draw = shared_draws(group)
        time = sample_times(len(data), own.shift, own.uniform, data.device)[draw]
        noise, text = torch.randn_like(data)[draw], text[group]
        clean = torch.full((len(data),), film, device=data.device)
        per_frame = time[:, None].repeat(1, data.shape[2])
        if film:
            per_frame[:, 0] = 0
        state = interpolate(data, noise, per_frame[:, None, :, None, None])
        times = token_times(time, clean, data.shape[2], self._tokens) if film else 1000 * time
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            old = predict(self._drawer.transformer, state, times, text).float()
        new = predict(self.module["transformer"], state, times, text).float()
        wanted = torch.ones(1, 1, data.shape[2], 1, 1, device=data.device)
        if film:
            wanted[:, :, 0] = 0
        loss = negative_aware_loss(data, new, old, good, wanted, own.strength).mean()
        return loss, (new - old).detach().square().mean().sqrt()

    def export(self, folder: Path) -> None:
        """Write a whole base model with the trained transformer."""
        pipeline = BasePipeline.from_pretrained(self.config.start_from)
        pipeline.transformer.load_state_dict(self.module["transformer"].state_dict())
        pipeline.save_pretrained(folder)
