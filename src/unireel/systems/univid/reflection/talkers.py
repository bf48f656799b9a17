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
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from unireel.backbones.remote import Endpoint, image_part, text_part
from unireel.backbones.understanding import Request, Understanding, load_understanding
from unireel.errors import UserError
from unireel.systems.univid.reflection.rankers import fingerprint

_FILES = ("*.json", "*.txt", "*.jinja", "*.safetensors")


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


class UnderstandingTalker:
    """A model behind :mod:`unireel.backbones.understanding`: BAGEL, or any of transformers that sees."""

    sees = True

    def __init__(self, model: Understanding, name: str) -> None:
        weights = getattr(model, "model", None)
        self.model = model
        self.name = name if weights is None else f"{name}/{fingerprint(weights)}"

    def say(self, prompt: str, pictures: Sequence[np.ndarray] = (), most: int = 256) -> Said:
        """See :meth:`Talker.say`."""
        frames = np.stack(pictures) if len(pictures) else None
        (spoken,) = self.model.chat([Request(prompt, frames)], max_new_tokens=most)
        return Said(spoken.text.strip(), likelihood(spoken.probabilities), 0, len(spoken.probabilities))


class LanguageTalker:
    """A chat model of transformers that takes words only. Decoding is greedy, so that a question has one answer."""

    sees = False

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        if tokenizer.chat_template is None:
            raise UserError(f"'{name}' has no chat template, so it cannot be asked anything")
        self.model, self.tokenizer = model.eval(), tokenizer
        self.name = f"{name}/{fingerprint(model)}"

    @torch.no_grad()
    def say(self, prompt: str, pictures: Sequence[np.ndarray] = (), most: int = 256) -> Said:
        """See :meth:`Talker.say`."""
        _check_blind(self.name, pictures)
        inputs = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self.model.device)
        length = inputs["input_ids"].shape[1]
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if limit is not None and length + most > limit:
            raise UserError(
                f"{self.name} takes {limit} tokens; the prompt has {length} and needs {most} for the answer"
            )
        output = self.model.generate(
            **inputs, max_new_tokens=most, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
        ids = output.sequences[0, length:]
        chances = torch.stack(output.logits)[:, 0].float().softmax(-1).gather(1, ids[:, None])[:, 0]
        text = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return Said(text, likelihood(chances.tolist()), length, len(ids))


class EndpointTalker:
    """A chat model behind an address.

    Args:
        endpoint: with its time-outs, attempts and budget.
        sees: whether the model takes pictures.
    """

    def __init__(self, endpoint: Endpoint, sees: bool = True) -> None:
        self.endpoint, self.sees = endpoint, sees
        host = endpoint.url.partition("://")[2].rpartition("@")[2].partition("/")[0]
        self.name = f"{endpoint.model} at {host}"

    def say(self, prompt: str, pictures: Sequence[np.ndarray] = (), most: int = 256) -> Said:
        """See :meth:`Talker.say`; asks for the probabilities of the tokens, which some endpoints give."""
        if not self.sees:
            _check_blind(self.name, pictures)
        content = [*(image_part(each) for each in pictures), text_part(prompt)] if len(pictures) else prompt
        reply = self.endpoint.chat([{"role": "user", "content": content}], max_tokens=most, logprobs=True)
        sure = likelihood(reply.probabilities)
        return Said(reply.text.strip(), sure, reply.prompt_tokens, reply.completion_tokens)


def load_talker(name: str | Path, device: torch.device | str | None = None) -> Talker:
    """The model in a folder or hub repository: BAGEL, or any chat model of transformers, seeing or not.

    Raises:
        UserError: there is no such model, or it is not one that talks.
    """
    folder = Path(name)
    try:
        if not folder.is_dir():
            folder = Path(snapshot_download(str(name), allow_patterns=list(_FILES)))
        is_bagel = (folder / "llm_config.json").is_file()
        if is_bagel or type(AutoConfig.from_pretrained(folder)) in AutoModelForImageTextToText._model_mapping:
            return UnderstandingTalker(load_understanding(folder, device=device or "cpu"), str(name))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").to(device or "cpu")
        return LanguageTalker(model, AutoTokenizer.from_pretrained(folder), str(name))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"model '{name}' cannot be loaded: {reason}") from None


def likelihood(probabilities: Sequence[float]) -> float | None:
    """The geometric mean of the tokens' probabilities; None if there are none."""
    if not probabilities:
        return None
    return math.exp(sum(math.log(max(each, 1e-12)) for each in probabilities) / len(probabilities))


def _check_blind(name: str, pictures: Sequence[np.ndarray]) -> None:
    if len(pictures):
        raise UserError(f"{name} takes words only, but was shown {len(pictures)} pictures")
