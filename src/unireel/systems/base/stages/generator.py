"""Training the text encoder and the video DiT together by flow matching: pictures first, then films."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLCosmos, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from unireel.backbones.text import encode_text, pocket_text_encoder, tokenize, word_tokenizer
from unireel.backbones.vae import decode, encode
from unireel.backbones.wan import (
    MatmulAttention,
    embed_times_by_frame,
    pocket_transformer,
    predict,
    token_times,
)
from unireel.backbones.widen import twice_as_wide
from unireel.data.cache import CacheConfig, FilmCache, build, epoch_order
from unireel.data.latents import latents_of
from unireel.data.lessons import Lessons
from unireel.data.world import films, to_frames, to_pixels
from unireel.flow.matching import interpolate, sample_times, velocity
from unireel.flow.sampling import sample
from unireel.systems.base.stages.binding import Binding, Uncertainty, latent_frames
from unireel.training.stage import ParameterRule, Stage
from unireel.world.language import (
    PLAN_WORDS,
    beyond_first_frame,
    is_exact,
    plan_for,
    plan_numbers,
    prompt_for,
    vocabulary,
)
from unireel.world.sampling import sample_scene
from unireel.world.scene import MAX_OBJECTS, Scene

HEADS = "generator-heads.safetensors"
_NO_NUMBERS = (0.0,) * 6


@dataclass(frozen=True)
class GeneratorConfig:
    """Sizes of the model and what it sees.

    A transformer of ``start_from`` with half the ``heads`` is widened (:mod:`unireel.backbones.widen`); otherwise its
    own sizes hold. Of the ``film_count`` cached films the first ``used_films`` are encoded and trained on. With
    ``rounded`` they have exactly the numbers of their plans (:func:`~unireel.world.language.rounded`), pictures also in
    where objects lie: a plan says tenths, and what lies between them would have to be settled from noise.
    ``text_batches`` micro-batches of ``text_batch`` prompts come first and teach the text encoder alone, then
    ``picture_batches`` of ``picture_batch`` first frames (a fifth of the tokens), then batches of ``batch_size`` films,
    every ``picture_every``-th of them pictures again. ``plans`` is the share of prompts that are plans
    (:mod:`unireel.world.language.plans`), half of them beyond the first frame where that is given; ``empty`` is the
    share of prompts dropped for guidance, ``clean_first`` the share of films whose first latent frame is given (I2V).
    ``prediction`` is what the network puts out, see :func:`~unireel.backbones.wan.predict_velocity`. The weights of the
    auxiliary losses of :class:`~unireel.systems.base.stages.binding.Binding`: ``words``, ``attention`` in blocks
    ``attention_blocks``, ``drawing`` on the states after block ``drawing_block``, ``masks`` on those after block
    ``masks_block``. In the first ``warm_heads`` batches their heads learn alone, from states as they are: new heads
    would pull what has been learned to where they happen to be. Without ``train_text`` the text encoder stays as it is,
    so that whatever has learned to speak in its states is still understood. Errors at tokens that draw an object which
    changes inside their latent frame weigh 1 + ``moving``.
    """

    films: str = "cache/films-48"
    film_count: int = 40_000
    used_films: int = 40_000
    rounded: bool = False
    size: int = 48
    vae: str = "runs/pocket/autoencoder-whole/export/vae"
    width: int = 128
    layers: int = 8
    heads: int = 2
    ffn: int = 768
    text_width: int = 128
    text_layers: int = 2
    text_length: int = PLAN_WORDS + 1
    patch: int = 2
    batch_size: int = 40
    picture_batch: int = 128
    picture_batches: int = 0
    text_batch: int = 256
    text_batches: int = 0
    picture_every: int = 2
    plans: float = 0.8
    empty: float = 0.1
    clean_first: float = 0.75
    shift: float = 2.0
    uniform: float = 0.2
    prediction: Literal["velocity", "data"] = "data"
    words: float = 0.05
    attention: float = 0.1
    attention_blocks: tuple[int, ...] = (1, 3)
    drawing: float = 0.1
    drawing_block: int = 4
    masks: float = 1.0
    masks_block: int = 6
    moving: float = 0.0
    warm_heads: int = 0
    train_text: bool = True
    data_seed: int = 3
    start_from: str = ""


class GeneratorStage(Stage):
    """Flow matching on latents, conditioned on text states that are trained along."""

    config_class = GeneratorConfig
    config: GeneratorConfig

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config)
        build(Path(config.films), CacheConfig(config.film_count, config.size, rounded=config.rounded))
        self.films = FilmCache(config.films)
        self.vae = AutoencoderKLCosmos.from_pretrained(config.vae).eval().requires_grad_(False)
        self.lessons = Lessons(self.films)
        self.latents = latents_of(self.films, self.vae, config.used_films)
        self._exact = [
            number
            for number in range(len(self.latents) if config.rounded else 0)
            if is_exact(self.films.scene(number))
        ]
        self.tokenizer = word_tokenizer(vocabulary())
        if config.start_from:
            text_encoder = UMT5EncoderModel.from_pretrained(Path(config.start_from) / "text_encoder").float()
            transformer = WanTransformer3DModel.from_pretrained(
                Path(config.start_from) / "transformer"
            ).float()
            if config.heads == 2 * transformer.config.num_attention_heads:
                transformer = twice_as_wide(transformer, config.ffn)
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
        text_encoder.requires_grad_(config.train_text)
        transformer.set_attn_processor(MatmulAttention())
        self._watched = [MatmulAttention(watched=0) for _ in config.attention_blocks]
        for block, watched in zip(config.attention_blocks, self._watched, strict=True):
            transformer.blocks[block].attn2.set_processor(watched)
        embed_times_by_frame(transformer, (self.latents.shape[-1] // config.patch) ** 2)
        side = config.size // self.latents.shape[-1] * config.patch
        width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
        binding = Binding(width, text_encoder.config.d_model, config.size, side)
        self.module = nn.ModuleDict(
            {
                "text_encoder": text_encoder,
                "transformer": transformer,
                "binding": binding,
                "uncertainty": Uncertainty(kinds=6),
            }
        )
        heads = Path(config.start_from) / HEADS
        if config.start_from and heads.exists():
            own = self.module.state_dict()
            fitting = {name: each for name, each in load_file(heads).items() if each.shape == own[name].shape}
            self.module.load_state_dict(fitting, strict=False)
        self._frames = latent_frames(self.films.frames.shape[1])
        self._hidden: dict[int, Tensor] = {}
        for number in {config.drawing_block, config.masks_block}:
            transformer.blocks[number].register_forward_hook(partial(self._keep, number))

    def _keep(self, number: int, module: nn.Module, args: tuple, output: Tensor) -> None:
        if torch.is_grad_enabled():
            self._hidden[number] = output

    def parameter_groups(self) -> list[ParameterRule]:
        """The text encoder and the auxiliary heads are for AdamW."""
        return [
            # UMT5's attention is not scaled, so that Muon's large matrices make it look at one word only.
            ParameterRule("text_encoder*", lr=0.3, muon=False),
            ParameterRule("binding*", muon=False),
            ParameterRule("uncertainty*", lr=5.0, weight_decay=False, muon=False),
        ]

    def compile(self) -> None:
        """Compile the blocks' forward for each shape of batch; the hook on one of them stays outside."""
        for block in self.module["transformer"].blocks:
            block.forward = torch.compile(block.forward, dynamic=False)

    def _kind(self, index: int) -> str:
        own = self.config
        if index < own.text_batches:
            return "text"
        index -= own.text_batches
        picture = index < own.picture_batches or (own.picture_every and index % own.picture_every == 0)
        return "picture" if picture else "film"

    def batch(self, index: int) -> dict[str, Tensor]:
        """Token ids and mask (B, L), what films hold, latents (B, C, T, h, w), which films are I2V (B,).

        Batches of text have no latents, and the states of the first frame only.
        """
        own = self.config
        kind = self._kind(index)
        count = {"text": own.text_batch, "picture": own.picture_batch, "film": own.batch_size}[kind]
        order = own.data_seed + ("film", "picture", "text").index(kind)
        among = self._exact if kind == "picture" and own.rounded else range(len(self.latents))
        places = [among[epoch_order(order, len(among), index * count + i)] for i in range(count)]
        random = np.random.default_rng([own.data_seed, index])
        scenes = [self.films.scene(place) for place in places]
        clean = random.random(count) < (own.clean_first if kind == "film" else 0.0)
        planned = random.random(count) < own.plans
        texts = [self._text(*each, random) for each in zip(scenes, planned, clean, strict=True)]
        ids, mask = tokenize(self.tokenizer, texts, own.text_length)
        frames = self._frames if kind == "film" else self._frames[:1]
        batch = {
            "ids": ids,
            "mask": mask,
            "states": torch.from_numpy(self.lessons.states[places][:, :, frames].astype(np.float32)),
            "shapes": torch.from_numpy(self.lessons.shapes[places]).long(),
            "motions": torch.from_numpy(self.lessons.motions[places]),
            "film": torch.from_numpy(self.lessons.films[places]),
            "planned": torch.from_numpy(planned),
            "numbers": torch.tensor(
                [[_numbers(scene, number) for number in range(MAX_OBJECTS)] for scene in scenes]
            ),
        }
        if kind == "text":
            return batch
        latents = np.stack([self.latents[place, :, : len(frames)] for place in places])
        return batch | {
            "latents": torch.from_numpy(latents.astype(np.float32)),
            "clean": torch.from_numpy(clean),
            "warming": torch.tensor(index < own.warm_heads),
        }

    def _text(self, scene: Scene, planned: bool, clean: bool, random: np.random.Generator) -> str:
        if random.random() < self.config.empty:
            return ""
        if not planned:
            return prompt_for(scene, int(random.integers(2**31))).text
        plan = plan_for(scene, random.permutation(len(scene.objects)))
        return beyond_first_frame(plan) if clean and random.random() < 0.5 else plan

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Mean squared error over latent frames that are not given, plus the auxiliary losses."""
        own, binding = self.config, self.module["binding"]
        text = encode_text(self.module["text_encoder"], batch["ids"], batch["mask"])
        named = binding.named(batch)
        words, nouns = binding.words(text, named, batch)
        logs: dict[str, Tensor | float] = {"words": words.detach(), "nouns": nouns}
        if "latents" not in batch:
            return words, logs
        owner = binding.owner(batch)
        flow, error = self.flow(batch, text, owner)
        seen = [binding.attention(each.seen, named, owner, batch["ids"]) for each in self._watched]
        if batch["warming"]:
            self._hidden = {number: each.detach() for number, each in self._hidden.items()}
        drawing, shares = binding.drawing(self._hidden[own.drawing_block], owner, batch)
        masks = binding.masks(self._hidden[own.masks_block], owner, batch)
        self._hidden.clear()
        attention = torch.stack(seen).mean()
        auxiliary = own.words * words + own.attention * attention + own.drawing * drawing + own.masks * masks
        logs |= shares | {"attention": attention.detach(), "masks": masks.detach()}
        logs["picture_error" if owner.shape[1] == 1 else "film_error"] = error
        return flow + auxiliary, logs

    def flow(self, batch: Any, text: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of what the network puts out at random times, over latent frames that are not given.

        Args:
            owner: which object each token draws a part of, (B, T, n).

        Returns:
            The squared error weighed by what is expected at its time, and plain; means over the batch.
        """
        own = self.config
        data, clean = batch["latents"], batch["clean"]
        time = sample_times(len(data), own.shift, own.uniform, data.device)
        noise = torch.randn_like(data)
        per_frame = time[:, None].repeat(1, data.shape[2])
        per_frame[:, 0] = torch.where(clean, torch.zeros_like(time), time)
        state = interpolate(data, noise, per_frame[:, None, :, None, None])
        film = data.shape[2] > 1
        tokens = data.shape[3] * data.shape[4] // own.patch**2
        times = token_times(time, clean, data.shape[2], tokens) if film else 1000 * time
        output = predict(self.module["transformer"], state, times, text).float()
        truth = data if own.prediction == "data" else velocity(data, noise)
        wanted = torch.ones_like(per_frame)
        wanted[:, 0] = (~clean).float()
        squares = F.avg_pool3d((output - truth).square().mean(1), (1, own.patch, own.patch)).flatten(
            2
        )  # (B, T, n)
        plain = (squares.mean(2) * wanted).sum(1) / wanted.sum(1)
        weight = wanted[..., None] * (1 + own.moving * _moving(batch["states"], owner))
        error = (squares * weight).sum((1, 2)) / weight.sum((1, 2))
        kind = clean.long() + film + 3 * batch["planned"]
        return self.module["uncertainty"](error, time, kind).mean(), plain.mean().detach()

    def samples(self) -> dict[str, np.ndarray]:
        """Six films of the plans of test scenes from fixed noise, in two stages, beside six from given first frames.

        Every fourth frame of each is shown.
        """
        scenes = [sample_scene(5, i, "test", size=self.config.size) for i in range(6)]
        prompts = [plan_for(scene) for scene in scenes]
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
        """Write ``text_encoder``, ``transformer``, ``tokenizer``, and the heads for trainings that start from here."""
        self.module["text_encoder"].save_pretrained(folder / "text_encoder")
        self.module["transformer"].save_pretrained(folder / "transformer")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        heads = {
            f"{name}.{key}": value
            for name in ("binding", "uncertainty")
            for key, value in self.module[name].state_dict().items()
        }
        save_file(heads, folder / HEADS)


def _numbers(scene: Scene, number: int) -> tuple[float, ...]:
    exists = number < len(scene.objects)
    return plan_numbers(scene.objects[number], scene) if exists else _NO_NUMBERS


def _moving(states: Tensor, owner: Tensor) -> Tensor:
    """Which tokens draw an object that changes inside their latent frame: (B, T, n) float."""
    changes = states.float().diff(dim=3).abs().amax((3, 4)) > 0.05  # (B, O, T)
    return (changes.mT.gather(2, owner.clamp(min=0)) & (owner >= 0)).float()
