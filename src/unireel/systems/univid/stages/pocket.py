"""The stages at pocket scale: films of the World; a model starts from a base model or the stage before."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportIndexIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unireel.backbones.lora import Attention, add_lora, lora_parameters
from unireel.backbones.understanding.interface import Kind
from unireel.backbones.vlm import language_states, pack, visual_patches, visual_tokens
from unireel.backbones.wan import MatmulAttention, Prediction
from unireel.data.cache import CacheConfig, FilmCache, build, epoch_order
from unireel.data.latents import latents_of
from unireel.data.lessons import Lessons
from unireel.data.turns import draw_turns
from unireel.hub import component, find_model, load
from unireel.systems.base.stages.binding import Uncertainty
from unireel.systems.univid.connector import Conditions
from unireel.systems.univid.context import Condition
from unireel.systems.univid.pipeline import RANKER, UniVid
from unireel.systems.univid.references import referring
from unireel.systems.univid.settings import Settings, Sizes
from unireel.systems.univid.stages.common import (
    AdaptationStage,
    AlignmentStage,
    FilmTask,
    JointStage,
    lora_modules,
)
from unireel.systems.univid.stages.curriculum import LAST_BLOCKS, Curriculum, Part
from unireel.systems.univid.temperature import align
from unireel.world.language import beyond_first_frame, plan_for, prompt_for


@dataclass(frozen=True)
class PocketConfig:
    """A system and its data.

    Attributes:
        start_from: a base model, or what an earlier stage exported.
        sizes, settings, lora_rank, attentions, new_seed: of the new parts; they count where a base model is the start,
            rank and attentions also where a model without adapters is. Rank 0: none, the connector learns alone.
        films, film_count: cache of films, made if it is missing; the first ``used_films`` are trained on.
        batch_size, picture_batch: films, and first frames, in a batch; ``pictures`` is the share of the latter.
        plans: share of prompts that are plans, half of them beyond the first frame where that is given.
        referring, given: shares of samples whose prompt speaks of a picture (a plan comes with the picture, but says
            all in words), and whose first frame is given.
        empty: share of prompts dropped for guidance, for both readers; ``unread``: dropped for the decoder's own text
            encoder only, so that what was understood must tell where both are combined.
        likeness: weight of the error between C_t's words and the states that the decoder's text encoder has for the
            same words: from these a small connector learns a language within minutes, films alone teach it little. In
            the first ``likeness_batches`` batches it learns nothing else.
        question_films, words: films in a batch of questions, and tokens of turns behind each; ``captions`` is the share
            that is also described, ``caption_weight`` the weight of such tokens.
        shift, uniform: of training times.
    """

    start_from: str = "pocket/base"
    sizes: Sizes = field(default_factory=Sizes)
    settings: Settings = field(default_factory=Settings)
    lora_rank: int = 16
    attentions: tuple[Attention, ...] = ("self", "cross")
    new_seed: int = 0
    films: str = "cache/films-48"
    film_count: int = 60_000
    used_films: int = 33_000
    batch_size: int = 16
    picture_batch: int = 64
    pictures: float = 0.5
    plans: float = 0.8
    referring: float = 0.2
    given: float = 0.5
    empty: float = 0.1
    unread: float = 0.0
    likeness: float = 0.5
    likeness_batches: int = 0
    question_films: int = 16
    words: int = 96
    captions: float = 0.15
    caption_weight: float = 0.3
    shift: float = 3.0
    uniform: float = 0.2
    data_seed: int = 13

    def __post_init__(self) -> None:
        if self.likeness_batches and not self.likeness:
            raise ValueError("likeness_batches: batches of likeness alone need a likeness above 0")

    def material(self) -> PocketMaterial:
        """The system with its data."""
        return PocketMaterial(self)


@dataclass(frozen=True)
class PocketJointConfig(PocketConfig):
    """Also the phases of stage III."""

    curriculum: Curriculum = field(default_factory=Curriculum)


class PocketMaterial:
    """See :class:`~unireel.systems.univid.stages.common.Material`."""

    def __init__(self, config: PocketConfig) -> None:
        self.config = config
        model = load(config.start_from, device="cpu", fast=False)
        if not isinstance(model, UniVid):
            model = UniVid.from_base(model, config.settings, config.sizes, config.new_seed)
            ranker = component(find_model(config.start_from), RANKER)
            model.ranker_folder = ranker if ranker.is_dir() else None
        self.model = model
        self.transformer, self.conditioner = model.transformer, model.conditioner
        if config.lora_rank and not lora_parameters(self.transformer):
            add_lora(self.transformer, config.lora_rank, attentions=config.attentions)
        self.transformer.set_attn_processor(MatmulAttention())
        self.aligned = align(self.transformer, model.settings.alignment, reference=False)
        self.prediction: Prediction = model.config["prediction"]
        self.shift, self.uniform = config.shift, config.uniform
        model.vlm.model.language_model.set_attn_implementation(
            "eager"
        )  # the layers take masks of packed turns
        build(Path(config.films), CacheConfig(config.film_count, model.size))
        self.cache = FilmCache(config.films)
        self.lessons = Lessons(self.cache)
        self.encoded = latents_of(self.cache, model.vae, config.used_films)
        self.uncertainty = Uncertainty(kinds=4)

    def parts(self) -> dict[Part, nn.Module]:
        """The parts that stages may train."""
        visual = self.model.vlm.model.visual
        return {
            "connector": nn.ModuleDict({"connector": self.model.connector, "combiner": self.model.combiner}),
            "lora": lora_modules(self.transformer),
            "vit": nn.ModuleList(visual.blocks[-LAST_BLOCKS:]),
            "merger": visual.merger,
        }

    def frozen(self) -> Iterator[nn.Module]:
        """All components."""
        model = self.model
        yield from (
            model.vae,
            model.text_encoder,
            model.transformer,
            model.vlm,
            model.connector,
            model.combiner,
        )

    def films(self, index: int) -> FilmTask:
        """First frames or films, with prompts, some of which speak of a picture, and some first frames given."""
        own = self.config
        still = int((index + 1) * own.pictures) > int(index * own.pictures)
        count = own.picture_batch if still else own.batch_size
        random = np.random.default_rng([own.data_seed, index])
        places = [
            epoch_order(own.data_seed + still, len(self.encoded), index * count + i) for i in range(count)
        ]
        samples = [self._sample(place, still, random) for place in places]
        frames = 1 if still else self.encoded.shape[2]
        latents = np.stack([self.encoded[place, :, :frames] for place in places]).astype(np.float32)
        prompts, texts, pictures, clean = zip(*samples, strict=True)
        is_made = index >= own.likeness_batches
        return FilmTask(prompts, texts, pictures, torch.from_numpy(latents), torch.tensor(clean), is_made)

    def _sample(
        self, place: int, still: bool, random: np.random.Generator
    ) -> tuple[str, str, np.ndarray | None, bool]:
        """Prompt, text, picture, and whether the first frame is given."""
        own, scene = self.config, self.cache.scene(place)
        prompt = prompt_for(scene, int(random.integers(2**31)))
        kind, dropped = random.random(2)
        plan = (
            plan_for(scene, random.permutation(len(scene.objects))) if random.random() < own.plans else None
        )
        said, picture, clean = plan or prompt.text, None, False
        if kind < own.referring:
            made = referring(prompt, scene, int(random.integers(2**31)))
            if made is not None:
                said, picture = plan or made.text, made.picture
        elif kind < own.referring + own.given and not still:
            picture, clean = np.asarray(self.cache.frames[place, 0]), True
            said = beyond_first_frame(said) if plan and random.random() < 0.5 else said
        read = "" if dropped < own.empty + own.unread else said
        return "" if dropped < own.empty else said, read, picture, clean

    def latents(self, data: Tensor) -> Tensor:
        """Latents of the cache are as they should be."""
        return data

    def helpers(self) -> dict[str, nn.Module]:
        """What is to be expected of errors at each time."""
        return {"uncertainty": self.uncertainty}

    def likeness(self, conditions: Conditions, condition: Condition, is_made: bool) -> Tensor | None:
        """The error of C_t's words over the variance of the text encoder's states: 1 is what their mean would have.

        Words come last in C_t, after the marks ``<s> <caption>``, which should be nothing, like all else while no films
        are made. Rows whose text is another than the prompt are left out.
        """
        if not self.config.likeness or condition.text is None or condition.text_mask is None:
            return None
        marks, lengths = 2, condition.text_mask.sum(1)
        own = (condition.features.kinds == Kind.TEXT).sum(1) == lengths + marks
        errors, wanted = [], condition.text[condition.text_mask.bool()].float()
        for row in own.nonzero().flatten().tolist():
            tokens = conditions.tokens[row][conditions.mask[row]].float()
            words = int(lengths[row])
            errors.append((tokens[-words:] - condition.text[row, :words].float()).square().flatten())
            errors.append(tokens[(-words - marks if is_made else 0) : -words].square().flatten())
        if not errors:
            return conditions.tokens.sum() * 0.0
        error = torch.cat(errors).mean() / wanted.var(0, unbiased=False).mean().clamp_min(1e-6)
        return self.config.likeness * error

    def weighed(self, errors: Tensor, time: Tensor, task: FilmTask) -> Tensor:
        """Each weighed by what is expected at its time, as in the base system's generator."""
        film = int(task.data.shape[2] > 1)
        return self.uncertainty(errors, time, task.clean.long() + 2 * film).mean()

    def questions(self, index: int) -> dict[str, Tensor]:
        """Films as patches, with packed turns behind each (see :func:`~unireel.backbones.vlm.pack`)."""
        own, vlm = self.config, self.model.understanding
        random = np.random.default_rng([own.data_seed, 1, index])
        count = own.question_films
        order = own.data_seed + 2
        places = [epoch_order(order, own.used_films, index * count + i) for i in range(count)]
        turns = [
            draw_turns(self.lessons, place, own.words, own.captions, own.caption_weight, random)
            for place in places
        ]
        patches, grid = visual_patches(np.stack([self.cache.frames[place] for place in places]), vlm.layout)
        packed = pack(turns, grid[0], vlm.tokenizer, merge=vlm.layout.merge)
        return {**packed, "patches": patches, "grid": grid}

    def answer_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy on answers (and captions), each token from the one before; questions are given, not learned."""
        vlm = self.model.vlm
        seen, _ = visual_tokens(vlm, batch["patches"], batch["grid"])
        embeds = vlm.get_input_embeddings()(batch["input_ids"])
        embeds = torch.cat([embeds[:, :1], seen.to(embeds.dtype), embeds[:, 1 + seen.shape[1] :]], dim=1)
        hidden = language_states(vlm, embeds, batch["position_ids"], batch["attention_mask"])[-1]
        weights = batch["weights"][:, 1:]
        chosen = weights > 0
        logits = vlm.lm_head(hidden[:, :-1][chosen]).float()
        targets = batch["input_ids"][:, 1:][chosen]
        entropy = F.cross_entropy(logits, targets, reduction="none")
        loss = (entropy * weights[chosen]).sum() / weights.sum()
        right = (logits.argmax(-1) == targets).float()[weights[chosen] == 1]
        return loss, {"answer_loss": loss.detach(), "answer_tokens_right": right.mean()}

    def export(self, folder: Path) -> None:
        """Write the whole model, in float32, so that the next stage loses nothing."""
        self.model.save_pretrained(folder, torch.float32)

    def report(self) -> list[str]:
        """The data."""
        return [f"{len(self.encoded)} films of the World with {len(self.lessons.turns)} turns"]


class PocketAlignment(AlignmentStage):
    """Stage I at pocket scale."""

    config_class = PocketConfig


class PocketAdaptation(AdaptationStage):
    """Stage II at pocket scale."""

    config_class = PocketConfig


class PocketJoint(JointStage):
    """Stage III at pocket scale."""

    config_class = PocketJointConfig
