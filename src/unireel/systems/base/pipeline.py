"""The base pipeline: films from words and first frames, answers and captions from films.

Made of ordinary components in ordinary folders: ``vae``, ``text_encoder``, ``tokenizer``, ``transformer`` make films,
``vlm`` with its tokenizer understands them.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from diffusers import AutoencoderKLCosmos, DiffusionPipeline, WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_output import WanPipelineOutput
from PIL import Image
from torch import Tensor, nn
from transformers import (
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2ForCausalLM,
    Qwen2VLForConditionalGeneration,
    UMT5EncoderModel,
)

from unireel.backbones.planner import write_plans
from unireel.backbones.text import encode_text, tokenize
from unireel.backbones.vae import decode, encode, latent_frames
from unireel.backbones.wan import Prediction
from unireel.clip import Clip
from unireel.data.world import to_frames, to_pixels
from unireel.errors import UsageError, UserError
from unireel.flow.sampling import sample
from unireel.hub import component
from unireel.systems.base.answering import Answer, Answerer, check_words
from unireel.systems.base.verifying import Chosen, choose, shown_at_once, verify_each
from unireel.world.facts import Fact
from unireel.world.language import PLAN_WORDS, beyond_first_frame, parse, plan_worth, read_plan
from unireel.world.scene import BACKGROUNDS, CLIP_FRAMES, FPS, STYLES

CARD = "unireel.json"
TEXT_LENGTH = PLAN_WORDS + 1
PLAN_TRIES = 16
SETTINGS = ("size", "steps", "guidance", "shift", "prediction", "staged", "restart")
"""How films are made; every pipeline on these components has these settings."""


class BasePipeline(DiffusionPipeline):
    """Generation and understanding with the base system's components.

    Args:
        vae: causal video autoencoder.
        text_encoder, tokenizer: of prompts.
        transformer: video DiT.
        vlm: video-language model; it shares the tokenizer.
        planner: language model that extends prompts to plans, sharing the tokenizer, or None.
        size: native side of a film in pixels.
        steps, guidance, shift: sampling defaults.
        prediction: what the DiT puts out, see :func:`~unireel.backbones.wan.predict_velocity`.
        staged: a film without a given first frame is made in two stages, first its first frame as a picture and then
            the film from it (as Emu Video, arXiv 2311.10709, does with two models): drawing is learned from pictures at
            a fifth of the cost, and a film has only to move what is drawn.
        restart: flow time from which films (not pictures) are drawn once more, see
            :func:`~unireel.flow.sampling.sample`; 0: they are not.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components: ClassVar[list[str]] = ["planner"]
    guidance_interval: tuple[float, float] | None = (0.0, 1.0)
    """Flow times in which guidance acts; None where films are not sampled by :func:`~unireel.flow.sampling.sample`."""

    def __init__(
        self,
        vae: AutoencoderKLCosmos,
        text_encoder: UMT5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        transformer: WanTransformer3DModel,
        vlm: Qwen2VLForConditionalGeneration,
        size: int = 48,
        steps: int = 24,
        guidance: float = 4.0,
        shift: float = 1.0,
        prediction: Prediction = "velocity",
        staged: bool = False,
        planner: Qwen2ForCausalLM | None = None,
        restart: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            transformer=transformer,
            vlm=vlm,
            planner=planner,
        )
        self.register_to_config(
            size=size,
            steps=steps,
            guidance=guidance,
            shift=shift,
            prediction=prediction,
            staged=staged,
            restart=restart,
        )
        for module in (vae, text_encoder, transformer, vlm, planner):
            if module is not None:
                module.eval()

    @property
    def size(self) -> int:
        """Native side of a film in pixels."""
        return self.config["size"]

    @property
    def drawing(self) -> Any:
        """The network that draws films from words."""
        return self.transformer

    @property
    def film_settings(self) -> dict[str, Any]:
        """The values of :data:`SETTINGS`."""
        return {name: self.config[name] for name in SETTINGS}

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> BasePipeline:
        """Load the components of a model folder.

        ``dtype`` is float32 by default: the weights are stored in bfloat16 to keep the package small, but few
        processors compute faster in it.

        Raises:
            UserError: the folder lacks a component or holds one of another kind.
        """
        folder = Path(folder)
        dtype = dtype or torch.float32
        parts: dict[str, Any] = {
            "vae": AutoencoderKLCosmos,
            "text_encoder": UMT5EncoderModel,
            "transformer": WanTransformer3DModel,
            "vlm": Qwen2VLForConditionalGeneration,
        }
        if component(folder, "planner").is_dir():
            parts["planner"] = Qwen2ForCausalLM
        folders = {name: component(folder, name) for name in (*parts, "tokenizer")}
        for name, each in folders.items():
            if not each.is_dir():
                raise UserError(f"'{folder}' is not a model of the base system: it has no folder '{name}'")
        try:
            loaded = {
                name: kind.from_pretrained(folders[name], torch_dtype=dtype, local_files_only=True)
                for name, kind in parts.items()
            }
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folders["tokenizer"], local_files_only=True)
            settings = json.loads((folder / CARD).read_text(encoding="utf-8")).get("settings", {})
        except (OSError, ValueError) as error:
            raise UserError(f"'{folder}' cannot be loaded: {str(error).splitlines()[0]}") from error
        return cls(tokenizer=tokenizer, **loaded, **settings).to(device)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.bfloat16, **kwargs: Any) -> None:
        """Write every component as safetensors in ``dtype``, and the card ``unireel.json``."""
        folder = Path(folder)
        for name in ("vae", "text_encoder", "transformer", "vlm", "planner"):
            part = getattr(self, name)
            if part is not None:
                save_component(part, folder / name, dtype)
        self.tokenizer.save_pretrained(folder / "tokenizer")
        card = {"system": "base", "size": self.size, "settings": self.film_settings}
        (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        image: np.ndarray | Image.Image | Sequence[Any] | None = None,
        num_frames: int = CLIP_FRAMES,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_videos_per_prompt: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: Literal["np", "pt", "pil", "latent"] = "np",
        callback_on_step_end: Callable[[Any, int, Tensor, dict], dict] | None = None,
        return_dict: bool = True,
        extend_prompt: bool = True,
    ) -> WanPipelineOutput | tuple:
        """Make films as diffusers' pipelines do.

        Args:
            prompt: one or B prompts in the World's language.
            image: first frame(s), uint8 (H, W, 3) or PIL, one for all prompts or one each.
            num_frames: 1 for pictures, else 5, 9, 13 or 17.
            generator: one for the batch or one for each film; the noise is always drawn in float32 on the CPU.
            latents: noise to start from, (B, C, T, h, w), instead of drawing it.
            callback_on_step_end: called as in diffusers with (pipeline, step, timestep, {"latents": ...}).
            extend_prompt: have the planner, if there is one, extend the prompts, see :meth:`extend`.

        Returns:
            ``frames``: "np" (B, F, H, W, 3) float32 in [0, 1], "pt" (B, F, 3, H, W), "pil" lists of images, or the
            normalised latents (B, C, T, h, w).

        Raises:
            UserError: a prompt is empty, too long, or has unknown words.
            UsageError: an impossible number of frames or steps, or counts that do not fit together.
        """
        # 1. Check
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        for each in prompts:
            check_words("prompt", each)
        check_frames(num_frames)
        prompts = [each for each in prompts for _ in range(num_videos_per_prompt)]
        # 2. Draw the noise
        noise = self._noise(len(prompts), num_frames, generator) if latents is None else latents
        # 3. Extend the prompts, encode the first frames, and the prompts with the empty one for guidance
        said = prompts
        if extend_prompt:
            prompts = self.extend(prompts, generator, placed=image is None)
        pictures, first = self._given(image, len(prompts), num_videos_per_prompt)
        if extend_prompt and pictures is not None and self.planner is not None:
            prompts = self._as_seen(said, prompts, pictures)
        text, empty = self.encode_prompt(prompts)
        # 4. Integrate the flow, of the first frame alone before the film's if there are two stages
        integrate = partial(
            sample,
            self.drawing,
            text=text,
            empty=empty,
            steps=self.config["steps"] if num_inference_steps is None else num_inference_steps,
            guidance=self.config["guidance"] if guidance_scale is None else guidance_scale,
            shift=self.config["shift"],
            interval=self.guidance_interval or (0.0, 1.0),
            prediction=self.config["prediction"],
            restart=self.config["restart"],
        )
        noise = noise.to(self.device, text.dtype)
        if first is None and self.config["staged"] and num_frames > 1:
            first = integrate(noise[:, :, :1])
        on_step = callback_on_step_end and diffusers_callback(self, callback_on_step_end)
        state = integrate(noise, first=first, on_step=on_step)
        # 5. Decode
        frames = self.decoded(state, output_type, pictures)
        return WanPipelineOutput(frames=frames) if return_dict else (frames,)

    def decoded(
        self,
        latents: Tensor,
        output_type: Literal["np", "pt", "pil", "latent"],
        first: Tensor | None = None,
    ) -> Any:
        """Films of normalised ``latents`` (B, C, T, h, w) in one of the forms that :meth:`__call__` returns, made from
        the pictures ``first`` (B, 3, 1, H, W), see :func:`~unireel.backbones.vae.decode`."""
        if output_type == "latent":
            return latents
        return as_output(decode(self.vae, latents, first), output_type)

    def extend(
        self,
        prompts: Sequence[str],
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        placed: bool = True,
    ) -> list[str]:
        """The plans (:mod:`unireel.world.language.plans`) that the planner draws for ``prompts``.

        A prompt that is a plan stays as it is, and so do all without a planner. A plan that lacks what its prompt says,
        or in which objects get in each other's way, is drawn again, up to :data:`PLAN_TRIES` times in all; then the
        best is taken, and the prompt itself if none could be read.

        Args:
            prompts: in the World's language.
            generator: one for all or one for each.
            placed: whether plans say where objects lie; not if a given first frame shows it.
        """
        plans, worth = list(prompts), [(-1.0, False)] * len(prompts)
        generators = generator if isinstance(generator, list | tuple) else [generator] * len(plans)
        for _ in range(PLAN_TRIES if self.planner is not None else 0):
            waiting = [
                i for i, each in enumerate(prompts) if worth[i] < (1.0, True) and read_plan(each) is None
            ]
            if not waiting:
                break
            asked, own = [prompts[i] for i in waiting], [generators[i] for i in waiting]
            drawn = write_plans(self.planner, self.tokenizer, asked, own)
            for i, plan in zip(waiting, drawn, strict=True):
                found = plan_worth(plan, parse(prompts[i]))
                if found > worth[i]:
                    plans[i], worth[i] = plan, found
        return plans if placed else [beyond_first_frame(each) for each in plans]

    def _as_seen(self, prompts: Sequence[str], plans: Sequence[str], pictures: Tensor) -> list[str]:
        """``plans`` with style and background as the video-language model sees them in the first frames ``pictures``
        (B, 3, 1, H, W), where the prompts do not say them: the planner has not seen the pictures."""
        seen = list(plans)
        clips = [Clip(frames, FPS) for frames in to_frames(pictures)]
        for kind, known in (("style", STYLES), ("background", tuple(BACKGROUNDS))):
            asked = [i for i, each in enumerate(prompts) if all(fact.kind != kind for fact in parse(each))]
            asked = [i for i in asked if read_plan(prompts[i]) is None and read_plan(plans[i]) is not None]
            answers = self.ask_many([(clips[i], f"what is the {kind}?") for i in asked], judge=False)
            for i, answer in zip(asked, answers, strict=True):
                if answer.text in known:
                    seen[i] = re.sub(
                        rf"\b({'|'.join(known)}) {kind}\b", f"{answer.text} {kind}", seen[i], count=1
                    )
        return seen

    def encode_prompt(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States of the prompts and of the empty prompt, both (B, L, D), padding zero."""
        ids, mask = (each.to(self.device) for each in tokenize(self.tokenizer, [*prompts, ""], TEXT_LENGTH))
        states = encode_text(self.text_encoder, ids, mask)
        return states[:-1], states[-1:].expand(len(prompts), -1, -1)

    def generate(
        self,
        prompt: str,
        image: np.ndarray | Image.Image | None = None,
        frames: int | None = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        progress: Callable[[int, int], None] | None = None,
        extend: bool = True,
    ) -> Clip:
        """One film (or with ``frames=1`` a picture) of ``prompt``; see :meth:`generate_many`."""
        images = None if image is None else [image]
        options = {"progress": progress, "extend": extend}
        return self.generate_many([prompt], images, [seed], frames, steps, guidance, **options)[0]

    def generate_many(
        self,
        prompts: Sequence[str],
        images: Sequence[np.ndarray | Image.Image] | None = None,
        seeds: Sequence[int] | None = None,
        frames: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        batch_size: int = 16,
        progress: Callable[[int, int], None] | None = None,
        extend: bool = True,
    ) -> list[Clip]:
        """One film for each prompt.

        Args:
            prompts: in the World's language.
            images: first frames, one for each prompt, of any size (they are resized to the model's).
            seeds: one for each prompt; 0, 1, ... by default.
            frames: 1 (pictures), 5, 9, 13 or 17; 17 by default.
            steps, guidance: of the sampler; the model's own by default.
            progress: called with (steps done, steps in all) over all batches.
            extend: have the planner extend the prompts, see :meth:`extend`.
        """
        seeds = list(range(len(prompts))) if seeds is None else list(seeds)
        if len(seeds) != len(prompts) or (images is not None and len(images) != len(prompts)):
            raise UsageError(f"{len(prompts)} prompts need as many seeds and images")
        steps = self.config["steps"] if steps is None else steps
        starts = range(0, len(prompts), batch_size)
        clips: list[Clip] = []
        for number, start in enumerate(starts):
            part = slice(start, start + batch_size)

            def report(
                pipeline: Any, step: int, time: Tensor, values: dict, done: int = number * steps
            ) -> dict:
                if progress:
                    progress(done + step + 1, len(starts) * steps)
                return {}

            output = self(
                prompts[part],
                None if images is None else list(images[part]),
                num_frames=CLIP_FRAMES if frames is None else frames,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds[part]],
                callback_on_step_end=report,
                extend_prompt=extend,
            )
            clips += [Clip(np.uint8(np.rint(255 * film)), FPS) for film in output.frames]
        return clips

    def best(
        self,
        prompt: str,
        count: int = 4,
        image: np.ndarray | Image.Image | None = None,
        frames: int | None = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Chosen:
        """The film that the model itself believes in most; see :meth:`best_of_many`."""
        images = None if image is None else [image]
        return self.best_of_many([prompt], count, images, [seed], frames, steps, guidance, progress=progress)[
            0
        ]

    def best_of_many(
        self,
        prompts: Sequence[str],
        count: int,
        images: Sequence[np.ndarray | Image.Image] | None = None,
        seeds: Sequence[int] | None = None,
        frames: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        batch_size: int = 16,
        progress: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> list[Chosen]:
        """For each prompt ``count`` films, and which of them the model believes in most.

        The prompt's facts are put to the model as questions about each film and looked for in its caption. Where films
        are made in two stages, the first frame is chosen in the same way before.

        Args:
            seeds: each prompt's films have its seed, the next one, and so on.
            progress: as in :meth:`generate_many`, of one stage after the other.
            options: of :meth:`generate_many`.

        Raises:
            UsageError: ``count`` is below 1.
            UserError: as in :meth:`generate_many`, or a prompt has no fact that could be verified.
        """
        if count < 1:
            raise UsageError(f"best_of={count}: make at least 1 film")
        facts = [parse(prompt) for prompt in prompts]
        for prompt, found in zip(prompts, facts, strict=True):
            check_words("prompt", prompt)
            if not found:
                raise UserError(f"nothing in the prompt can be verified: '{prompt}'")
        seeds = list(range(len(prompts))) if seeds is None else seeds

        every = [seed + number for seed in seeds for number in range(count)]
        generators = [torch.Generator().manual_seed(seed) for seed in every]
        plans = self.extend([prompt for prompt in prompts for _ in range(count)], generators, images is None)

        def chosen(
            images: Sequence[Any] | None, frames: int | None, facts: Sequence[Sequence[Fact]]
        ) -> list[Chosen]:
            clips = self.generate_many(
                plans,
                None if images is None else [image for image in images for _ in range(count)],
                every,
                frames,
                steps,
                guidance,
                batch_size,
                progress,
                extend=False,
                **options,
            )
            beliefs = verify_each(self, clips, [own for own in facts for _ in range(count)])
            return [
                choose(clips[start : start + count], beliefs[start : start + count])
                for start in range(0, len(clips), count)
            ]

        if images is None and self.config["staged"] and frames != 1:
            drawn = chosen(None, 1, [shown_at_once(own) for own in facts])
            images = [each.clip.frames[0] for each in drawn]
            # A film goes on from its picture as the picture's own plan says.
            plans = [plans[row * count + each.number] for row, each in enumerate(drawn) for _ in range(count)]
        return chosen(images, frames, facts)

    def ask(self, clip: Clip, question: str) -> Answer:
        """The answer to ``question`` about ``clip``, with its confidence and the frames looked at."""
        return self.ask_many([(clip, question)])[0]

    def ask_many(
        self, pairs: Sequence[tuple[Clip, str]], batch_size: int = 32, judge: bool = True
    ) -> list[Answer]:
        """Answers to (film, question) pairs; ``judge`` has the checker say which films are outside the World."""
        return self._answerer().ask(pairs, batch_size, judge)

    def ask_view(self, frames: np.ndarray, question: str) -> Answer:
        """The answer to ``question`` from chosen frames (n, H, W, 3) uint8 of a long film, in temporal order.

        Up to 16 frames are looked at one by one, more as a film whose frames lie far apart.
        """
        return self._answerer().ask_view(frames, question)

    def caption(self, clip: Clip) -> Answer:
        """A detailed description of ``clip``; its confidence is per word."""
        return self.caption_many([clip])[0]

    def caption_many(self, clips: Sequence[Clip], batch_size: int = 32, judge: bool = True) -> list[Answer]:
        """Detailed descriptions of films."""
        return self._answerer().caption(clips, batch_size, judge)

    def _answerer(self) -> Answerer:
        return Answerer(self.vlm, self.tokenizer, self.size)

    def _noise(self, count: int, frames: int, generator: Any) -> Tensor:
        side = self.size // 2 ** int(np.log2(self.vae.config["spatial_compression_ratio"]))
        shape = (self.vae.config["latent_channels"], latent_frames(frames), side, side)
        if isinstance(generator, list | tuple):
            if len(generator) != count:
                raise UsageError(f"{count} films need one generator or {count}, got {len(generator)}")
            return torch.stack([torch.randn(shape, generator=each) for each in generator])
        return torch.randn((count, *shape), generator=generator)

    def _given(self, image: Any, count: int, copies: int = 1) -> tuple[Tensor | None, Tensor | None]:
        """First frames (B, 3, 1, H, W) in [-1, 1] and their latents (B, C, 1, h, w), of one image for all or of one for
        each prompt; None of none."""
        if image is None:
            return None, None
        images = list(image) if isinstance(image, list | tuple) else [image] * (count // copies)
        if len(images) * copies != count:
            raise UsageError(f"{count // copies} prompts need one image or as many, got {len(images)}")
        clips = [Clip(np.asarray(each)[None], FPS).resized(self.size, self.size) for each in images]
        pixels = to_pixels(np.stack([clip.frames for clip in clips for _ in range(copies)]))
        pixels = pixels.to(self.device, self.vae.dtype)
        return pixels, encode(self.vae, pixels)


def save_component(part: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write a component of diffusers' or transformers' kind in ``dtype``; it stays as it is.

    Its configuration does not say where on some machine it was loaded from.
    """
    # A copy, since what is rounded stays so: weights, and rotary frequencies, which no file has. The libraries' own
    # ``to`` warns of weights to keep in float32, which are read back so.
    copy: Any = deepcopy(part)
    nn.Module.to(copy, dtype)
    copy.save_pretrained(folder)
    config = folder / "config.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    content.pop("_name_or_path", None)
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_frames(frames: int) -> None:
    """Raise a :class:`UsageError` unless the pocket model can make films of this length."""
    accepted = tuple(range(1, CLIP_FRAMES + 1, 4))
    if frames not in accepted:
        listed = ", ".join(map(str, accepted))
        raise UsageError(f"the pocket model makes films of {listed} frames (1 is a picture), not {frames}")


def as_output(pixels: Tensor, output_type: Literal["np", "pt", "pil"]) -> Any:
    """Films (B, 3, F, H, W) in [-1, 1] in one of the forms in which diffusers' pipelines return them."""
    pixels = pixels.add(1).div(2).float()
    if output_type == "pt":
        return pixels.transpose(1, 2)
    frames = pixels.permute(0, 2, 3, 4, 1).cpu().numpy()
    if output_type == "pil":
        return [[Image.fromarray(np.uint8(np.rint(255 * f))) for f in film] for film in frames]
    return frames


def diffusers_callback(pipeline: BasePipeline, callback: Callable) -> Callable[[int, Tensor, Tensor], Tensor]:
    """Adapt a ``callback_on_step_end`` of diffusers, which may replace the latents, to the sampler."""

    def on_step(step: int, time: Tensor, latents: Tensor) -> Tensor:
        return callback(pipeline, step, time, {"latents": latents}).get("latents", latents)

    return on_step
