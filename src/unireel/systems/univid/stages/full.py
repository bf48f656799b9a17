"""The stages at full scale: BAGEL-7B-MoT understands, Wan2.2-TI2V-5B makes films, on OpenVid-1M and ActivityNet-QA.

``unireel train RECIPE --plan`` builds all of it on the meta device, counts it, and checks what data there is.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unireel.backbones.lora import FILE, Attention, add_lora, load_lora, save_lora
from unireel.backbones.text import encode_text
from unireel.backbones.understanding import Request
from unireel.backbones.vae import encode
from unireel.backbones.wan import Prediction
from unireel.clip import Clip
from unireel.data.cache import epoch_order
from unireel.data.features import Item, Source
from unireel.data.features.store import hash_of
from unireel.data.world import to_pixels
from unireel.errors import UserError
from unireel.evaluation.fingerprint import fingerprint
from unireel.systems.univid.conditioning import Conditioner
from unireel.systems.univid.connector import Conditions, Connector
from unireel.systems.univid.context import Combination, Condition, ContextCombiner
from unireel.systems.univid.stages.cached import CachedConditioner, CachedFilms, FilmEncoder
from unireel.systems.univid.stages.common import (
    AdaptationStage,
    AlignmentStage,
    FilmTask,
    JointStage,
    lora_modules,
)
from unireel.systems.univid.stages.curriculum import LAST_BLOCKS, Curriculum, Part
from unireel.systems.univid.stages.datasets import (
    CaptionedFilm,
    Curation,
    Dialogue,
    find_video,
    read_dialogues,
    read_films,
)
from unireel.systems.univid.stages.full_models import SPACE, TIME, Models, loaded, loaded_encoders, planned
from unireel.systems.univid.temperature import TemperatureAlignment, align

FPS = 24
UNDERSTOOD, COMBINER = "understanding.safetensors", "combiner.safetensors"


@dataclass(frozen=True)
class FullConfig:
    """Models and data.

    Attributes:
        understanding: BAGEL's published folder. decoder: Wan2.2-TI2V-5B in diffusers' layout (transformer, vae,
            text_encoder, tokenizer). start_from: what an earlier stage exported, or nothing.
        hidden, layers: of the connector; combination, context_length: see
            :class:`~unireel.systems.univid.context.ContextCombiner`; lora_rank, attentions: of the adapters.
        films, film_folder, curation, most_films: OpenVid-1M's table, where its videos are, and which are taken.
        questions, answers, question_folder, most_questions: ActivityNet-QA (two files) or Video-ChatGPT (one).
        frames, height, width: of films that are made. question_frames: taken evenly from a film that is asked about.
        features: folder of what ``unireel features`` has made of the films, or nothing to make it in every epoch; for
            stage I, in which what makes them does not learn.
        given: share of films whose first frame is given. empty, unread: prompts dropped, see
            :class:`~unireel.systems.univid.stages.pocket.PocketConfig`.
    """

    understanding: str = "BAGEL-7B-MoT"
    decoder: str = "Wan2.2-TI2V-5B-Diffusers"
    start_from: str = ""
    hidden: int = 1024
    layers: int = 4
    combination: Combination = "gate"
    context_length: int = 512
    lora_rank: int = 32
    attentions: tuple[Attention, ...] = ("self", "cross")
    alignment: TemperatureAlignment = field(default_factory=TemperatureAlignment)
    films: str = "OpenVid-1M.csv"
    film_folder: str = "OpenVid-1M"
    curation: Curation = field(default_factory=Curation)
    most_films: int = 0
    features: str = ""
    questions: str = "activitynet-qa/train_q.json"
    answers: str = "activitynet-qa/train_a.json"
    question_folder: str = "activitynet"
    most_questions: int = 20_000
    frames: int = 121
    height: int = 704
    width: int = 1280
    question_frames: int = 16
    batch_size: int = 1
    question_batch: int = 1
    given: float = 0.5
    empty: float = 0.1
    unread: float = 0.0
    shift: float = 5.0
    uniform: float = 0.1
    data_seed: int = 17

    def __post_init__(self) -> None:
        if self.frames % TIME != 1 or self.height % (2 * SPACE) or self.width % (2 * SPACE):
            raise ValueError(
                f"frames={self.frames}, height={self.height}, width={self.width}: "
                f"4 k + 1 frames, and sides that are multiples of {2 * SPACE}"
            )

    def material(self) -> FullMaterial:
        """The system with its data."""
        return FullMaterial(self, planned() if torch.get_default_device().type == "meta" else loaded(self))


@dataclass(frozen=True)
class FullJointConfig(FullConfig):
    """Also the phases of stage III."""

    curriculum: Curriculum = field(default_factory=Curriculum)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features:
            raise ValueError("'features' are of a frozen understanding model, which this stage trains")


def read_frames(config: FullConfig, path: Path) -> np.ndarray:
    """The first frames (F, H, W, 3) uint8 of a film, as they are learned.

    Raises:
        UserError: it cannot be read, or is too short.
    """
    size = (config.height, config.width)
    clip = Clip.load(path, fps=FPS, end=config.frames / FPS, size=size, fit="crop")
    if len(clip) < config.frames:
        raise UserError(
            f"'{path.name}' has {len(clip)} frames at {FPS} a second; {config.frames} are wanted (raise "
            "curation.seconds or lower frames)"
        )
    return clip.frames[: config.frames]


def text_states(
    encoder: nn.Module, tokenizer: Any, longest: int, texts: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """States (B, L, 4096) of UMT5, padding zero, and their mask (B, L)."""
    read = tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt").to(
        next(encoder.parameters()).device
    )
    with torch.no_grad():
        states = encode_text(encoder, read["input_ids"], read["attention_mask"])
    return states, read["attention_mask"]


def film_encoder(config: FullConfig, number: int) -> FilmEncoder:
    """What makes the features of films in worker ``number``, on a device of its own where there are any."""
    understanding, vae, text_encoder, tokenizer = loaded_encoders(config)
    devices = torch.cuda.device_count()
    device = torch.device("cuda", number % devices) if devices else torch.device("cpu")
    if config.start_from:
        bagel = understanding.model
        parts = {"vit": bagel.vit_model.vision_model.encoder.layers[-LAST_BLOCKS:], "merger": bagel.connector}
        nn.ModuleDict(parts).load_state_dict(load_file(Path(config.start_from) / UNDERSTOOD))
    for module in (understanding.model, understanding.vae, vae, text_encoder):
        if module is not None:
            module.to(device).requires_grad_(False)
    texts = partial(text_states, text_encoder, tokenizer, config.context_length // 2)
    return FilmEncoder(understanding, vae, texts, partial(read_frames, config))


def film_features(config: FullConfig) -> tuple[Path, Source] | None:
    """Where features of films are, and what they are made of.

    Raises:
        UserError: the table cannot be read, or a model or a film is not there.
    """
    if not config.features:
        return None
    films = read_films(config.films, config.curation, config.most_films)
    items = [Item(find_video(config.film_folder, each.video), each.caption) for each in films]
    decoder = Path(config.decoder)
    folders = [Path(config.understanding), *(decoder / name for name in ("vae", "text_encoder", "tokenizer"))]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no folder '{folder}'")
    made_with: dict[str, Any] = {str(folder): fingerprint(folder) for folder in folders}
    for name in ("frames", "height", "width", "context_length"):
        made_with[name] = getattr(config, name)
    if config.start_from:
        made_with["start_from"] = hash_of(Path(config.start_from) / UNDERSTOOD)
    digest = hashlib.sha256(json.dumps(list(made_with.values())).encode()).hexdigest()[:32]
    return Path(config.features), Source(items, partial(film_encoder, config), digest, made_with)


class FullMaterial:
    """See :class:`~unireel.systems.univid.stages.common.Material`."""

    def __init__(self, config: FullConfig, models: Models) -> None:
        self.config, self.models = config, models
        self.bagel, self.transformer = models.bagel, models.transformer
        self.shift, self.uniform = config.shift, config.uniform
        self.prediction: Prediction = "velocity"
        self.bagel.requires_grad_(False)
        start = Path(config.start_from) if config.start_from else None
        width = self.transformer.config["text_dim"]
        self.combiner = ContextCombiner(config.combination, config.context_length)
        is_planned = models.understanding is None
        if start is None or is_planned:
            self.connector = Connector(
                self.bagel.config.text_config.hidden_size, width, config.hidden, config.layers
            )
            add_lora(self.transformer, config.lora_rank, attentions=config.attentions)
        else:
            self._go_on(start)
        for part in (self.parts()["vit"], self.parts()["merger"], self.parts()["lora"]):
            part.float()  # what is trained is kept in full precision
        self.aligned = align(self.transformer, config.alignment, reference=False)
        read_back = bool(config.features) and not is_planned
        conditioner = CachedConditioner if read_back else Conditioner
        self.conditioner = conditioner(models.understanding, self.encode_texts, self.connector, self.combiner)
        self._cached = CachedFilms(
            config.features, config.batch_size, config.given, config.empty, config.unread, config.data_seed
        ) if read_back else None  # fmt: skip
        self._films: list[CaptionedFilm] | None = None
        self._dialogues: list[Dialogue] | None = None

    def _go_on(self, start: Path) -> None:
        if not (start / "adapters" / FILE).is_file():
            raise UserError(f"'{start}' is no export of a UniVid stage: it has no adapters")
        self.connector = Connector.from_pretrained(start / "connector", local_files_only=True)
        load_lora(self.transformer, start / "adapters")
        self.combiner.load_state_dict(load_file(start / COMBINER))
        self._understood().load_state_dict(load_file(start / UNDERSTOOD))

    def _understood(self) -> nn.ModuleDict:
        """What stages II and III change of the understanding model."""
        return nn.ModuleDict({name: self.parts()[name] for name in ("vit", "merger")})

    def parts(self) -> dict[Part, nn.Module]:
        """The parts that stages may train."""
        return {
            "connector": nn.ModuleDict({"connector": self.connector, "combiner": self.combiner}),
            "lora": lora_modules(self.transformer),
            "vit": nn.ModuleList(self.bagel.vit_model.vision_model.encoder.layers[-LAST_BLOCKS:]),
            "merger": self.bagel.connector,
        }

    def frozen(self) -> Iterator[nn.Module]:
        """All models; what is read back from features is not needed."""
        models = self.models
        yield from (models.transformer, self.connector, self.combiner)
        if self._cached is not None:
            return
        yield from (models.bagel, models.vae, models.text_encoder)
        if models.understanding is not None and models.understanding.vae is not None:
            yield models.understanding.vae

    def encode_texts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States (B, L, 4096) of UMT5, padding zero, and their mask."""
        own = self.models
        return text_states(own.text_encoder, own.tokenizer, self.config.context_length // 2, texts)

    def films(self, index: int) -> FilmTask:
        """Films with captions; the given first frame is also what the understanding model sees."""
        own = self.config
        if self._cached is not None:
            return self._cached.task(index)
        if self.models.understanding is None:
            shape = (own.batch_size, 3, own.frames, own.height, own.width)
            return FilmTask(
                ("",), ("",), (None,), torch.zeros(shape), torch.zeros(own.batch_size, dtype=torch.bool)
            )
        if self._films is None:
            self._films = read_films(own.films, own.curation, own.most_films)
        found, random = self._films, np.random.default_rng([own.data_seed, index])
        samples = [self._film(found, index * own.batch_size + i, random) for i in range(own.batch_size)]
        prompts, texts, pictures, pixels, clean = zip(*samples, strict=True)
        return FilmTask(prompts, texts, pictures, torch.cat(pixels), torch.tensor(clean))

    def _film(
        self, found: list[CaptionedFilm], number: int, random: np.random.Generator
    ) -> tuple[str, str, np.ndarray | None, Tensor, bool]:
        own = self.config
        each = found[epoch_order(own.data_seed, len(found), number)]
        frames = read_frames(own, find_video(own.film_folder, each.video))
        clean, dropped = bool(random.random() < own.given), random.random()
        read = "" if dropped < own.empty + own.unread else each.caption
        prompt = "" if dropped < own.empty else each.caption
        return prompt, read, frames[0] if clean else None, to_pixels(frames[None]), clean

    @torch.no_grad()
    def helpers(self) -> dict[str, nn.Module]:
        """Nothing."""
        return {}

    def likeness(self, conditions: Conditions, condition: Condition, is_made: bool) -> Tensor | None:
        """None: the paper has flow matching alone."""
        return None

    def weighed(self, errors: Tensor, time: Tensor, task: FilmTask) -> Tensor:
        """Their mean."""
        return errors.mean()

    def latents(self, data: Tensor) -> Tensor:
        """Pixels through the autoencoder; features are latents already."""
        if self._cached is not None:
            return data.float()
        return encode(self.models.vae, data.to(next(self.models.vae.parameters()).dtype)).float()

    def questions(self, index: int) -> list[tuple[Request, str]]:
        """Films of a few frames with a question, and the answer to learn."""
        own = self.config
        if self.models.understanding is None:
            return []
        if self._dialogues is None:
            self._dialogues = read_dialogues(own.questions, own.answers or None, own.most_questions)
        found = self._dialogues
        batch = []
        for number in range(index * own.question_batch, (index + 1) * own.question_batch):
            each = found[epoch_order(own.data_seed + 1, len(found), number)]
            clip = Clip.load(find_video(own.question_folder, each.video), num_frames=own.question_frames)
            batch.append((Request(each.question, clip.frames), each.answer))
        return batch

    def answer_loss(self, batch: list[tuple[Request, str]]) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy on the assistant's turn alone."""
        assert self.models.understanding is not None
        states, targets = self.models.understanding.answer_states(*zip(*batch, strict=True))
        logits = self.bagel.logits(states).float()
        loss = F.cross_entropy(logits, targets)
        right = (logits.argmax(-1) == targets).float().mean()
        return loss, {"answer_loss": loss.detach(), "answer_tokens_right": right}

    def export(self, folder: Path) -> None:
        """Write what was trained: connector, adapters (as diffusers loads them), combiner, ViT blocks and merger."""
        self.connector.save_pretrained(folder / "connector")
        save_lora(self.transformer, folder / "adapters")
        save_file(self.combiner.state_dict(), folder / COMBINER)
        save_file(self._understood().state_dict(), folder / UNDERSTOOD)

    def report(self) -> list[str]:
        """What the models weigh, how long the sequences are, and what data there is."""
        own, models = self.config, self.models
        latents = (own.frames - 1) // TIME + 1
        tokens = latents * (own.height // (2 * SPACE)) * (own.width // (2 * SPACE))
        named = {
            "understanding model": models.bagel,
            "decoder with adapters": models.transformer,
            "text encoder": models.text_encoder,
            "autoencoders": models.vae,
            "connector": self.connector,
        }
        lines = [f"{name}: {_count(module) / 1e9:.3f} B parameters" for name, module in named.items()]
        total = sum(_count(module) for module in named.values())
        lines.append(f"all in bfloat16: {2 * total / 2**30:.1f} GiB on each device, and what training adds")
        lines.append(
            f"a film of {own.frames} frames, {own.width}x{own.height}: {tokens} tokens of the decoder, "
            f"{own.context_length} of its context"
        )
        if self._cached is not None:
            cache = self._cached.cache
            lines.append(
                f"features of {len(cache)} films from '{own.features}', {cache.without} films have none"
            )
        return [
            *lines,
            _checked("films", own.films, lambda: read_films(own.films, own.curation, own.most_films)),
            _checked("questions", own.questions, self._some_dialogues),
        ]

    def _some_dialogues(self) -> list[Dialogue]:
        own = self.config
        return read_dialogues(own.questions, own.answers or None, own.most_questions)


def _checked(what: str, path: str, read: Callable[[], list[Any]]) -> str:
    """A line on a data file; one that is there but cannot be read is an error."""
    if not Path(path).exists():
        return f"{what}: '{path}' is not there yet"
    return f"{what}: {len(read())} rows are taken from '{path}'"


def _count(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


class _Full:
    """What the stages at full scale have in common."""

    material: FullMaterial
    plans_on_meta = True

    def sequence_models(self) -> list[nn.Module]:
        """The decoder, of which ``module`` holds the adapters alone."""
        return [self.material.transformer]


class FullAlignment(_Full, AlignmentStage):
    """Stage I at full scale."""

    config_class = FullConfig

    @classmethod
    def features(cls, config: FullConfig) -> tuple[Path, Source] | None:
        """What the understanding model, the text encoder and the autoencoder make of the films."""
        return film_features(config)


class FullAdaptation(_Full, AdaptationStage):
    """Stage II at full scale."""

    config_class = FullConfig


class FullJoint(_Full, JointStage):
    """Stage III at full scale."""

    config_class = FullJointConfig
