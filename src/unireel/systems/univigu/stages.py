"""Training of Uni-ViGU: both streams in one process, each at its own time.

Knowledge Recall writes the prompt under a condition that is mostly dropped; Capability Refinement writes detailed
descriptions, and answers to questions that stand in the text as given words. Both are this stage with another mix.
Words can be told where in the film to look.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false
# pyright: reportOptionalOperand=false

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKLCosmos, WanTransformer3DModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM, UMT5EncoderModel

from unireel.backbones.low_rank import add_low_rank, approximate, as_matrices
from unireel.backbones.text import encode_text
from unireel.backbones.uni_rows import Film, Memory, Rows, Words
from unireel.backbones.uni_wan import UniWanTransformer
from unireel.backbones.uni_wan_files import with_narrower_text, with_text
from unireel.backbones.wan import LEAST_TIME, MatmulAttention, Prediction, predict, token_times
from unireel.clip import Clip
from unireel.data.cache import CacheConfig, FilmCache, build
from unireel.data.latents import latents_of
from unireel.data.sights import place_centres, place_objects
from unireel.data.world import films
from unireel.errors import UsageError
from unireel.flow.formulations import Formulation, text_flow
from unireel.flow.matching import interpolate, sample_times, velocity
from unireel.flow.text import TextFlow
from unireel.hub import component, find_model, read_card
from unireel.systems.base.pipeline import TEXT_LENGTH
from unireel.systems.base.stages.binding import MARGIN, Binding
from unireel.systems.base.stages.grounding import looked_elsewhere, meant
from unireel.systems.univigu.lessons import Batches, Mix
from unireel.systems.univigu.pipeline import UniViguPipeline
from unireel.training.stage import ParameterRule, Stage
from unireel.world.language import caption_score, questions_for
from unireel.world.sampling import sample_scene
from unireel.world.scene import FPS

OF_TEXT = (
    *("*text_embedding*", "*slot_embedding*", "*text_codes*", "*text_in.*", "*text_before*", "*text_head*"),
    *("*text_time*", "*text_norm*", "*text_table*", "*ffn_t*", "*norm3_t*", "*scale_shift_table_t"),
)
"""Names of what the text stream has for itself."""

MOST_WEIGHT = 8.0
"""Largest weight of an error in predicted latents: that of the velocity's error, 1 / t squared, up to this."""


@dataclass(frozen=True)
class UniConfig:
    """Where a stage starts, and how its losses are weighed.

    Attributes:
        base: model whose transformer, text encoder, tokenizer and autoencoder are taken: a packaged model or a folder.
            ``low_rank`` differences are those to it, and ``teacher`` is its transformer.
        start_from: an exported model of Uni-ViGU to go on from instead; its formulation must be this one.
        formulation: of text; ``uniform`` is the share of random words of the hybrid one, ``code_width`` the width of
            continuous ones, ``learn_codes`` whether their vectors are learned.
        train: the whole network, or only what the text stream does not share with the film's: then films without text
            are those of the model that it starts from, and clean films are read without gradients.
        low_rank: with ``train: text``, ranks of the differences to ``base`` that learn as well, in linear layers of the
            transformer whose names match a pattern (:mod:`unireel.backbones.low_rank`). The exported model draws films
            without text by ``base`` then, and reads, and makes pairs, with the differences.
        text_init, text_ffn: see :func:`~unireel.backbones.uni_wan_files.with_text`.
        text_ffn_dim: hidden units of text's feed-forward layers, 0: as they are in ``start_from``, else as the film's.
            Those of a model that has more are narrowed to the ones that weigh most.
        text_slots: places of the text stream.
        mix: what the batches are.
        batch_size: films or texts in a batch.
        film_weight: of the film's loss, the mean over its tokens; the text's is the mean over its words, and weighs 1.
        teacher: whether films without text are to stay as ``base`` draws them, not to become more like the data.
        padding_weight: of a word behind the end in that mean.
        looking: weight of the loss of where words about clean films look: in ``looking_blocks``, the first half of the
            heads at the first object that a description's clause or a question is about, the others at the second one,
            both at the text's first word for what is not there.
        sights: weight of the losses of what the tokens of clean films say that they hold, as they come into block
            ``sights_block`` (:meth:`~unireel.systems.base.stages.binding.Binding.drawing`).
        times: of film and text in pairs: drawn apart, or the same.
        shift, film_uniform: of the film's times, see :func:`~unireel.flow.matching.sample_times`.
        shared_lr: factor on the learning rate of everything that the film stream had already.
        evaluate_films: held-out films that :meth:`UniStage.evaluate` describes and asks about.
    """

    base: str = "pocket/base"
    start_from: str = ""
    films: str = "cache/films-48"
    film_count: int = 60_000
    used_films: int = 60_000
    size: int = 48
    formulation: Formulation = "masked"
    uniform: float = 0.1
    code_width: int = 16
    learn_codes: bool = True
    train: Literal["all", "text"] = "all"
    low_rank: dict[str, int] = field(default_factory=dict)
    text_init: Literal["video", "new"] = "video"
    text_ffn: Literal["own", "shared"] = "own"
    text_ffn_dim: int = 0
    text_slots: int = 96
    mix: Mix = field(default_factory=Mix)
    batch_size: int = 32
    film_weight: float = 1.0
    teacher: bool = False
    padding_weight: float = 0.1
    looking: float = 0.0
    looking_blocks: tuple[int, ...] = (4, 6)
    sights: float = 0.0
    sights_block: int = 5
    times: Literal["independent", "tied"] = "independent"
    shift: float = 2.0
    film_uniform: float = 0.2
    shared_lr: float = 0.5
    data_seed: int = 5
    evaluate_films: int = 16


class UniStage(Stage):
    """Flow matching on latents and the chosen flow on words, of a model that has one network for both."""

    config_class = UniConfig
    config: UniConfig
    forward_methods = (*Stage.forward_methods, "streams")

    def __init__(self, config: UniConfig) -> None:
        super().__init__(config)
        folder = find_model(config.start_from or config.base)
        card = read_card(folder)
        settings = card.get("settings", {})
        self._require(folder, card["system"], settings.get("formulation"))
        self.prediction: Prediction = settings.get("prediction", "velocity")
        self.settings = {
            name: settings[name]
            for name in ("steps", "guidance", "shift", "staged", "restart")
            if name in settings
        }
        parts = {
            name: component(folder, name)
            for name in ("tokenizer", "vae", "text_encoder", "transformer", "planner")
        }
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(parts["tokenizer"])
        self.vae = AutoencoderKLCosmos.from_pretrained(parts["vae"]).float().eval().requires_grad_(False)
        self.text_encoder = UMT5EncoderModel.from_pretrained(parts["text_encoder"]).float().eval()
        self.text_encoder.requires_grad_(False)
        self.planner = None
        if parts["planner"].is_dir():
            self.planner = (
                Qwen2ForCausalLM.from_pretrained(parts["planner"]).float().eval().requires_grad_(False)
            )
        video = WanTransformer3DModel.from_pretrained(
            component(find_model(config.base), "transformer"), torch_dtype=torch.float32
        )
        if config.start_from:
            transformer = UniWanTransformer.from_pretrained(parts["transformer"], torch_dtype=torch.float32)
            if config.text_ffn_dim:
                transformer = with_narrower_text(transformer, config.text_ffn_dim)
        else:
            transformer = with_text(video, len(self.tokenizer), config.text_init, **self._text_settings())
        for name, blocks in {
            "looking_blocks": config.looking_blocks if config.looking else (),
            "sights_block": (config.sights_block,) if config.sights else (),
        }.items():
            if not all(0 <= each < len(transformer.blocks) for each in blocks):
                raise UsageError(
                    f"stage_config.{name}: the model has blocks 0 to {len(transformer.blocks) - 1}"
                )
        transformer.set_attn_processor(MatmulAttention())
        self.module = nn.ModuleDict({"transformer": transformer.train()})
        video.set_attn_processor(MatmulAttention())
        video.eval().requires_grad_(False)
        self.teacher = video if config.teacher else None
        self.film_transformer = video if config.low_rank else None
        kept = component(folder, "film_transformer")
        if config.train == "text" and not config.low_rank and config.start_from and kept.is_dir():
            self.film_transformer = WanTransformer3DModel.from_pretrained(kept)
        self._reads_with_gradients = config.train == "all" or bool(config.low_rank)
        if config.train == "text":
            if not transformer.config["one_way"]:
                raise UsageError("stage_config.train: 'text' needs a model whose clean films read no words")
            if config.mix.film and not config.low_rank:
                raise UsageError(
                    "stage_config.train: 'text' learns nothing from films alone: mix.film must be 0"
                )
            for name, parameter in transformer.named_parameters():
                parameter.requires_grad_(any(fnmatch(name, pattern) for pattern in OF_TEXT))
        elif config.low_rank:
            raise UsageError("stage_config.low_rank: needs 'train: text'; 'all' learns whole matrices")
        for name in add_low_rank(transformer, config.low_rank):
            approximate(transformer.get_submodule(name), video.get_submodule(name).weight)
        if config.formulation in ("embedding", "velocity"):
            transformer.text_codes.requires_grad_(config.learn_codes)
        build(Path(config.films), CacheConfig(config.film_count, config.size))
        cache = FilmCache(config.films)
        latents = latents_of(cache, self.vae, config.used_films)
        self.batches = Batches(
            cache,
            latents,
            self.tokenizer,
            config.mix,
            config.batch_size,
            config.data_seed,
            TEXT_LENGTH,
            config.text_slots,
        )
        self.samples_per_batch = config.batch_size
        side = config.size // latents.shape[-1] * transformer.config["patch_size"][-1]
        self._places = place_centres(config.size, side).float()
        if config.sights:
            width = transformer.config["num_attention_heads"] * transformer.config["attention_head_dim"]
            binding = Binding(width, self.text_encoder.config.d_model, config.size, side)
            for unused in (binding.word, binding.numbers, binding.end, binding.mask):
                unused.requires_grad_(False)
            self.module["binding"] = binding

    def _require(self, folder: Path, system: str, formulation: str | None) -> None:
        own = self.config
        wanted = "univigu" if own.start_from else "base"
        if system != wanted:
            key = "start_from" if own.start_from else "base"
            raise UsageError(
                f"'stage_config.{key}' needs a model of the system {wanted}; '{folder}' is {system}"
            )
        if own.start_from and formulation != own.formulation:
            raise UsageError(f"'{folder}' writes text as '{formulation}', not as '{own.formulation}'")

    def _text_settings(self) -> dict[str, Any]:
        own = self.config
        continuous = own.formulation in ("embedding", "velocity")
        return {
            "text_mask": own.formulation in ("masked", "hybrid"),
            "code_width": own.code_width if continuous else 0,
            "text_output": "velocity" if own.formulation == "velocity" else "logits",
            "text_ffn": own.text_ffn,
            "text_ffn_dim": own.text_ffn_dim,
            "text_slots": own.text_slots,
        }

    @property
    def flow(self) -> TextFlow:
        """Text as a flow, over the model's own vectors of words if it has any."""
        codes = getattr(self.module["transformer"], "text_codes", None)
        return text_flow(self.config.formulation, len(self.tokenizer), codes, self.config.uniform)

    def parameter_groups(self) -> list[ParameterRule]:
        """Tables of words and heads are not hidden matrices; what the film stream had learns more slowly."""
        tables = ("*text_embedding*", "*slot_embedding*", "*text_codes*", "*text_in.*", "*text_head*")
        apart = ("*ffn_t*", "*_t", "*text_time*", "*text_norm*", "*text_table*", "*text_before*")
        return [
            *(ParameterRule(name, muon=False) for name in tables),
            *(ParameterRule(name) for name in apart),
            ParameterRule("binding*", muon=False),
            *(ParameterRule(name) for name in ("*.up", "*.down")),
            ParameterRule("*patch_embedding*", lr=self.config.shared_lr, muon=False),
            ParameterRule("*proj_out*", lr=self.config.shared_lr, muon=False),
            ParameterRule("*", lr=self.config.shared_lr),
        ]

    def compile(self) -> None:
        """Compile the blocks, for each shape: there are few (:data:`~unireel.systems.univigu.lessons.WIDTHS`)."""
        torch._dynamo.config.recompile_limit = 64
        teacher = [] if self.teacher is None else self.teacher.blocks
        for block in (*self.module["transformer"].blocks, *teacher):
            block.compile(dynamic=False)

    def batch(self, index: int) -> dict[str, Tensor]:
        """See :meth:`~unireel.systems.univigu.lessons.Batches.batch`."""
        return self.batches.batch(index)

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The film's loss, the text's, or their weighted sum; both are means over their own tokens."""
        model, flow = self.module["transformer"], self.flow
        with torch.no_grad():
            context = encode_text(self.text_encoder, batch["ids"], batch["mask"])
        film, time, score_film = self._film(batch, context) if "latents" in batch else (None, None, None)
        words = score_text = memory = None
        logs: dict[str, Tensor | float] = {}
        total = context.new_zeros((), dtype=torch.float32)
        if film is not None and score_film is None and model.config["one_way"]:
            # A clean film reads no words: it is read once, whatever number of texts are about it.
            with torch.set_grad_enabled(torch.is_grad_enabled() and self._reads_with_gradients):
                watched = (self.config.sights_block,) if self.config.sights else ()
                read = model.streams(context, film, remember=True, watch=watched)
            if watched:
                value, shares = self._sights(batch, read.watched[0].states)
                logs |= shares | {"sights": value.detach()}
                total = total + self.config.sights * value
            memory = read.memory.expanded(batch["about"])
            film, context = None, context[batch["about"]]
        if "words" in batch:
            tied = self.config.times == "tied" and score_film is not None
            words, score_text = self._words(batch, flow, time if tied else None)
            if flow.feedback and torch.rand(()) < 0.5:
                with torch.no_grad():
                    before = flow.shown(model.streams(context, film, words, memory).text)
                words = Words(
                    words.state, words.time, words.there, words.given, None, before * ~words.given[..., None]
                )
        blocks = self.config.looking_blocks if self.config.looking and memory and len(batch["asked"]) else ()
        seen = model.streams(context, film, words, memory, watch=blocks)
        if score_film is not None:
            value = score_film(seen.video.float())
            logs["film" if batch["latents"].shape[2] > 1 else "picture"] = value.detach()
            total = total + self.config.film_weight * value
        if score_text is not None:
            value = score_text(seen.text.float())
            kind = (
                "text_alone" if "latents" not in batch else "text_of_pair" if score_film else "text_of_clean"
            )
            kind = "answers" if batch["asking"] and score_film is None else kind
            logs[kind] = value.detach()
            total = total + value
        if blocks:
            missed = self._missed(batch, memory, seen.watched)
            logs["looks"] = missed.detach()
            total = total + self.config.looking * missed
        return total, logs

    def _film(
        self, batch: dict[str, Tensor], context: Tensor
    ) -> tuple[Film, Tensor, Callable[[Tensor], Tensor] | None]:
        """The film's rows, its times (B,), and its loss as a function of the network's output, None if it is clean."""
        own, data = self.config, batch["latents"]
        if "clean" not in batch:
            zero = data.new_zeros(len(data))
            return Film(data, zero, torch.ones_like(zero, dtype=torch.bool)), zero, None
        clean = batch["clean"]
        time = sample_times(len(data), own.shift, own.film_uniform, data.device)
        noise = torch.randn_like(data)
        per_frame = time[:, None].repeat(1, data.shape[2])
        per_frame[:, 0] = torch.where(clean, 0.0, time)
        state = interpolate(data, noise, per_frame[:, None, :, None, None])
        patch = self.module["transformer"].config["patch_size"]
        tokens = data.shape[3] * data.shape[4] // (patch[1] * patch[2])
        wanted = torch.ones_like(per_frame)
        wanted[:, 0] = (~clean).float()
        times = token_times(time, clean, data.shape[2], tokens)
        target, weight = velocity(data, noise), torch.ones_like(per_frame)
        if self.prediction == "data":
            target, weight = data, per_frame.clamp_min(LEAST_TIME).pow(-2).clamp_max(MOST_WEIGHT)
        if self.teacher is not None and "words" not in batch:
            with torch.no_grad():
                target = predict(self.teacher, state, times, context).float()

        def score(output: Tensor) -> Tensor:
            return ((output - target).square().mean(dim=(1, 3, 4)) * weight * wanted).sum() / wanted.sum()

        return Film(state, times), time, score

    def _sights(self, batch: dict[str, Tensor], states: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses of what the states (B, N, D) of clean films' tokens say they hold, and shares of right answers."""
        binding = self.module["binding"]
        return binding.drawing(states, binding.owner(batch), batch)

    def _words(
        self, batch: dict[str, Tensor], flow: TextFlow, time: Tensor | None
    ) -> tuple[Words, Callable[[Tensor], Tensor]]:
        """The text's rows, and its loss as a function of the network's output."""
        ids, given, there = batch["words"], batch["given"], batch["there"]
        if time is None:  # evenly spread over (0, 1], in random order
            count = len(ids)
            spread = (torch.arange(count, device=ids.device) + torch.rand((), device=ids.device)) / count
            time = spread[torch.randperm(count, device=ids.device)]
            if batch["asking"]:  # an answer is a word or two: mostly, none of them is known
                time = (1 + time) / 2
        times = time.clamp_min(1e-3)[:, None] * ~given
        state = flow.corrupt(ids, times)
        open_words = there & ~given
        # A word behind the end says little: the end itself has said it.
        ends = (ids == self.tokenizer.eos_token_id).long()
        after = ends.cumsum(1) > ends
        weight = open_words * torch.where(after, self.config.padding_weight, 1.0)

        def score(output: Tensor) -> Tensor:
            each = flow.loss(output, ids, state, times) * weight
            return (each.sum(1) / weight.sum(1).clamp_min(1e-6)).mean()

        return Words(state, 1000 * times, there, given), score

    def _missed(self, batch: dict[str, Tensor], memory: Memory, watched: tuple[Rows, ...]) -> Tensor:
        """How far words are from looking at whom they are about, in nats (supervised attention, arXiv 1609.04186)."""
        page, place, name, mask, *_ = batch["asked"].unbind(1)
        places = self._places.to(batch["states"].device)
        owner = place_objects(batch["states"], places, margin=MARGIN)[batch["about"]]
        # (Q, N + 1): the film's tokens, then the text's first word
        wanted = torch.cat([meant(owner[page], mask), (mask == 0)[:, None]], 1)
        errors = []
        for number, text in zip(sorted(self.config.looking_blocks), watched, strict=True):
            looks = self.module["transformer"].blocks[number].looks(text, memory.blocks[number][0])
            # (Q, names, heads of each, N + 1)
            likeness = looks[page, :, place, : wanted.shape[1]].unflatten(1, (2, -1))
            chosen = likeness[torch.arange(len(page), device=page.device), name]
            errors.append(looked_elsewhere(chosen, wanted[:, None]).mean())
        return torch.stack(errors).mean()

    def pipeline(self) -> UniViguPipeline:
        """The whole model as it is now."""
        return UniViguPipeline(
            self.vae,
            self.text_encoder,
            self.tokenizer,
            self.module["transformer"],
            size=self.config.size,
            prediction=self.prediction,
            formulation=self.config.formulation,
            planner=self.planner,
            film_transformer=self.film_transformer,
            **self.settings,
        )

    def evaluate(self) -> dict[str, float]:
        """Descriptions of held-out films (fact F1, with films' text empty) and answers to a question about each."""
        scenes = [
            sample_scene(11, i, "test", size=self.config.size) for i in range(self.config.evaluate_films)
        ]
        clips = [Clip(each, FPS) for each in films(scenes)]
        model = self.pipeline()
        said = model.caption_many(clips, judge=False)
        scores = [caption_score(each.text, scene).f1 for each, scene in zip(said, scenes, strict=True)]
        asked = [random.Random(i).choice(questions_for(scene, i)) for i, scene in enumerate(scenes)]
        answers = model.ask_many(
            [(clip, each.text) for clip, each in zip(clips, asked, strict=True)], judge=False
        )
        right = [one.text == two.answer for one, two in zip(answers, asked, strict=True)]
        return {"caption_f1": sum(scores) / len(scores), "answers": sum(right) / len(right)}

    def export(self, folder: Path) -> None:
        """Write the whole model, which :func:`unireel.load` takes; in float32, so that the next stage loses nothing."""
        with as_matrices(self.module):
            self.pipeline().save_pretrained(folder, torch.float32)
