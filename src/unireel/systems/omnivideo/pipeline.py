"""Omni-Video: one model that makes pictures and films, edits them, answers about them, and decides which is asked for.

The base system's components (``vae``, ``text_encoder``, ``tokenizer``, ``transformer``, ``vlm``) and three of its own:
``vision_head``, ``adapter``, ``visual_context``; where edits have a decoder of their own, also an ``editor``.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false
# pyright: reportCallIssue=false

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_output import WanPipelineOutput
from PIL import Image
from torch import Tensor, nn

from unireel.backbones.text import encode_text, tokenize
from unireel.backbones.vae import decode, encode
from unireel.backbones.wan import Prediction
from unireel.clip import Clip
from unireel.config import from_dict, to_dict
from unireel.data.world import to_frames, to_pixels
from unireel.errors import UsageError, UserError
from unireel.flow.sampling import renoised, restart_steps
from unireel.hub import component
from unireel.systems.base.answering import Answer
from unireel.systems.base.pipeline import (
    CARD,
    BasePipeline,
    as_output,
    check_frames,
    diffusers_callback,
    save_component,
)
from unireel.systems.omnivideo.building import EXTRA_WORDS, Sizes, new_parts
from unireel.systems.omnivideo.chat import Conversation
from unireel.systems.omnivideo.conditions import Conditioner
from unireel.systems.omnivideo.context import Assembler, Context
from unireel.systems.omnivideo.decoder import Decoder, add_gate, editor_of, widen
from unireel.systems.omnivideo.guidance import FULL, Guidance
from unireel.systems.omnivideo.heads import ContextAdapter, VisionHead
from unireel.systems.omnivideo.pocket_mllm import PocketMllm, add_tokens
from unireel.systems.omnivideo.profile import profile_of
from unireel.systems.omnivideo.sampling import Sampling, integrate
from unireel.systems.omnivideo.settings import Settings, Task
from unireel.systems.omnivideo.sources import blended, prepare_source
from unireel.systems.omnivideo.speech import MARKS, Kind, Reply, Request, Thought, bare
from unireel.systems.omnivideo.visual_context import VisualContextAdapter
from unireel.world.language.vocabulary import words
from unireel.world.scene import CLIP_FRAMES, FPS

USUAL, USUAL_SIZES = Settings(), Sizes()
PARTS = {"vision_head": VisionHead, "adapter": ContextAdapter, "visual_context": VisualContextAdapter}

Progress = Callable[[int, int], None]


class OmniVideo(BasePipeline):
    """Generation, editing and understanding in one model.

    Args:
        vae, text_encoder, tokenizer, transformer, vlm: as in the base system; text encoder and language model with the
            marks of :mod:`~unireel.systems.omnivideo.speech`.
        planner: language model that extends prompts to plans, see :meth:`extend`, or None; instructions stay as said.
        vision_head, adapter, visual_context: Omni-Video's own.
        editor: decoder of edits, or None where ``transformer`` makes and edits.
        size, steps, guidance, shift, prediction, staged: as in the base system; how films are sampled from words.
        restart: flow time from which films from words (not edits, nor pictures) are drawn once more, as in the base
            system; the profile ``released`` does not.
        settings: everything else.
    """

    guidance_interval = None
    _optional_components: ClassVar[list[str]] = ["planner", "editor"]

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        transformer: Any,
        vlm: Any,
        vision_head: VisionHead,
        adapter: ContextAdapter,
        visual_context: VisualContextAdapter,
        size: int = 48,
        steps: int = 16,
        guidance: float = 2.0,
        shift: float = 2.0,
        prediction: Prediction = "data",
        staged: bool = True,
        settings: Settings = USUAL,
        planner: Any = None,
        editor: Any = None,
        restart: float = 0.0,
    ) -> None:
        super().__init__(
            vae,
            text_encoder,
            tokenizer,
            transformer,
            vlm,
            size,
            steps,
            guidance,
            shift,
            prediction,
            staged,
            planner,
            restart,
        )
        self.register_modules(
            vision_head=vision_head, adapter=adapter, visual_context=visual_context, editor=editor
        )
        for module in (vision_head, adapter, visual_context, editor):
            if module is not None:
                module.eval()
        if settings.editor != (editor is not None):
            raise UsageError("editor: the settings and the components do not say the same")
        self.settings = settings
        profile = profile_of(settings.profile)
        self.profile = profile
        self.mllm = PocketMllm(vlm, tokenizer, profile.first_frame_only)
        self.conditioner = Conditioner(text_encoder, vision_head, adapter, visual_context, settings.segments)
        self.assemble = Assembler(profile, vars(settings.budgets))
        gate = settings.copies, editor, settings.sharpness, settings.caution
        self.decoder = Decoder(transformer, prediction, settings.route, *gate)

    # Whole models

    @classmethod
    def from_base(
        cls, base: BasePipeline, settings: Settings = USUAL, sizes: Sizes = USUAL_SIZES, seed: int = 0
    ) -> OmniVideo:
        """An untrained model around ``base``, whose parts it takes over; the same for the same seed."""
        add_tokens(base.tokenizer, base.vlm, base.text_encoder, EXTRA_WORDS, seed)
        editor = None
        if settings.editor:
            editor = editor_of(base.transformer, settings.route, settings.copies, seed)
        width = base.vlm.config.get_text_config().hidden_size
        positions = profile_of(settings.profile).positions
        parts = new_parts(width, base.transformer, sizes, positions, seed)
        new = dict(zip(PARTS, parts, strict=True))
        if editor is None:
            _make_room(base.transformer, settings, seed)
        return cls(**base.components, **new, **base.film_settings, settings=settings, editor=editor).to(
            base.device
        )

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> OmniVideo:
        """Load the components of a model folder.

        Raises:
            UserError: the folder lacks a component or holds one of another kind, or its settings are not ours.
        """
        folder = Path(folder)
        for name in PARTS:
            if not component(folder, name).is_dir():
                raise UserError(
                    f"'{folder}' is not a model of the system omnivideo: it has no folder '{name}'"
                )
        base = BasePipeline.from_pretrained(folder, device, dtype)
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            kinds = PARTS | ({"editor": WanTransformer3DModel} if (folder / "editor").is_dir() else {})
            parts: dict[str, Any] = {
                name: kind.from_pretrained(component(folder, name), torch_dtype=dtype or torch.float32)
                for name, kind in kinds.items()
            }
        except (OSError, ValueError) as error:
            raise UserError(f"'{folder}' cannot be loaded: {str(error).splitlines()[0]}") from error
        settings = from_dict(Settings, card.get("omnivideo", {}))
        return cls(**base.components, **parts, **base.film_settings, settings=settings).to(device)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.bfloat16, **kwargs: Any) -> None:
        """Write every component as safetensors in ``dtype``, and the card ``unireel.json``."""
        folder = Path(folder)
        super().save_pretrained(folder, dtype)
        for name in (*PARTS, *(["editor"] if self.settings.editor else [])):
            save_component(getattr(self, name), folder / name, dtype)
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        card |= {"system": "omnivideo", "omnivideo": to_dict(self.settings)}
        (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")

    def with_settings(self, settings: Settings) -> OmniVideo:
        """The same parts, set to something else; what source films newly come in by is made room for."""
        own, parts = self.settings, dict(self.components)
        if own.editor and not settings.editor:
            parts["editor"] = None
        elif settings.editor and not own.editor:
            if own.copies or own.route == "channels":
                raise UsageError(
                    "editor: the decoder of a model that edits already cannot go back to words alone"
                )
            parts["editor"] = editor_of(self.transformer, settings.route, settings.copies)
        elif (own.copies and not settings.copies) or (own.route == "channels" != settings.route):
            raise UsageError("route, copies: a decoder that was widened for a source cannot go back")
        else:
            network = self.editor if settings.editor else self.transformer
            _make_room(network, settings, known=own)
        return OmniVideo(**parts, **self.film_settings, settings=settings)

    # Making

    def generate(
        self,
        prompt: str,
        image: np.ndarray | Image.Image | None = None,
        frames: int | None = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        progress: Progress | None = None,
        thought: Thought | None = None,
        negative: str = "",
        extend: bool = True,
    ) -> Clip:
        """A film, or with ``frames=1`` a picture, of ``prompt``; see :meth:`generate_many`."""
        images = None if image is None else [image]
        thoughts = None if thought is None else [thought]
        return self.generate_many(
            [prompt], images, [seed], frames, steps, guidance, 1, progress, thoughts, negative, extend
        )[0]

    def generate_many(
        self,
        prompts: Sequence[str],
        images: Sequence[np.ndarray | Image.Image] | None = None,
        seeds: Sequence[int] | None = None,
        frames: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        batch_size: int = 16,
        progress: Progress | None = None,
        thoughts: Sequence[Thought | None] | None = None,
        negative: str = "",
        extend: bool = True,
    ) -> list[Clip]:
        """One film for each prompt; arguments as in the base system.

        Args:
            thoughts: from :meth:`think`: what is made is the thought's prompt.
            negative: what the films should not show, for guidance; nothing by default.

        Raises:
            UserError: a prompt is empty, too long, or has unknown words.
            UsageError: an impossible number of frames or steps, or counts that do not fit together.
        """
        frames = CLIP_FRAMES if frames is None else frames
        check_frames(frames)
        if images is not None and frames == 1:
            raise UsageError("a first frame is for films: leave it out to make a picture, or use edit")
        seeds = list(range(len(prompts))) if seeds is None else list(seeds)
        thoughts = [None] * len(prompts) if thoughts is None else list(thoughts)
        if not len(prompts) == len(seeds) == len(thoughts) or (
            images is not None and len(images) != len(prompts)
        ):
            raise UsageError(f"{len(prompts)} prompts need as many seeds, images and thoughts")
        sampling = self._sampling("t2i" if frames == 1 else "t2v", steps, guidance, None)
        requests = [
            self._request("prompt", prompt, thought)
            for prompt, thought in zip(prompts, thoughts, strict=True)
        ]
        if extend:
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            requests = self._extended(requests, generators, placed=images is None)
        plans = [""] * len(prompts)
        return self._batches(requests, plans, seeds, frames, sampling, negative, batch_size, progress, images)

    def edit(
        self,
        clip: Clip,
        instruction: str,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        source_guidance: float | None = None,
        progress: Progress | None = None,
        thought: Thought | None = None,
        negative: str = "",
        extend: bool = True,
    ) -> Clip:
        """``clip``, a film or a picture, changed as ``instruction`` says; see :meth:`edit_many`."""
        thoughts = None if thought is None else [thought]
        options = {"progress": progress, "thoughts": thoughts, "negative": negative, "extend": extend}
        return self.edit_many([(clip, instruction)], [seed], steps, guidance, source_guidance, 1, **options)[
            0
        ]

    def edit_many(
        self,
        pairs: Sequence[tuple[Clip, str]],
        seeds: Sequence[int] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        source_guidance: float | None = None,
        batch_size: int = 16,
        progress: Progress | None = None,
        thoughts: Sequence[Thought | None] | None = None,
        negative: str = "",
        extend: bool = True,
    ) -> list[Clip]:
        """Edited films of (film, instruction) pairs, all of the same length.

        Args:
            guidance, source_guidance: scales on the words and on the source; the model's own by default. A source
                scale other than 1 costs a third pass a step.
            extend: have the language model foresee the plan of the edited film, where no thought has it and the
                model's settings want it so.

        Raises:
            UserError: an instruction is empty, too long, or has unknown words; a film has a length or shape that
                cannot be edited, or more tokens than the context has room for.
            UsageError: counts or lengths that do not fit together.
        """
        seeds = list(range(len(pairs))) if seeds is None else list(seeds)
        thoughts = [None] * len(pairs) if thoughts is None else list(thoughts)
        if not len(pairs) == len(seeds) == len(thoughts):
            raise UsageError(f"{len(pairs)} films need as many instructions, seeds and thoughts")
        films = [prepare_source(clip, self.size)[0] for clip, _ in pairs]
        lengths = {len(film) for film in films}
        if len(lengths) != 1:
            raise UsageError(f"films that are edited together need the same length, not {sorted(lengths)}")
        frames = lengths.pop()
        requests = [
            self._request("instruction", text, thought, film)
            for (_, text), thought, film in zip(pairs, thoughts, films, strict=True)
        ]
        plans = self._foreseen(requests, thoughts, extend)
        sampling = self._sampling("i2i" if frames == 1 else "v2v", steps, guidance, source_guidance)
        made = self._batches(requests, plans, seeds, frames, sampling, negative, batch_size, progress, None)
        return [Clip(each.frames, clip.fps) for each, (clip, _) in zip(made, pairs, strict=True)]

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        source: Clip | Sequence[Clip] | None = None,
        image: np.ndarray | Image.Image | Sequence[Any] | None = None,
        num_frames: int = CLIP_FRAMES,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        source_guidance_scale: float | None = None,
        negative_prompt: str = "",
        num_videos_per_prompt: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: Literal["np", "pt", "pil", "latent"] = "np",
        callback_on_step_end: Callable[[Any, int, Tensor, dict], dict] | None = None,
        return_dict: bool = True,
        extend_prompt: bool = True,
    ) -> WanPipelineOutput | tuple:
        """Make or edit films as diffusers' pipelines do; arguments and result as in the base system.

        Args:
            source: films that are edited, one for all prompts or one each; ``num_frames`` is theirs then.

        Raises:
            UserError, UsageError: as :meth:`generate_many` and :meth:`edit_many`.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        clips = [source] * len(prompts) if source is None or isinstance(source, Clip) else list(source)
        if len(clips) != len(prompts):
            raise UsageError(f"{len(prompts)} prompts need one source film or as many, got {len(clips)}")
        copies = range(num_videos_per_prompt)
        requests = [
            self._about("prompt", text, clip)
            for text, clip in zip(prompts, clips, strict=True)
            for _ in copies
        ]
        count = num_frames if requests[0].frames is None else len(requests[0].frames)
        check_frames(count)
        task: Task = ("t2i" if count == 1 else "t2v") if source is None else ("i2i" if count == 1 else "v2v")
        sampling = self._sampling(task, num_inference_steps, guidance_scale, source_guidance_scale)
        noise = self._noise(len(requests), count, generator) if latents is None else latents
        if extend_prompt and source is None:
            requests = self._extended(requests, generator, placed=image is None)
        plans = self._foreseen(requests, [None] * len(requests), extend_prompt and source is not None)
        pictures, first = self._given(image, len(requests), num_videos_per_prompt)
        on_step = callback_on_step_end and diffusers_callback(self, callback_on_step_end)
        films = self._pixels(requests)
        encoded = self._encoded(films)
        state = self.latents(requests, noise, sampling, plans, negative_prompt, first, on_step, encoded)
        if output_type == "latent":
            frames: Any = state
        else:
            frames = as_output(self.shown(state, films, encoded, pictures), output_type)
        return WanPipelineOutput(frames=frames) if return_dict else (frames,)

    # Understanding, thinking, talking

    def ask_many(
        self, pairs: Sequence[tuple[Clip, str]], batch_size: int = 32, judge: bool = True
    ) -> list[Answer]:
        """Answers to (film, question) pairs; a question that the model takes for a request has none."""
        return [_no_marks(each) for each in super().ask_many(pairs, batch_size, judge)]

    def ask_view(self, frames: np.ndarray, question: str) -> Answer:
        """As the base system's; a question that the model takes for a request has no answer."""
        return _no_marks(super().ask_view(frames, question))

    def think(self, text: str, clip: Clip | None = None) -> Thought:
        """Reason about a prompt, or with ``clip`` an instruction, and rewrite it. Nothing is made.

        Raises:
            UserError: the text is empty or has unknown words, or the model's thought is unfinished.
        """
        return self.mllm.think(self._about("instruction" if clip else "prompt", text, clip))

    def foresee(self, instruction: str, clip: Clip) -> str:
        """The plan of the film that an edit of ``clip`` leads to; empty if the model's words are no plan.

        Raises:
            UserError: the instruction is empty or has unknown words, or the film cannot be edited.
        """
        return self.mllm.foresee([self._about("instruction", instruction, clip)])[0]

    def reply(self, text: str, clip: Clip | None = None) -> Reply:
        """What the text head makes of ``text`` about ``clip``: an answer, or the wish to make a picture or a film."""
        return self.mllm.reply(self._about("text", text, clip))

    def chat(self, clip: Clip | None = None, think: bool = False, seed: int = 0) -> Conversation:
        """A conversation about a running film; see :class:`~unireel.systems.omnivideo.chat.Conversation`."""
        return Conversation(self, clip, think, seed)

    # Below

    def _words(self, what: str, text: str) -> str:
        """``text`` in the World's spelling.

        Raises:
            UserError: it is empty or has unknown words.
        """
        if not text.strip():
            raise UserError(f"the {what} is empty; say something like 'make the red star blue'")
        unknown = self.mllm.unknown_words(text)
        if unknown:
            listed = ", ".join(f"'{word}'" for word in unknown[:5])
            raise UserError(
                f"the {what} has words that the pocket model does not know: {listed}; "
                "'unireel world sample --n 5' shows its language"
            )
        return " ".join(words(text))

    def _about(self, what: str, text: str, clip: Clip | None) -> Request:
        return Request(self._words(what, text), None if clip is None else prepare_source(clip, self.size)[0])

    def _request(
        self, what: str, text: str, thought: Thought | None, film: np.ndarray | None = None
    ) -> Request:
        said = self._words(what, text)
        return Request(self._words("thought's prompt", thought.prompt) if thought else said, film)

    def _extended(
        self,
        requests: Sequence[Request],
        generator: torch.Generator | Sequence[torch.Generator] | None,
        placed: bool,
    ) -> list[Request]:
        """Requests with their prompts extended, but those with words that the planner has never heard of."""
        known = self.planner.config.vocab_size if self.planner is not None else 0
        prompts = [bare(each.text) for each in requests]
        able = [
            i for i, each in enumerate(prompts) if max(self.tokenizer(each)["input_ids"], default=0) < known
        ]
        generators = generator if isinstance(generator, list | tuple) else [generator] * len(prompts)
        plans = self.extend([prompts[i] for i in able], [generators[i] for i in able], placed)
        for i, plan in zip(able, plans, strict=True):
            prompts[i] = plan
        return [replace(each, text=text) for each, text in zip(requests, prompts, strict=True)]

    def _foreseen(
        self, requests: Sequence[Request], thoughts: Sequence[Thought | None], foresee: bool
    ) -> list[str]:
        """The plan of each edited film that the decoder hears instead of the instruction, if it is told any."""
        told = self.settings.told
        plans = [
            " ".join(words(thought.caption)) if thought and told != "nothing" else "" for thought in thoughts
        ]
        asked = [i for i, each in enumerate(thoughts) if not each and foresee and told == "foreseen"]
        if asked:
            for i, plan in zip(asked, self.mllm.foresee([requests[i] for i in asked]), strict=True):
                plans[i] = plan
        return plans

    def _sampling(
        self, task: Task, steps: int | None, guidance: float | None, source: float | None
    ) -> Sampling:
        given = {"steps": steps, "text": guidance, "source": source}
        film = Sampling(self.config["steps"], self.config["shift"], self.config["guidance"])
        usual = getattr(self.settings, task) or film
        return replace(usual, **{name: value for name, value in given.items() if value is not None})

    @torch.no_grad()
    def _batches(
        self,
        requests: list[Request],
        plans: list[str],
        seeds: list[int],
        frames: int,
        sampling: Sampling,
        negative: str,
        batch_size: int,
        progress: Progress | None,
        images: Sequence[Any] | None,
    ) -> list[Clip]:
        starts = range(0, len(requests), batch_size)
        clips: list[Clip] = []
        for number, start in enumerate(starts):
            part = slice(start, start + batch_size)

            def report(step: int, time: Tensor, state: Tensor, done: int = number * sampling.steps) -> Tensor:
                if progress:
                    progress(done + step + 1, len(starts) * sampling.steps)
                return state

            generators = [torch.Generator().manual_seed(seed) for seed in seeds[part]]
            noise = self._noise(len(generators), frames, generators)
            pictures, first = self._given(None if images is None else list(images[part]), len(generators))
            films = self._pixels(requests[part])
            source = self._encoded(films)
            state = self.latents(
                requests[part], noise, sampling, plans[part], negative, first, report, source
            )
            clips += [Clip(film, FPS) for film in to_frames(self.shown(state, films, source, pictures))]
        return clips

    @torch.no_grad()
    def latents(
        self,
        requests: Sequence[Request],
        noise: Tensor,
        sampling: Sampling,
        plans: Sequence[str] | None = None,
        negative: str = "",
        first: Tensor | None = None,
        on_step: Callable[[int, Tensor, Tensor], Tensor] | None = None,
        source: Tensor | None = None,
    ) -> Tensor:
        """Latents (B, C, T, h, w) of what is asked for, from ``noise`` of that shape.

        Args:
            requests: prompts, or instructions with films; with films of the same length, or all without.
            plans: of edited films, which the decoder hears instead of the instructions; empty ones it does not.
            first: clean first latent frames (B, C, 1, h, w) that are kept.
            source: latents of the requests' films (B, C, T, h, w); by default they are encoded.
        """
        plans = [""] * len(requests) if plans is None else plans
        if source is None:
            source = self._encoded(self._pixels(requests))
        noise = noise.to(self.device, self.vae.dtype)
        if first is None and self.config["staged"] and noise.shape[2] > 1:
            picture = None if source is None else source[:, :, :1]
            still = [
                replace(each, frames=None if each.frames is None else each.frames[:1]) for each in requests
            ]
            first = self._integrate(
                still, "image", plans, picture, noise[:, :, :1], sampling, negative, None, None
            )
        kind: Kind = "video" if noise.shape[2] > 1 else "image"
        state = self._integrate(requests, kind, plans, source, noise, sampling, negative, first, on_step)
        again = self.config["restart"]
        if again and kind == "video" and source is None and self.profile.name != "released":
            few = replace(sampling, steps=restart_steps(sampling.steps), text=1.0)
            state = renoised(state, noise, again)
            return self._integrate(requests, kind, plans, None, state, few, negative, first, None, again)
        return state

    def _pixels(self, requests: Sequence[Request]) -> Tensor | None:
        """The requests' films, (B, 3, F, H, W) in [-1, 1]; None if they have none."""
        films = [each.frames for each in requests]
        return None if films[0] is None else to_pixels(np.stack(films)).to(self.device, self.vae.dtype)

    def _encoded(self, films: Tensor | None) -> Tensor | None:
        return None if films is None else encode(self.vae, films)

    def shown(
        self, state: Tensor, films: Tensor | None, source: Tensor | None, first: Tensor | None = None
    ) -> Tensor:
        """Pixels (B, 3, F, H, W) in [-1, 1] of the latents ``state``; where they show what ``films``, whose latents
        ``source`` are, show as well, these. ``first``: pictures that films were made from."""
        within = 0.0 if self.profile.name == "released" else self.settings.blend
        pixels = decode(self.vae, state, first if within else None)
        if films is None or source is None or not within:
            return pixels
        return blended(pixels, decode(self.vae, source), films, within)

    def _integrate(
        self,
        requests: Sequence[Request],
        kind: Kind,
        plans: Sequence[str],
        source: Tensor | None,
        noise: Tensor,
        sampling: Sampling,
        negative: str,
        first: Tensor | None,
        on_step: Callable[[int, Tensor, Tensor], Tensor] | None,
        start: float = 1.0,
    ) -> Tensor:
        guidance = Guidance(sampling.text, sampling.source, self.profile.rule)
        names = guidance.branches(source is not None)
        contexts = self.contexts(requests, [kind] * len(requests), plans, source, negative, names)
        together = Context.cat([contexts[name] for name in names])
        # The other routes read the source itself: of branches without it, nothing is given.
        given = torch.tensor([name != "nothing" for name in names]).repeat_interleave(len(noise))
        sources = None if source is None else torch.cat([source] * len(names))

        def velocity(state: Tensor, time: Tensor, sigma: Tensor) -> Tensor:
            states = torch.cat([state] * len(names))
            every = self.decoder.velocity(states, time, sigma, together, sources, given, first is not None)
            return guidance.combine(dict(zip(names, every.chunk(len(names)), strict=True)))

        return integrate(
            velocity, noise, sampling.steps, sampling.shift, first, on_step, self.profile.own_times, start
        )

    def contexts(
        self,
        requests: Sequence[Request],
        kinds: Sequence[Kind],
        plans: Sequence[str],
        source: Tensor | None,
        negative: str,
        branches: Sequence[str],
    ) -> dict[str, Context]:
        """The decoder's context in each branch of guidance.

        Args:
            plans: heard instead of what is said, where they are not empty; visual tokens are of what is said.
            source: latents of the films, (B, C, T, h, w).
            negative: stands for the words in branches without them.
        """
        own = self.conditioner
        heard = [plan or each.text for each, plan in zip(requests, plans, strict=True)]
        texts = tokenize(self.tokenizer, [*heard, negative, ""], self.settings.prompt_length)
        ids, there = (each.to(self.device) for each in texts)
        if source is None and self.settings.words_only:
            # The base's decoder has learnt with the padding of its prompts in sight.
            states = encode_text(self.text_encoder, ids, there)
            avoided = states[-2:-1].expand(len(requests), -1, -1)
            return {name: Context(states[:-2] if name == FULL else avoided, None) for name in branches}
        states, mask = self.mllm.request_states(requests, kinds)
        visual = list(own.adapted(own.visual_tokens(states, mask, kinds)))
        texts = own.texts(ids, there)
        avoided, empty = texts[-2], texts[-1]
        tokens: list[Tensor | None] = [None] * len(requests)
        if source is not None and self.settings.route == "tokens":
            tokens = list(self.visual_context(source))
        full = own.rows(visual, texts[:-2], empty, tokens)
        return {name: self.assemble(own.branch(name, full, avoided)) for name in branches}


def _no_marks(answer: Answer) -> Answer:
    """An answer that is none, if the model wanted to make something instead."""
    if not any(answer.text.startswith(begin) for begin, _ in MARKS.values()):
        return answer
    note = "the model took this for a request to make something; ask again in other words"
    return replace(answer, text="", reliable=False, note=note)


def _make_room(
    network: WanTransformer3DModel, settings: Settings, seed: int = 0, known: Settings = USUAL
) -> None:
    """Let a decoder, in place, take and copy source films as ``settings`` says, which it does as ``known`` says."""
    if settings.route == "channels" != known.route:
        widen(network, seed, network.config["out_channels"] - known.copies)  # type: ignore[index]
    if settings.copies and not known.copies:
        add_gate(network)


def trained_parts(model: OmniVideo) -> dict[str, nn.Module]:
    """The parts of a model that training may change, by name."""
    names = ("vlm", "text_encoder", "vision_head", "adapter", "visual_context", "transformer", "editor")
    return {name: getattr(model, name) for name in names if getattr(model, name) is not None}
