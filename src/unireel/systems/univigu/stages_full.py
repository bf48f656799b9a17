"""Uni-ViGU at full scale (arXiv 2604.08121): Wan2.1-T2V-1.3B learns to write about the films of a list.

Knowledge Recall writes the short caption, which conditions the film and is mostly dropped; Capability Refinement writes
the detailed one, which ``unireel data caption`` has any captioner write. Both are this stage with another ``target``.
``unireel train RECIPE --plan`` builds all of it on the meta device, counts and sizes it, and checks what data there is.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

from unireel.backbones.text import SPECIAL_TOKENS, encode_text, tokenize, umt5_xxl
from unireel.backbones.uni_rows import Film, Words
from unireel.backbones.uni_wan import UniWanTransformer
from unireel.backbones.uni_wan_files import with_text
from unireel.backbones.vae import encode, latent_frames
from unireel.backbones.wan_files import load_encoders, load_wan, wan_t2v_1_3b
from unireel.clip import Clip
from unireel.data.cache import epoch_order
from unireel.data.captioned import CaptionedFilm, film_file, read_captioned
from unireel.errors import UsageError, UserError
from unireel.flow.formulations import text_flow
from unireel.flow.matching import interpolate, sample_times, velocity
from unireel.flow.text import TextFlow
from unireel.systems.univigu.pages import Page, caption_text, page_of, prompt_text
from unireel.systems.univigu.sizing import Sizing
from unireel.training.stage import ParameterRule, Stage

SPACE, TIME = 8, 4
"""Pixels and frames for a latent of Wan2.1's autoencoder."""

CONTEXT = 512
"""Rows of the condition, as Wan's own pipeline has them."""

MARKS = tuple(each for each in SPECIAL_TOKENS if each not in ("<pad>", "<unk>", "</s>", "<film>"))
"""Tokens that say what a text is; they take numbers that the embedding of UMT5 has and its tokenizer leaves free."""

CARD = "univigu.json"
MOST_TRIES = 20
"""Films in a row that cannot be used before a training is given up."""

Target = Literal["prompt", "detailed"]


@dataclass(frozen=True)
class FullUniConfig:
    """Models and data.

    Attributes:
        decoder: Wan2.1-T2V-1.3B in diffusers' layout (transformer, vae, text_encoder, tokenizer).
        start_from: what an earlier stage exported, instead of the decoder's transformer.
        films, film_folder, most_films: a list with columns video, caption and, for the second stage, detailed (see
            :mod:`unireel.data.captioned`), where its films are, and how many are taken (0: all).
        target: what is written about a film.
        frames, height, width, fps: what is taken of a film, from its start, cut to shape.
        formulation, uniform, text_init, one_way, text_slots: see
            :class:`~unireel.systems.univigu.stages.UniConfig` and :mod:`unireel.backbones.uni_rows`.
        condition_dropout: share of texts written with an empty condition; of films alone it is a tenth.
        understand, pair, film: weights of a text about a clean film, of both noisy with times of their own, and of a
            film without text.
        film_weight: of the film's loss; each loss is a mean over its own tokens.
        padding_weight, spare: of places behind a text's end, and how many there are at most.
        shift, film_uniform: of the film's times, see :func:`~unireel.flow.matching.sample_times`.
        shared_lr: factor on the learning rate of everything that the film stream had already.
        checkpointing: blocks keep their inputs alone, and are computed again in the backward pass.
    """

    decoder: str = "Wan2.1-T2V-1.3B-Diffusers"
    start_from: str = ""
    films: str = "films-detailed.csv"
    film_folder: str = "films"
    most_films: int = 10_000
    target: Target = "prompt"
    frames: int = 81
    height: int = 480
    width: int = 832
    fps: float = 16.0
    formulation: Literal["masked", "uniform", "hybrid"] = "masked"
    uniform: float = 0.1
    text_init: Literal["video", "new"] = "video"
    one_way: bool = True
    text_slots: int = 512
    batch_size: int = 1
    condition_dropout: float = 0.9
    understand: float = 0.5
    pair: float = 0.3
    film: float = 0.2
    film_weight: float = 1.0
    padding_weight: float = 0.1
    spare: int = 16
    shift: float = 3.0
    film_uniform: float = 0.1
    shared_lr: float = 0.2
    checkpointing: bool = True
    data_seed: int = 5

    def __post_init__(self) -> None:
        if self.frames % TIME != 1 or self.height % (2 * SPACE) or self.width % (2 * SPACE):
            raise ValueError(
                f"frames={self.frames}, height={self.height}, width={self.width}: "
                f"4 k + 1 frames, and sides that are multiples of {2 * SPACE}"
            )
        if min(self.shares) < 0 or not sum(self.shares):
            raise ValueError("'understand', 'pair' and 'film' need weights of which one is above 0")
        if not 0 <= self.condition_dropout <= 1:
            raise ValueError(f"'condition_dropout' is {self.condition_dropout}: a share between 0 and 1")

    @property
    def shares(self) -> tuple[float, float, float]:
        """Weights of understand, pair, film."""
        return self.understand, self.pair, self.film

    @property
    def latents(self) -> tuple[int, int, int]:
        """(T, h, w) of a film."""
        return latent_frames(self.frames, TIME), self.height // SPACE, self.width // SPACE


@dataclass
class FullModels:
    """What training starts from, whole or on the meta device; ``tokenizer`` is the text encoder's, with marks."""

    transformer: UniWanTransformer
    vae: nn.Module
    text_encoder: nn.Module
    tokenizer: Any = None


def text_settings(config: FullUniConfig, vocabulary: int) -> dict[str, Any]:
    """How the text half of the model is built, over ``vocabulary`` words."""
    return {
        "text_vocabulary": vocabulary,
        "text_init": config.text_init,
        "text_mask": config.formulation != "uniform",
        "text_slots": config.text_slots,
        "one_way": config.one_way,
    }


def planned(config: FullUniConfig) -> FullModels:
    """All models as they are published, without weights; to be called under the meta device."""
    encoder = umt5_xxl()
    transformer = with_text(wan_t2v_1_3b(), **text_settings(config, encoder.config.vocab_size))
    return FullModels(transformer, AutoencoderKLWan(), encoder)


def loaded(config: FullUniConfig) -> FullModels:
    """All models with their weights; what is frozen in bfloat16, what is trained in float32.

    Raises:
        UserError: a folder is missing or holds another model.
    """
    vae, encoder, tokenizer = load_encoders(config.decoder)
    if config.start_from:
        transformer = _went_on(config)
    else:
        video, _ = load_wan(config.decoder, torch.float32)
        transformer = with_text(video, **text_settings(config, encoder.config.vocab_size))
    return FullModels(transformer, vae, encoder, marked(tokenizer, encoder.config.vocab_size))


def _went_on(config: FullUniConfig) -> UniWanTransformer:
    """The transformer that an earlier stage exported."""
    start = Path(config.start_from)
    try:
        card = json.loads((start / CARD).read_text(encoding="utf-8"))
        transformer = UniWanTransformer.from_pretrained(
            start / "transformer", torch_dtype=torch.float32, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise UserError(f"'{start}' is no export of this stage: {str(error).splitlines()[0]}") from error
    if card.get("formulation") != config.formulation:
        raise UsageError(
            f"'{start}' writes text as '{card.get('formulation')}', not as '{config.formulation}'"
        )
    return transformer


def marked(tokenizer: Any, vocabulary: int) -> Any:
    """The tokenizer with :data:`MARKS`, which pages of text begin with.

    Raises:
        UserError: they would take numbers that the ``vocabulary`` of the model has not.
    """
    tokenizer.add_tokens(list(MARKS), special_tokens=True)
    if len(tokenizer) > vocabulary:
        raise UserError(
            f"the tokenizer has {len(tokenizer)} tokens with its marks; the model writes {vocabulary}"
        )
    return tokenizer


class FullUniStage(Stage):
    """Flow matching on latents and the chosen flow on words, of films from a list.

    Every micro-batch goes through both streams, whatever is learned from it, so that all processes gather the same
    weights at the same time and every weight has a gradient.
    """

    config_class = FullUniConfig
    config: FullUniConfig
    plans_on_meta = True
    forward_methods = (*Stage.forward_methods, "streams")

    def __init__(self, config: FullUniConfig) -> None:
        super().__init__(config)
        self.is_planned = torch.get_default_device().type == "meta"
        models = planned(config) if self.is_planned else loaded(config)
        self.vae, self.text_encoder = models.vae, models.text_encoder
        self.tokenizer = models.tokenizer
        for frozen in (self.vae, self.text_encoder):
            frozen.requires_grad_(False)
        for block in models.transformer.blocks:
            block.checkpointing = config.checkpointing
        self.module = nn.ModuleDict({"transformer": models.transformer.train()})
        self.samples_per_batch = config.batch_size
        self._films: list[CaptionedFilm] | None = None

    @property
    def flow(self) -> TextFlow:
        """Text as a flow."""
        words = self.module["transformer"].config["text_vocabulary"]
        return text_flow(self.config.formulation, words, None, self.config.uniform)

    def parameter_groups(self) -> list[ParameterRule]:
        """Tables of words and heads are not hidden matrices; what the film stream had learns more slowly."""
        tables = ("*text_embedding*", "*slot_embedding*", "*text_head*")
        apart = ("*ffn_t*", "*_t", "*text_time*", "*text_norm*", "*text_table*")
        slow = self.config.shared_lr
        return [
            *(ParameterRule(name, muon=False) for name in tables),
            *(ParameterRule(name) for name in apart),
            *(ParameterRule(name, lr=slow, muon=False) for name in ("*patch_embedding*", "*proj_out*")),
            ParameterRule("*", lr=slow),
        ]

    def sequence_models(self) -> list[nn.Module]:
        """None can be split.

        Raises:
            UsageError: always: rows of two streams are not split over processes.
        """
        raise UsageError("'sequence' is for models of one stream; Uni-ViGU has two: leave it at 1")

    def to(self, device: torch.device) -> None:
        """Move the models; those on the meta device, which are only planned, stay."""
        if self.is_planned:
            self.device = device
        else:
            super().to(device)

    def films(self) -> list[CaptionedFilm]:
        """The films of the list that have what is written about them.

        Raises:
            UserError: it cannot be read, or has none.
        """
        if self._films is None:
            own = self.config
            needs = ("video", "caption", "detailed") if own.target == "detailed" else ("video", "caption")
            self._films, _ = read_captioned(own.films, needs, own.most_films)
        return self._films

    def batch(self, index: int) -> dict[str, Tensor]:
        """Films as ``pixels`` (B, F, H, W, 3) uint8, their conditions, pages of text, and what is learned from each.

        ``noisy`` and ``spoken`` (B,) bool say whose film and whose text.
        """
        own = self.config
        if self.is_planned:
            return self._planned_batch()
        found = self.films()
        samples = [
            self._sample(
                found, index * own.batch_size + row, np.random.default_rng([own.data_seed, index, row])
            )
            for row in range(own.batch_size)
        ]
        pixels, conditions, texts, spare, noisy, spoken = zip(*samples, strict=True)
        ids, mask = tokenize(self.tokenizer, conditions, CONTEXT)
        page = page_of(self.tokenizer, texts, spare, own.text_slots)
        # Where a film is alone no word is there; nor is one given, which would have nothing to read.
        told = torch.tensor(spoken)
        given, there = (each & told[:, None] for each in (page.given, page.there))
        batch = {"ids": ids, "mask": mask, "words": page.ids, "given": given, "there": there}
        batch |= {"noisy": torch.tensor(noisy), "spoken": told}
        return batch | {"pixels": torch.from_numpy(np.stack(pixels))}

    def _sample(
        self, found: list[CaptionedFilm], number: int, random: np.random.Generator
    ) -> tuple[Any, ...]:
        """One film with all that is drawn for it; one that cannot be used is passed over for the next of the list."""
        own = self.config
        kind = int(random.choice(3, p=np.array(own.shares) / sum(own.shares)))
        noisy, spoken = kind != 0, kind != 2
        dropped = random.random() < (own.condition_dropout if spoken else 0.1)
        spare = int(random.integers(0, own.spare + 1))
        place = epoch_order(own.data_seed, len(found), number)
        for each in range(MOST_TRIES):
            film = found[(place + each) % len(found)]
            text = prompt_text(film.caption) if own.target == "prompt" else caption_text(film.detailed)
            condition = "" if dropped else film.caption
            try:
                page_of(self.tokenizer, [text], spare, own.text_slots)
                tokenize(self.tokenizer, [condition], CONTEXT)
                return self._frames(film), condition, text, spare, noisy, spoken
            except UserError as error:
                warnings.warn(f"passed over: {error}", stacklevel=2)
        raise UserError(f"{MOST_TRIES} films in a row cannot be used, the last is '{film.video}'")

    def _frames(self, film: CaptionedFilm) -> np.ndarray:
        """The film's frames (F, H, W, 3) uint8."""
        own = self.config
        clip = Clip.load(
            film_file(own.film_folder, film.video),
            fps=own.fps,
            end=own.frames / own.fps,
            size=(own.height, own.width),
            fit="crop",
        )
        if len(clip) < own.frames:
            raise UserError(
                f"'{film.video}' has {len(clip)} frames at {own.fps:g} a second; {own.frames} are wanted"
            )
        return np.ascontiguousarray(clip.frames[: own.frames])

    def _planned_batch(self) -> dict[str, Tensor]:
        own = self.config
        row = torch.zeros(own.batch_size, dtype=torch.bool)
        text = torch.zeros(own.batch_size, own.text_slots, dtype=torch.long)
        ids = torch.zeros(own.batch_size, CONTEXT, dtype=torch.long)
        shape = (own.batch_size, own.frames, own.height, own.width, 3)
        found = {"ids": ids, "mask": ids, "words": text, "given": text.bool(), "there": text.bool()}
        return found | {"noisy": row, "spoken": row, "pixels": torch.zeros(shape, dtype=torch.uint8)}

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The weighted sum of the film's loss and the text's, each a mean over the samples that have one."""
        own, model, flow = self.config, self.module["transformer"], self.flow
        noisy, spoken = batch["noisy"], batch["spoken"]
        with torch.no_grad():
            context = encode_text(self.text_encoder, batch["ids"], batch["mask"])
            data = self._latents(batch["pixels"])
        time = sample_times(len(data), own.shift, own.film_uniform, data.device) * noisy
        noise = torch.randn_like(data)
        film = Film(interpolate(data, noise, time), 1000 * time, ~noisy)
        page = Page(batch["words"], batch["given"], batch["there"])
        times = torch.rand(len(data), 1, device=data.device).clamp_min(1e-3) * ~page.given
        state = flow.corrupt(page.ids, times)
        seen = model.streams(context.float(), film, Words(state, 1000 * times, page.there, page.given))
        errors = (seen.video.float() - velocity(data, noise)).square().mean(dim=(1, 2, 3, 4))
        weight = page.open * self._weights(page.ids)
        each = flow.loss(seen.text.float(), page.ids, state, times) * weight
        said = each.sum(1) / weight.sum(1).clamp_min(1e-6)
        of_films = (errors * noisy).sum() / noisy.sum().clamp_min(1)
        of_texts = (said * spoken).sum() / spoken.sum().clamp_min(1)
        logs: dict[str, Tensor | float] = {}
        if bool(noisy.any()):
            logs["film"] = of_films.detach()
        if bool(spoken.any()):
            logs["text_of_pair" if bool((noisy & spoken).any()) else "text_of_clean"] = of_texts.detach()
        return own.film_weight * of_films + of_texts, logs

    def _latents(self, pixels: Tensor) -> Tensor:
        """Latents (B, C, T, h, w) float32 of films (B, F, H, W, 3) uint8."""
        dtype = next(self.vae.parameters()).dtype
        return encode(self.vae, (pixels.permute(0, 4, 1, 2, 3).float() / 127.5 - 1).to(dtype)).float()

    def _weights(self, ids: Tensor) -> Tensor:
        """Of each word: what is behind the end says little, the end itself has said it."""
        ends = (ids == self.tokenizer.eos_token_id).long()
        return torch.where(ends.cumsum(1) > ends, self.config.padding_weight, 1.0)

    def report(self) -> list[str]:
        """What the models weigh, how long the sequences are, what a step costs, and what data there is."""
        own = self.config
        lines = Sizing.of(
            self.module["transformer"],
            [self.vae, self.text_encoder],
            own.latents,
            own.text_slots,
            CONTEXT,
            own.batch_size,
            own.checkpointing,
        ).lines()
        path = Path(own.films)
        if not path.exists():
            return [*lines, f"films: '{path}' is not there yet"]
        needs = "caption and detailed" if own.target == "detailed" else "caption"
        films = self.films()
        there = sum(_is_there(own.film_folder, film) for film in films)
        return [
            *lines,
            f"films: {len(films)} rows of '{path}' have {needs}; {there} of the films are in '{own.film_folder}'",
        ]

    def export(self, folder: Path) -> None:
        """Write the transformer, the tokenizer with its marks, and how text is written, for the next stage."""
        self.module["transformer"].save_pretrained(folder / "transformer")
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder / "tokenizer")
        card = {"formulation": self.config.formulation, "decoder": self.config.decoder}
        (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _is_there(folder: str, film: CaptionedFilm) -> bool:
    try:
        film_file(folder, film.video)
    except UserError:
        return False
    return True
