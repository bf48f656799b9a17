"""The pipeline of Uni-ViGU: one network makes films, describes them, answers about them, and makes both at once."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false
# pyright: reportIncompatibleVariableOverride=false, reportOptionalOperand=false, reportOperatorIssue=false

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKLCosmos, DiffusionPipeline, WanTransformer3DModel
from PIL import Image
from torch import Tensor
from transformers import (
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2ForCausalLM,
    UMT5EncoderModel,
)

from unireel.backbones.uni_wan import UniWanTransformer
from unireel.backbones.vae import decode, encode
from unireel.backbones.wan import Prediction
from unireel.clip import Clip
from unireel.data.world import to_frames, to_pixels
from unireel.errors import UsageError, UserError
from unireel.flow.formulations import Formulation, text_flow
from unireel.flow.text import TextFlow
from unireel.hub import component
from unireel.systems.base.answering import Answer, check_words, prepare
from unireel.systems.base.pipeline import CARD, BasePipeline, check_frames, save_component
from unireel.systems.base.pipeline import SETTINGS as FILM_SETTINGS
from unireel.systems.univigu.pages import Text, caption_text, page_of, question_text, said_in
from unireel.systems.univigu.pairs import PairSampling, sample_pair
from unireel.systems.univigu.writing import read, write
from unireel.world.scene import CLIP_FRAMES, FPS

COMPONENTS = {
    "vae": AutoencoderKLCosmos,
    "text_encoder": UMT5EncoderModel,
    "transformer": UniWanTransformer,
}
OPTIONAL = {"planner": Qwen2ForCausalLM, "film_transformer": WanTransformer3DModel}
SETTINGS = (
    *FILM_SETTINGS,
    *("formulation", "caption_slots", "answer_slots", "text_steps", "text_guidance", "text_shift", "churn"),
)


@dataclass(frozen=True)
class Imagined:
    """A film and its description, made together."""

    clip: Clip
    caption: Answer


class UniViguPipeline(BasePipeline):
    """Generation and understanding by one network with two streams.

    Films are made as by :class:`~unireel.systems.base.pipeline.BasePipeline`, whose call this is: there is no text
    stream then, and nothing is computed for one.

    Args:
        vae, text_encoder, tokenizer, planner, size, steps, guidance, shift, prediction, staged, restart: as there.
        transformer: a video DiT with a text stream, over the tokenizer's words.
        film_transformer: draws films without text in its place, if the shared layers learned to be read: the generator
            that they were.
        formulation: of text as a flow, that it was trained with.
        caption_slots, answer_slots: room for a description and for an answer, in words and marks.
        text_steps: evaluations for a text about a film; 0 is one for each word.
        text_guidance: by the film for texts about one, by the prompt for texts made with one.
        text_shift, churn: of texts made with a film, see :class:`~unireel.systems.univigu.pairs.PairSampling`; a shift
            above the film's lets the words wait for the film.
    """

    model_cpu_offload_seq = "text_encoder->film_transformer->transformer->vae"
    _optional_components: ClassVar[list[str]] = ["planner", "film_transformer"]

    def __init__(
        self,
        vae: AutoencoderKLCosmos,
        text_encoder: UMT5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        transformer: UniWanTransformer,
        size: int = 48,
        steps: int = 16,
        guidance: float = 2.0,
        shift: float = 2.0,
        prediction: Prediction = "data",
        staged: bool = True,
        restart: float = 0.0,
        formulation: Formulation = "masked",
        caption_slots: int = 72,
        answer_slots: int = 6,
        text_steps: int = 0,
        text_guidance: float = 1.0,
        text_shift: float = 1.0,
        churn: float = 0.5,
        planner: Qwen2ForCausalLM | None = None,
        film_transformer: WanTransformer3DModel | None = None,
    ) -> None:
        DiffusionPipeline.__init__(self)
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            transformer=transformer,
            planner=planner,
            film_transformer=film_transformer,
        )
        given = locals()
        self.register_to_config(**{name: given[name] for name in SETTINGS})
        for module in (vae, text_encoder, transformer, film_transformer):
            if module is not None:
                module.eval()

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> UniViguPipeline:
        """Load the components of a model folder, in float32 unless ``dtype`` says otherwise.

        Raises:
            UserError: the folder lacks a component or holds one of another kind, or its card is wrong.
        """
        folder = Path(folder)
        for name in (*COMPONENTS, "tokenizer"):
            if not component(folder, name).is_dir():
                raise UserError(f"'{folder}' is not a model of Uni-ViGU: it has no folder '{name}'")
        kinds: dict[str, Any] = dict(COMPONENTS)
        for name, kind in OPTIONAL.items():
            if component(folder, name).is_dir():
                kinds[name] = kind
        try:
            loaded = {
                name: kind.from_pretrained(
                    component(folder, name), torch_dtype=dtype or torch.float32, local_files_only=True
                )
                for name, kind in kinds.items()
            }
            tokenizer = PreTrainedTokenizerFast.from_pretrained(
                component(folder, "tokenizer"), local_files_only=True
            )
            settings = json.loads((folder / CARD).read_text(encoding="utf-8")).get("settings", {})
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"'{folder}' cannot be loaded: {str(error).splitlines()[0]}") from error
        unknown = sorted(settings.keys() - set(SETTINGS))
        if unknown:
            raise UserError(
                f"'{folder / CARD}' has unknown settings: {', '.join(unknown)}; known: {', '.join(SETTINGS)}"
            )
        if loaded["transformer"].config["text_vocabulary"] != len(tokenizer):
            raise UserError(
                f"'{folder}' cannot be loaded: its transformer writes other words than its tokenizer"
            )
        return cls(tokenizer=tokenizer, **loaded, **settings).to(device)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.bfloat16, **kwargs: Any) -> None:
        """Write every component as safetensors in ``dtype``, and the card ``unireel.json``."""
        folder = Path(folder)
        for name in [*COMPONENTS, *(name for name in OPTIONAL if getattr(self, name) is not None)]:
            save_component(getattr(self, name), folder / name, dtype)
        self.tokenizer.save_pretrained(folder / "tokenizer")
        settings = {name: self.config[name] for name in SETTINGS}
        card = {"system": "univigu", "size": self.size, "settings": settings}
        (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")

    @property
    def drawing(self) -> Any:
        """See the base class: ``film_transformer``, if there is one."""
        return self.transformer if self.film_transformer is None else self.film_transformer

    @property
    def flow(self) -> TextFlow:
        """The formulation of text."""
        codes = getattr(self.transformer, "text_codes", None)
        return text_flow(self.config["formulation"], len(self.tokenizer), codes)

    def ask_many(
        self, pairs: Sequence[tuple[Clip, str]], batch_size: int = 32, judge: bool = True
    ) -> list[Answer]:
        """Answers to (film, question) pairs; ``judge`` has the checker say which films are outside the World.

        Raises:
            UserError: a question is empty or has words that the model does not know.
        """
        for _, question in pairs:
            check_words("question", question)
        texts = [question_text(question, None) for _, question in pairs]
        slots = self.config["answer_slots"]
        return self._say([clip for clip, _ in pairs], texts, slots, batch_size, judge, math.prod)

    def ask_view(self, frames: np.ndarray, question: str) -> Answer:
        """The answer from chosen frames (n, H, W, 3) of a long film, which are looked at as a film of their own."""
        return self.ask(Clip(np.ascontiguousarray(frames), FPS), question)

    def caption_many(self, clips: Sequence[Clip], batch_size: int = 32, judge: bool = True) -> list[Answer]:
        """Detailed descriptions of films."""
        texts, slots = [caption_text(None)] * len(clips), self.config["caption_slots"]
        return self._say(clips, texts, slots, batch_size, judge, per_word)

    def complete(self, clip: Clip, beginning: str) -> Answer:
        """The description of ``clip`` that starts with the words ``beginning``; its text has them too.

        Raises:
            UserError: the beginning is empty, too long, or has words that the model does not know.
        """
        check_words("beginning", beginning)
        slots = self.config["caption_slots"] - len(self.tokenizer(beginning)["input_ids"])
        if slots < 1:
            raise UserError("the beginning is longer than a description can be")
        text = Text(("<caption>", beginning))
        return self._say([clip], [text], slots, 1, True, per_word)[0]

    def imagine(
        self,
        prompt: str,
        image: np.ndarray | Image.Image | None = None,
        frames: int | None = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        text_steps: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Imagined:
        """One film of ``prompt`` with its description; see :meth:`imagine_many`."""
        images = None if image is None else [image]
        return self.imagine_many(
            [prompt], images, [seed], frames, steps, guidance, text_steps, progress=progress
        )[0]

    @torch.no_grad()
    def imagine_many(
        self,
        prompts: Sequence[str],
        images: Sequence[np.ndarray | Image.Image] | None = None,
        seeds: Sequence[int] | None = None,
        frames: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        text_steps: int | None = None,
        batch_size: int = 16,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Imagined]:
        """A film and its detailed description for each prompt, both from noise, each reading the other.

        Args:
            prompts, images, seeds, frames, steps, guidance, batch_size, progress: as of ``generate_many``.
            text_steps: of the description; as many as of the film by default.

        Raises:
            UserError: a prompt is empty, too long, or has unknown words.
            UsageError: an impossible number of frames or steps, or counts that do not fit together.
        """
        seeds = list(range(len(prompts))) if seeds is None else list(seeds)
        if len(seeds) != len(prompts) or (images is not None and len(images) != len(prompts)):
            raise UsageError(f"{len(prompts)} prompts need as many seeds and images")
        for each in prompts:
            check_words("prompt", each)
        length = CLIP_FRAMES if frames is None else frames
        check_frames(length)
        steps = self.config["steps"] if steps is None else steps
        if steps < 1 or (text_steps is not None and text_steps < 1):
            raise UsageError("a film and its description need at least 1 step each")
        sampling = PairSampling(
            film_steps=steps,
            text_steps=text_steps or steps,
            film_guidance=self.config["guidance"] if guidance is None else guidance,
            text_guidance=self.config["text_guidance"],
            film_shift=self.config["shift"],
            text_shift=self.config["text_shift"],
            prediction=self.config["prediction"],
            churn=self.config["churn"],
            restart=self.config["restart"],
        )
        starts = range(0, len(prompts), batch_size)
        made: list[Imagined] = []
        for number, start in enumerate(starts):
            part = slice(start, start + batch_size)
            given = None if images is None else list(images[part])

            def report(step: int, time: Tensor, state: Tensor, done: int = number * steps) -> Tensor:
                if progress:
                    progress(done + step + 1, len(starts) * steps)
                return state

            made += self._imagine(list(prompts[part]), given, seeds[part], length, sampling, report)
        return made

    def _imagine(
        self,
        prompts: list[str],
        images: list[Any] | None,
        seeds: Sequence[int],
        frames: int,
        sampling: PairSampling,
        on_step: Any,
    ) -> list[Imagined]:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = self._noise(len(prompts), frames, generators)
        prompts = self.extend(prompts, generators, placed=images is None)
        context, empty = self.encode_prompt(prompts)
        noise = noise.to(self.device, context.dtype)
        pictures, first = self._given(images, len(prompts))
        if first is None and self.config["staged"] and frames > 1:
            picture = self(
                prompts,
                num_frames=1,
                num_inference_steps=sampling.film_steps,
                guidance_scale=sampling.film_guidance,
                latents=noise[:, :, :1],
                output_type="latent",
                extend_prompt=False,
            )
            first = picture.frames
        texts = [caption_text(None)] * len(prompts)
        page = page_of(self.tokenizer, texts, self.config["caption_slots"], self.transformer.most_words)
        page, end = page.to(self.device), self.tokenizer.eos_token_id
        latents, written = sample_pair(
            self.transformer,
            self.flow,
            noise,
            page,
            context,
            empty,
            end,
            sampling,
            first,
            generators,
            on_step,
        )
        films = to_frames(decode(self.vae, latents, pictures))
        captions = [
            self._statement(ids, odds, given, per_word)
            for ids, odds, given in zip(written.ids, written.probabilities, page.given, strict=True)
        ]
        return [
            Imagined(Clip(film, FPS), Answer(text, sure))
            for film, (text, sure) in zip(films, captions, strict=True)
        ]

    @torch.no_grad()
    def _say(
        self,
        clips: Sequence[Clip],
        texts: list[Text],
        slots: int,
        batch: int,
        judge: bool,
        confidence: Callable[[list[float]], float],
    ) -> list[Answer]:
        """Texts about films; each film of a batch is encoded and read once, however many texts are about it."""
        prepared = {id(clip): prepare(clip, self.size, judge) for clip in {id(c): c for c in clips}.values()}
        answers: list[Answer] = []
        for start in range(0, len(clips), batch):
            part = slice(start, start + batch)
            keys = list(dict.fromkeys(id(clip) for clip in clips[part]))
            pixels = to_pixels(np.stack([prepared[key].frames for key in keys]))
            latents = encode(self.vae, pixels.to(self.device, self.vae.dtype))
            empty = self.encode_prompt([""])[1]
            memory = read(self.transformer, latents, empty.expand(len(keys), -1, -1))
            rows = torch.tensor([keys.index(id(clip)) for clip in clips[part]], device=self.device)
            page = page_of(self.tokenizer, texts[part], slots, self.transformer.most_words).to(self.device)
            written = write(
                self.transformer,
                self.flow,
                page,
                empty.expand(len(rows), -1, -1),
                self.tokenizer.eos_token_id,
                memory=memory.expanded(rows),
                steps=self.config["text_steps"] or None,
                guidance=self.config["text_guidance"],
                reuse=True,
                generator=torch.Generator().manual_seed(0),
            )
            for clip, ids, odds, given in zip(
                clips[part], written.ids, written.probabilities, page.given, strict=True
            ):
                film = prepared[id(clip)]
                text, sure = self._statement(ids, odds, given, confidence)
                answers.append(Answer(text, sure, film.reliable, film.note, film.evidence))
        return answers

    def _statement(
        self, ids: Tensor, odds: Tensor, given: Tensor, confidence: Callable[[list[float]], float]
    ) -> tuple[str, float]:
        """What was written in a row, and the confidence in it. Given words of a description belong to it."""
        words = ids.tolist()
        start = int(given.sum())
        said = words[start:]
        stop = (
            said.index(self.tokenizer.eos_token_id) + 1 if self.tokenizer.eos_token_id in said else len(said)
        )
        kept = [] if self.tokenizer.convert_tokens_to_ids("<ask>") in words[:start] else words[1:start]
        text = said_in(self.tokenizer, [*kept, *said])
        return text, confidence(odds[start : start + stop].tolist())


def per_word(probabilities: list[float]) -> float:
    """Geometric mean: the confidence per word."""
    return math.exp(sum(math.log(max(p, 1e-9)) for p in probabilities) / max(len(probabilities), 1))
