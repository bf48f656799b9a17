"""Any transformers vision-language model with its processor behind the interface: Qwen2-VL, Qwen3-VL, LLaVA, ..."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from unireel.backbones.understanding.interface import (
    VIEWS,
    Features,
    Kind,
    Picture,
    Request,
    Spoken,
    View,
)
from unireel.errors import UserError


class ProcessorUnderstanding:
    """A model of ``AutoModelForImageTextToText`` and its ``AutoProcessor``.

    Prompts and requests go through the processor's chat template, one at a time. Frames are given as a film if the
    model takes films, else as images.

    Args:
        model, processor: of the same checkpoint.
        films: whether frames are given as a film; by default if the processor has a video processor.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, films: bool | None = None) -> None:
        self.model, self.processor = model, processor
        self.films = getattr(processor, "video_processor", None) is not None if films is None else films
        config = model.config
        marks = (
            getattr(config, name, None) for name in ("image_token_id", "image_token_index", "video_token_id")
        )
        self.visual = torch.tensor([mark for mark in marks if isinstance(mark, int)])

    @property
    def width(self) -> int:
        """D, the width of its states."""
        return self.model.config.get_text_config().hidden_size

    def hidden_states(
        self,
        prompts: Sequence[str],
        images: Sequence[Sequence[Picture]] | None = None,
        views: Collection[View] = VIEWS,
    ) -> Features:
        """See :class:`~unireel.backbones.understanding.interface.Understanding`.

        What the template puts before the prompt (and would put before any) is no part of the text.
        """
        base = getattr(self.model, self.model.base_model_prefix)
        rows = []
        for number, prompt in enumerate(prompts):
            own = [] if images is None or "vit" not in views else list(images[number])
            inputs = self._inputs([{"type": "image"}] * len(own), prompt, images=own)
            other = self._inputs([{"type": "image"}] * len(own), "." if prompt != "." else "!", images=own)
            ids = inputs["input_ids"][0].cpu()
            visual = torch.isin(ids, self.visual)
            text = (torch.arange(len(ids)) >= _common(ids, other["input_ids"][0].cpu())) & ~visual
            states = base(**inputs).last_hidden_state[0]
            kinds = torch.where(visual, int(Kind.VIT), int(Kind.TEXT)).to(states.device)
            kept = (visual | text).to(states.device)
            rows.append((states[kept], kinds[kept]))
        return Features.of(rows)

    def generate(
        self, prompts: Sequence[str], max_new_tokens: int = 128, temperature: float = 0.0, seed: int = 0
    ) -> list[Spoken]:
        """Continue each prompt without a template."""
        said = []
        for prompt in prompts:
            inputs = self.processor.tokenizer(prompt, return_tensors="pt").to(self.model.device)
            said.append(self._speak(dict(inputs), max_new_tokens, temperature, seed))
        return said

    def chat(
        self, requests: Sequence[Request], max_new_tokens: int = 128, temperature: float = 0.0, seed: int = 0
    ) -> list[Spoken]:
        """Answer each request in the model's own chat format."""
        said = []
        for request in requests:
            frames = [] if request.frames is None else list(request.frames)
            if frames and self.films:
                shown: list[dict[str, str]] = [{"type": "video"}]
                # As many frames as there are: which are worth looking at was decided before.
                visual: dict[str, Any] = {"videos": [request.frames], "do_sample_frames": False}
            else:
                shown, visual = [{"type": "image"}] * len(frames), {"images": frames}
            inputs = self._inputs(shown, request.question, request.system, **visual)
            said.append(self._speak(inputs, max_new_tokens, temperature, seed))
        return said

    @torch.no_grad()
    def _speak(self, inputs: dict[str, Tensor], most: int, temperature: float, seed: int) -> Spoken:
        start = inputs["input_ids"].shape[1]
        self._check(start + most)
        # The library draws from torch's global generators: they are put back as they were.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            sampling: dict[str, Any] = (
                {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
                if temperature > 0
                else {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
            )
            output = self.model.generate(
                **inputs, max_new_tokens=most, return_dict_in_generate=True, output_logits=True, **sampling
            )
        tokens = output.sequences[0, start:].tolist()
        logits = torch.stack(output.logits)[:, 0].float() / (temperature if temperature > 0 else 1)
        chances = logits.softmax(-1)[range(len(tokens)), tokens].tolist()
        ends = self.model.generation_config.eos_token_id
        ended = tokens and tokens[-1] in (ends if isinstance(ends, list) else [ends])
        ids = tuple(tokens[:-1] if ended else tokens)
        return Spoken(self.processor.tokenizer.decode(ids, skip_special_tokens=True), ids, tuple(chances))

    def _inputs(
        self,
        shown: list[dict[str, str]],
        text: str,
        system: str = "",
        images: Sequence[Any] = (),
        **visual: Any,
    ) -> dict[str, Tensor]:
        """What the model takes for one user turn that shows something and says ``text``."""
        told = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
        turn = {"role": "user", "content": [*shown, {"type": "text", "text": text}]}
        written = self.processor.apply_chat_template(
            [*told, turn], tokenize=False, add_generation_prompt=True
        )
        if images:
            visual["images"] = list(images)
        start = self.processor.tokenizer.bos_token
        if start and written.startswith(start):
            visual["add_special_tokens"] = False  # the template has written it already
        inputs = self.processor(text=[written], return_tensors="pt", **visual).to(self.model.device)
        self._check(inputs["input_ids"].shape[1])
        dtype = self.model.dtype
        return {
            name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()
        }

    def _check(self, count: int) -> None:
        most = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if most is not None and count > most:
            raise UserError(f"the request needs {count} tokens; the model's context has {most}")


def _common(one: Tensor, other: Tensor) -> int:
    """Length of the common beginning of two lists of ids."""
    length = min(len(one), len(other))
    same = one[:length] == other[:length]
    return length if bool(same.all()) else int(same.int().argmin())
