"""The stages at full scale: BAGEL-7B-MoT understands, Wan2.2-TI2V-5B makes films, on OpenVid-1M and ActivityNet-QA.

``unireel train RECIPE --plan`` builds all of it on the meta device, counts it, and checks what data there is.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from unireel.backbones.bagel import BagelModel, bagel_7b_config
from unireel.backbones.bagel_files import flux_autoencoder
from unireel.backbones.lora import FILE, Attention, add_lora, load_lora, save_lora
from unireel.backbones.text import encode_text
from unireel.backbones.understanding import BagelUnderstanding, Request, load_understanding
from unireel.backbones.vae import encode
from unireel.backbones.wan import Prediction
from unireel.backbones.wan_files import load_wan, wan_ti2v_5b
from unireel.clip import Clip
from unireel.data.cache import epoch_order
from unireel.data.world import to_pixels
from unireel.errors import UserError
from unireel.systems.univid.conditioning import Conditioner
from unireel.systems.univid.connector import Conditions, Connector
from unireel.systems.univid.context import Combination, Condition, ContextCombiner
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
from unireel.systems.univid.temperature import TemperatureAlignment, align

FPS = 24
SPACE, TIME = 16, 4
"""Pixels and frames for a latent of Wan2.2's autoencoder."""

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


@dataclass
class Models:
    """What training starts from, whole or on the meta device; ``tokenizer`` is the text encoder's."""

    understanding: BagelUnderstanding | None
    bagel: BagelModel
    transformer: nn.Module
    vae: nn.Module
    text_encoder: nn.Module
    tokenizer: Any = None


def planned() -> Models:
    """All models as they are published, without weights."""
    bagel = BagelModel(bagel_7b_config())
    vae = AutoencoderKLWan(
        base_dim=160,
        decoder_base_dim=256,
        z_dim=48,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=SPACE,
        latents_mean=[0.0] * 48,
        latents_std=[1.0] * 48,
    )
    text = UMT5Config(
        vocab_size=256384,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=24,
        num_heads=64,
        feed_forward_proj="gated-gelu",
    )
    return Models(
        None, bagel, wan_ti2v_5b(), nn.ModuleList([vae, flux_autoencoder()]), UMT5EncoderModel(text)
    )


def loaded(config: FullConfig) -> Models:
    """All models with their weights, in bfloat16.

    Raises:
        UserError: a folder is missing or holds another model.
    """
    understanding = load_understanding(config.understanding)
    if not isinstance(understanding, BagelUnderstanding):
        raise UserError(f"'{config.understanding}' is not BAGEL, whose ViT these stages train")
    transformer, _ = load_wan(config.decoder)
    folder = Path(config.decoder)
    options = {"torch_dtype": torch.bfloat16, "local_files_only": True}
    try:
        vae = AutoencoderKLWan.from_pretrained(folder / "vae", **options)
        text_encoder = UMT5EncoderModel.from_pretrained(folder / "text_encoder", **options)
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"'{folder}' cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    return Models(understanding, understanding.model, transformer, vae.eval(), text_encoder.eval(), tokenizer)


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
        self.conditioner = Conditioner(models.understanding, self.encode_texts, self.connector, self.combiner)
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
        """All models."""
        models = self.models
        yield from (
            models.bagel,
            models.transformer,
            models.vae,
            models.text_encoder,
            self.connector,
            self.combiner,
        )
        if models.understanding is not None and models.understanding.vae is not None:
            yield models.understanding.vae

    def encode_texts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States (B, L, 4096) of UMT5, padding zero, and their mask."""
        device = next(self.models.text_encoder.parameters()).device
        read = self.models.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.config.context_length // 2,
            return_tensors="pt",
        ).to(device)
        with torch.no_grad():
            states = encode_text(self.models.text_encoder, read["input_ids"], read["attention_mask"])
        return states, read["attention_mask"]

    def films(self, index: int) -> FilmTask:
        """Films with captions; the given first frame is also what the understanding model sees."""
        own = self.config
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
        clip = Clip.load(
            find_video(own.film_folder, each.video),
            fps=FPS,
            end=own.frames / FPS,
            size=(own.height, own.width),
            fit="crop",
        )
        if len(clip) < own.frames:
            raise UserError(
                f"'{each.video}' has {len(clip)} frames at {FPS} a second; {own.frames} are wanted (raise "
                "curation.seconds or lower frames)"
            )
        frames = clip.frames[: own.frames]
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
        """Pixels through the autoencoder."""
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


class FullAdaptation(_Full, AdaptationStage):
    """Stage II at full scale."""

    config_class = FullConfig


class FullJoint(_Full, JointStage):
    """Stage III at full scale."""

    config_class = FullJointConfig
