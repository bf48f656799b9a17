"""UniVid: a model that understands steers a decoder that makes films, and judges what was made.

The base system's components (``vae``, ``text_encoder``, ``tokenizer``, ``transformer``, ``vlm``), a ``connector`` of
its own, and, where there are some, ``adapters`` (LoRA on the decoder) and a ``ranker`` for Pyramid Reflection.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIncompatibleMethodOverride=false

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_output import WanPipelineOutput
from PIL import Image
from torch import Tensor

from unireel.backbones.lora import FILE, load_lora, lora_parameters, save_lora
from unireel.backbones.text import encode_text, tokenize
from unireel.backbones.understanding.interface import VIEWS
from unireel.backbones.understanding.pocket import PocketUnderstanding
from unireel.backbones.vae import decode, encode
from unireel.backbones.wan import Prediction
from unireel.clip import Clip
from unireel.config import from_dict, to_dict
from unireel.data.world import to_frames, to_pixels
from unireel.errors import UsageError, UserError
from unireel.flow.sampling import sample
from unireel.hub import component
from unireel.systems.base.answering import check_words
from unireel.systems.base.pipeline import CARD, TEXT_LENGTH, BasePipeline, check_frames, save_component
from unireel.systems.base.verifying import Chosen
from unireel.systems.univid.building import new_connector
from unireel.systems.univid.conditioning import Conditioner
from unireel.systems.univid.connector import Connector
from unireel.systems.univid.context import ContextCombiner
from unireel.systems.univid.references import plainly, refers, resolved
from unireel.systems.univid.settings import Settings, Sizes
from unireel.systems.univid.temperature import TemperatureAlignment, align
from unireel.world.scene import CLIP_FRAMES, COLOURS, FPS, SHAPES

if TYPE_CHECKING:
    from unireel.systems.univid.reflection.cache import FilmCache
    from unireel.systems.univid.reflection.loop import PyramidReflection, ReflectionConfig

USUAL, USUAL_SIZES = Settings(), Sizes()
ADAPTERS, RANKER = "adapters", "ranker"

Picture = np.ndarray | Image.Image
Progress = Callable[[int, int], None]
Control = Literal["none", "deaf", "unread"]
"""What is taken away to measure what it is good for."""


class UniVid(BasePipeline):
    """Generation from words and pictures that are understood, and understanding.

    Args:
        vae, text_encoder, tokenizer, transformer, vlm: as in the base system; the transformer may wear adapters.
        planner: language model that extends prompts to plans, see :meth:`extend`, or None; what a prompt says by a
            picture is said in words before.
        connector: from the language model's states to the decoder's context.
        size, steps, guidance, shift, prediction, staged: as in the base system.
        settings: everything else.
        gate: learned weight of the connector's tokens, before the tanh, where they are gated.
    """

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        transformer: Any,
        vlm: Any,
        connector: Connector,
        size: int = 48,
        steps: int = 16,
        guidance: float = 2.0,
        shift: float = 2.0,
        prediction: Prediction = "data",
        staged: bool = True,
        settings: Settings = USUAL,
        gate: float = 0.0,
        planner: Any = None,
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
        self.register_modules(connector=connector)
        connector.eval()
        self.settings = settings
        self.combiner = ContextCombiner(settings.combination, settings.context_length)
        if self.combiner.gate is not None:
            self.combiner.gate.data.fill_(gate)
        self.understanding = PocketUnderstanding(vlm, tokenizer)
        self.conditioner = Conditioner(
            self.understanding, self.encode_texts, connector, self.combiner, self.picture_tokens, VIEWS
        )
        self.ranker_folder: Path | None = None

    # Whole models

    @classmethod
    def from_base(
        cls, base: BasePipeline, settings: Settings = USUAL, sizes: Sizes = USUAL_SIZES, seed: int = 0
    ) -> UniVid:
        """An untrained model around ``base``, whose parts it takes over; the same for the same seed.

        Raises:
            UsageError: the connector's budgets and the text do not fit into the context together.
        """
        text = 0 if settings.combination == "replace" else TEXT_LENGTH
        if text + sizes.tokens > settings.context_length:
            raise UsageError(
                f"a context of {settings.context_length} tokens has no room for {text} of the text and "
                f"{sizes.tokens} of the connector"
            )
        connector = new_connector(base, sizes, settings, seed)
        parts = {**base.components, "connector": connector}
        return cls(**parts, **base.film_settings, settings=settings).to(base.device)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> UniVid:
        """Load the components of a model folder.

        Raises:
            UserError: the folder lacks a component or holds one of another kind, or its settings are not ours.
        """
        folder = Path(folder)
        if not (folder / "connector").is_dir():
            raise UserError(f"'{folder}' is not a model of the system univid: it has no folder 'connector'")
        base = BasePipeline.from_pretrained(folder, device, dtype)
        try:
            connector = Connector.from_pretrained(
                folder / "connector", torch_dtype=dtype or torch.float32, local_files_only=True
            )
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"'{folder}' cannot be loaded: {str(error).splitlines()[0]}") from error
        if (folder / ADAPTERS / FILE).is_file():
            load_lora(base.transformer, folder / ADAPTERS)
        settings, gate = from_dict(Settings, card.get("univid", {})), float(card.get("gate", 0.0))
        parts = {**base.components, "connector": connector}
        model = cls(**parts, **base.film_settings, settings=settings, gate=gate).to(device)
        ranker = component(folder, RANKER)
        model.ranker_folder = ranker if ranker.is_dir() else None
        return model

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype = torch.bfloat16, **kwargs: Any) -> None:
        """Write every component as safetensors in ``dtype`` (adapters as they are), and the card ``unireel.json``."""
        folder = Path(folder)
        worn = self.transformer
        self.transformer = without_adapters(worn)
        try:
            super().save_pretrained(folder, dtype)
        finally:
            self.transformer = worn
        save_component(self.connector, folder / "connector", dtype)
        if lora_parameters(worn):
            save_lora(worn, folder / ADAPTERS)
        if self.ranker_folder is not None and self.ranker_folder.resolve() != (folder / RANKER).resolve():
            shutil.copytree(self.ranker_folder, folder / RANKER, dirs_exist_ok=True)
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        card |= {"system": "univid", "univid": to_dict(self.settings)}
        if self.combiner.gate is not None:
            card["gate"] = self.combiner.gate.item()
        (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")

    def to(self, *args: Any, **kwargs: Any) -> UniVid:
        """Move the components and the gate."""
        super().to(*args, **kwargs)
        self.combiner.to(self.device)
        return self

    # Making

    def generate(
        self,
        prompt: str,
        image: Picture | None = None,
        frames: int | None = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        progress: Progress | None = None,
        reference: Picture | None = None,
        alignment: TemperatureAlignment | None = None,
        negative: str = "",
        best_of: int = 1,
    ) -> Clip:
        """One film (or with ``frames=1`` a picture); see :meth:`generate_many` and, for ``best_of``, :meth:`best`."""
        options = {"steps": steps, "guidance": guidance, "alignment": alignment, "negative": negative}
        if best_of != 1:
            return self.best(
                prompt, best_of, image, frames, seed, progress=progress, reference=reference, **options
            ).clip
        return self.generate_many(
            [prompt],
            None if image is None else [image],
            [seed],
            frames,
            progress=progress,
            references=None if reference is None else [reference],
            **options,
        )[0]

    def generate_many(
        self,
        prompts: Sequence[str],
        images: Sequence[Picture] | None = None,
        seeds: Sequence[int] | None = None,
        frames: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        batch_size: int = 16,
        progress: Progress | None = None,
        references: Sequence[Picture | None] | None = None,
        alignment: TemperatureAlignment | None = None,
        negative: str = "",
        control: Control = "none",
        heard: Sequence[str] | None = None,
        extend: bool = True,
    ) -> list[Clip]:
        """One film for each prompt; arguments as in the base system.

        Args:
            images: first frames, which films keep; the understanding model sees them too.
            references: pictures that prompts speak of ("the colour shown in this picture"), which films do not show.
            alignment: Temperature Modality Alignment instead of the model's own.
            negative: what films should not show, for guidance; encoded on its own, with the same pictures.
            control: "deaf" leaves the understanding model's states out, so that the decoder's own text encoder is all
                there is; "unread" leaves the text encoder's states out.
            heard: what the understanding model reads instead of each prompt, to measure what it is good for.
            extend: have the planner extend the prompts, see :meth:`extend`; what they say by pictures is said in words
                before, as the model sees the pictures.

        Raises:
            UserError: a prompt is empty, too long, has unknown words, or speaks of a picture that is not there.
            UsageError: an impossible number of frames or steps, or counts that do not fit together.
        """
        frames = CLIP_FRAMES if frames is None else frames
        prompts, pictures = self._understood(prompts, images, references, frames)
        seeds = list(range(len(prompts))) if seeds is None else list(seeds)
        if len(seeds) != len(prompts):
            raise UsageError(f"{len(prompts)} prompts need as many seeds, got {len(seeds)}")
        count: int = self.config["steps"] if steps is None else steps
        guidance = self.config["guidance"] if guidance is None else guidance
        starts = range(0, len(prompts), batch_size)
        clips: list[Clip] = []
        other = None if heard is None else [plainly(each) for each in heard]
        if other is not None and len(other) != len(prompts):
            raise UsageError(f"{len(prompts)} prompts need as many that are heard, got {len(other)}")
        if extend:
            prompts = self._told(prompts, pictures, seeds, images is None)
            other = None if other is None else self._told(other, pictures, seeds, images is None)
        heard = prompts if other is None else other
        for number, start in enumerate(starts):
            part = slice(start, start + batch_size)
            generators = [torch.Generator().manual_seed(seed) for seed in seeds[part]]
            noise = self._noise(len(generators), frames, generators)
            given, first = self._given(None if images is None else list(images[part]), len(generators))
            report = progress and partial(_report, progress, number * count, len(starts) * count)
            state = self.latents(
                prompts[part],
                noise,
                pictures[part],
                first,
                count,
                guidance,
                alignment,
                negative,
                control,
                heard[part],
                report,
            )
            clips += [Clip(film, FPS) for film in to_frames(decode(self.vae, state, given))]
        return clips

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        image: Picture | Sequence[Picture] | None = None,
        num_frames: int = CLIP_FRAMES,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: Literal["np", "pil", "latent"] = "np",
        return_dict: bool = True,
        reference: Picture | Sequence[Picture | None] | None = None,
        negative_prompt: str = "",
        alignment: TemperatureAlignment | None = None,
        extend_prompt: bool = True,
    ) -> WanPipelineOutput | tuple:
        """Make films as diffusers' pipelines do; arguments as there and in :meth:`generate_many`.

        Args:
            image, reference: one for all prompts, or one each.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        images, references = (
            None if each is None else list(each) if isinstance(each, list | tuple) else [each] * len(prompts)
            for each in (image, reference)
        )
        prompts, pictures = self._understood(prompts, images, references, num_frames)
        noise = self._noise(len(prompts), num_frames, generator) if latents is None else latents
        if extend_prompt:
            prompts = self._told(prompts, pictures, generator, images is None)
        given, first = self._given(images, len(prompts))
        state = self.latents(
            prompts,
            noise,
            pictures,
            first,
            self.config["steps"] if num_inference_steps is None else num_inference_steps,
            self.config["guidance"] if guidance_scale is None else guidance_scale,
            alignment,
            negative_prompt,
        )
        frames: Any = state
        if output_type != "latent":
            films = to_frames(decode(self.vae, state, given))
            frames = (
                [[Image.fromarray(frame) for frame in film] for film in films]
                if output_type == "pil"
                else films.astype(np.float32) / 255
            )
        return WanPipelineOutput(frames=frames) if return_dict else (frames,)

    def _understood(
        self,
        prompts: Sequence[str],
        images: Sequence[Picture] | None,
        references: Sequence[Picture | None] | None,
        frames: int,
    ) -> tuple[list[str], list[np.ndarray | None]]:
        """Checked prompts in the World's words, and what the understanding model sees with each."""
        prompts = [plainly(each) for each in prompts]
        check_frames(frames)
        for what, given in (("images", images), ("references", references)):
            if given is not None and len(given) != len(prompts):
                raise UsageError(f"{len(prompts)} prompts need as many {what}, got {len(given)}")
        if images is not None and frames == 1:
            raise UsageError("a first frame is for films: leave it out, or give the picture as a reference")
        pictures: list[np.ndarray | None] = []
        for number, prompt in enumerate(prompts):
            check_words("prompt", prompt)
            picture = None if references is None else references[number]
            if picture is None and images is not None:
                picture = images[number]
            if picture is None and refers(prompt):
                raise UserError(f"the prompt speaks of a picture, but none is given: '{prompt}'")
            pictures.append(None if picture is None else self.fitted(picture))
        return prompts, pictures

    def _told(
        self,
        prompts: Sequence[str],
        pictures: Sequence[np.ndarray | None],
        chance: Sequence[int] | torch.Generator | Sequence[torch.Generator] | None,
        placed: bool,
    ) -> list[str]:
        """Plans of prompts with nothing said by pictures any more; ``chance`` are seeds or generators."""
        meant = [
            self.resolve(prompt, picture) if refers(prompt) and picture is not None else prompt
            for prompt, picture in zip(prompts, pictures, strict=True)
        ]
        if isinstance(chance, Sequence):
            chance = [torch.Generator().manual_seed(c) if isinstance(c, int) else c for c in chance]
        return self.extend(meant, chance, placed)

    @torch.no_grad()
    def latents(
        self,
        prompts: Sequence[str],
        noise: Tensor,
        pictures: Sequence[np.ndarray | None] | None = None,
        first: Tensor | None = None,
        steps: int = 16,
        guidance: float = 2.0,
        alignment: TemperatureAlignment | None = None,
        negative: str = "",
        control: Control = "none",
        heard: Sequence[str] | None = None,
        report: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Latents (B, C, T, h, w) of what the prompts ask for, from ``noise`` of that shape.

        Args:
            pictures: what the understanding model sees with each prompt, of the model's size.
            first: clean first latent frames (B, C, 1, h, w), which are kept.
            report: told the steps done.
            steps, guidance, alignment, negative, control, heard: as in :meth:`generate_many`.
        """
        own, mix = self.conditioner, self.settings.mix
        texts = [""] * len(prompts) if control == "unread" else prompts
        wanted = own.encode(prompts if heard is None else heard, pictures, texts)
        avoided = own.encode([negative] * len(prompts), pictures)
        contexts = {
            name: own.unsteered(each) if control == "deaf" else own.context(each, mix)
            for name, each in (("text", wanted), ("empty", avoided))
        }
        noise = noise.to(self.device, self.transformer.dtype)
        chosen = alignment or self.settings.alignment
        with align(self.transformer, chosen, reference=False) as aligned:

            def on_step(told: bool, number: int, time: Tensor, state: Tensor) -> Tensor:
                aligned.set((number + 1) / steps)
                if told and report:
                    report(number + 1)
                return state

            integrate = partial(
                sample,
                self.transformer,
                **contexts,
                steps=steps,
                guidance=guidance,
                shift=self.config["shift"],
                interval=self.guidance_interval or (0.0, 1.0),
                prediction=self.config["prediction"],
                restart=self.config["restart"],
            )
            given = first is not None
            if not given and self.config["staged"] and noise.shape[2] > 1:
                first = integrate(noise[:, :, :1], on_step=partial(on_step, False))
            aligned.set(0.0, given)
            return integrate(noise, first=first, on_step=partial(on_step, True))

    def best(
        self,
        prompt: str,
        count: int = 4,
        image: Picture | None = None,
        frames: int | None = None,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        progress: Progress | None = None,
        reference: Picture | None = None,
        alignment: TemperatureAlignment | None = None,
        negative: str = "",
    ) -> Chosen:
        """The film that the model itself believes in most, see :meth:`best_of_many`.

        What a prompt says by a picture is first said in words, as the model sees the picture.
        """
        said = plainly(prompt)
        picture = image if reference is None else reference
        if refers(said) and picture is not None:
            said = self.resolve(said, picture)
        return self.best_of_many(
            [said],
            count,
            None if image is None else [image],
            [seed],
            frames,
            steps,
            guidance,
            progress=progress,
            references=None if reference is None else [reference] * count,
            alignment=alignment,
            negative=negative,
        )[0]

    def resolve(self, prompt: str, picture: Picture) -> str:
        """What a prompt that speaks of a picture means in words, by what the model sees in the picture.

        The prompt itself, if the model sees no shape or no colour there.
        """
        clip = Clip(self.fitted(picture)[None], FPS)
        shape = self.ask_many([(clip, "what shape is the object?")], judge=False)[0].text
        if shape not in SHAPES:
            return prompt
        colour = self.ask_many([(clip, f"what colour is the {shape}?")], judge=False)[0].text
        return resolved(prompt, colour, shape) if colour in COLOURS else prompt

    # Understanding

    def reflection(
        self, config: ReflectionConfig | None = None, cache: FilmCache | Path | None = None
    ) -> PyramidReflection:
        """Pyramid Reflection with this model in all roles, and its ranker if it has one; see ``docs/reflection.md``.

        Args:
            cache: where pools, vectors and captions are kept, or its folder; by default in the user's cache folder.
        """
        from unireel.systems.univid.reflection.cache import FilmCache
        from unireel.systems.univid.reflection.loop import PyramidReflection, ReflectionConfig
        from unireel.systems.univid.reflection.rankers import DualEncoder
        from unireel.systems.univid.reflection.roles import Roles

        ranker = None if self.ranker_folder is None else DualEncoder.load(self.ranker_folder, self.device)
        config = config or ReflectionConfig(policy="even" if ranker is None else "similarity")
        cache = FilmCache(cache) if isinstance(cache, Path) else cache
        return PyramidReflection(Roles.of_model(self, threshold=config.threshold), ranker, config, cache)

    # Below

    def encode_texts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States (B, L, d_c) of the decoder's text encoder, padding zero, and their mask (B, L)."""
        ids, mask = (each.to(self.device) for each in tokenize(self.tokenizer, texts, TEXT_LENGTH))
        return encode_text(self.text_encoder, ids, mask), mask

    @torch.no_grad()
    def picture_tokens(self, pictures: Sequence[Picture]) -> Tensor:
        """Latents of pictures of the model's size as tokens (B, n, C p p), row after row of patches of p x p."""
        frames = np.stack([np.asarray(each) for each in pictures])[:, None]
        latents = encode(self.vae, to_pixels(frames).to(self.device, self.vae.dtype))[:, :, 0]
        patch = self.settings.latent_patch
        return F.unfold(latents, patch, stride=patch).mT

    def fitted(self, picture: Picture) -> np.ndarray:
        """A picture (S, S, 3) uint8 of the model's size.

        Raises:
            UserError: it is too flat to be seen.
        """
        frame = np.asarray(picture.convert("RGB") if isinstance(picture, Image.Image) else picture)
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise UserError(f"a picture is (height, width, 3) uint8, not {frame.shape} {frame.dtype}")
        height, width = frame.shape[:2]
        if max(height, width) > 8 * min(height, width):
            raise UserError(
                f"a picture of {width}x{height} cannot be seen: its sides differ by more than 8 times"
            )
        return Clip(frame[None], FPS).resized(self.size, self.size).frames[0]


def without_adapters(transformer: WanTransformer3DModel) -> WanTransformer3DModel:
    """A copy of a decoder that shares its weights and wears no adapters; itself if it wears none."""
    if not lora_parameters(transformer):
        return transformer
    plain = WanTransformer3DModel.from_config(transformer.config)
    weights = {
        name.replace(".base_layer.", "."): value
        for name, value in transformer.state_dict().items()
        if ".lora_" not in name
    }
    plain.load_state_dict(weights, assign=True)
    return plain.eval()


def _report(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)
