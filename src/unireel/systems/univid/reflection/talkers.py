"""Talkers: models that are given words and pictures and say something. The roles of reflection are built on them."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)

from unireel.errors import UserError
from unireel.systems.univid.reflection.rankers import fingerprint


@dataclass(frozen=True)
class Said:
    """What a model said.

    Attributes:
        text: its words.
        confidence: geometric mean of the probabilities that it gave its own tokens, in [0, 1]; None if unknown.
        tokens_in, tokens_out: what it read and said (0 if unknown).
        warning: why not to rely on it whatever the confidence, or None.
    """

    text: str
    confidence: float | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    warning: str | None = None


class Talker(Protocol):
    """A model that talks.

    Attributes:
        name: for people and traces; it changes with the weights, where these are known.
        sees: whether it takes pictures.
    """

    name: str
    sees: bool

    def say(self, prompt: str, pictures: Sequence[np.ndarray] = (), most: int = 256) -> Said:
        """Answer ``prompt``, shown ``pictures`` (H, W, 3) uint8 in order before it, in ``most`` tokens at most.

        Raises:
            UserError: it cannot be reached, or cannot take so much.
        """
        ...


class TransformersTalker:
    """A chat model of transformers: a video- or image-language model, or a language model without eyes.

    Decoding is greedy, so that a question has one answer. A :class:`Talker`.
    """

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        """``processor`` is the model's own, or for a language model its tokenizer; it must have a chat template."""
        if getattr(processor, "chat_template", None) is None:
            raise UserError(f"'{name}' has no chat template, so it cannot be asked anything")
        self.model, self.processor = model.eval(), processor
        self.name = f"{name}/{fingerprint(model)}"
        self.sees = hasattr(processor, "image_processor")

    @classmethod
    def load(
        cls, folder: str | Path, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> TransformersTalker:
        """Load a model folder (or hub id) of transformers.

        Raises:
            UserError: there is no such model, or it is not one that talks.
        """
        name = str(folder)
        try:
            seeing = type(AutoConfig.from_pretrained(name)) in AutoModelForImageTextToText._model_mapping
            kind, reader = (
                (AutoModelForImageTextToText, AutoProcessor)
                if seeing
                else (AutoModelForCausalLM, AutoTokenizer)
            )
            model = kind.from_pretrained(name, dtype=dtype or "auto")
            processor = reader.from_pretrained(name)
        except (OSError, ValueError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(f"model '{name}' cannot be loaded: {reason}") from None
        return cls(model.to(device or "cpu"), processor, name)

    @torch.no_grad()
    def say(self, prompt: str, pictures: Sequence[np.ndarray] = (), most: int = 256) -> Said:
        """See :meth:`Talker.say`."""
        inputs = self._inputs(prompt, pictures)
        length = inputs["input_ids"].shape[1]
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and length + most > limit:
            raise UserError(
                f"{self.name} takes {limit} tokens; the question with its {len(pictures)} pictures has {length}"
                f" and needs {most} for the answer"
            )
        output = self.model.generate(
            **inputs, max_new_tokens=most, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        ids = output.sequences[0, length:]
        logits = torch.stack(output.logits)[:, 0].float().log_softmax(-1)
        chosen = logits.gather(1, ids[:, None])[:, 0]
        text = self.processor.decode(ids, skip_special_tokens=True).strip()
        return Said(text, math.exp(float(chosen.mean())), length, len(ids))

    def _inputs(self, prompt: str, pictures: Sequence[np.ndarray]) -> dict[str, Any]:
        if len(pictures) and not self.sees:
            raise UserError(f"{self.name} takes words only, but was shown {len(pictures)} pictures")
        settings = {
            "add_generation_prompt": True,
            "tokenize": True,
            "return_dict": True,
            "return_tensors": "pt",
        }
        if self.sees:
            content: Any = [{"type": "image", "image": Image.fromarray(each)} for each in pictures]
            content += [{"type": "text", "text": prompt}]
        else:
            content = prompt
        inputs = self.processor.apply_chat_template([{"role": "user", "content": content}], **settings)
        return {
            name: each.to(self.model.device, self.model.dtype if each.is_floating_point() else each.dtype)
            for name, each in inputs.items()
        }
