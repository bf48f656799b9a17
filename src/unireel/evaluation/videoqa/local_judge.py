"""A language model of the transformers library as the judge: on this machine, without an endpoint."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from unireel.backbones.remote import RemoteError, Reply, Spent
from unireel.errors import UserError
from unireel.evaluation.fingerprint import fingerprint


class LocalJudge:
    """A causal language model that answers greedily, one question at a time.

    Only safetensors are read and no code that comes with a model is run. What cannot be asked (longer than the model's
    context) is a failure of that question, as with an endpoint.

    Attributes:
        url: "local".
        model: the name, with a fingerprint of the weights where they are a folder: verdicts of others do not count.
        spent: requests, tokens and seconds so far.
    """

    url = "local"

    def __init__(self, name: str, device: str | None = None) -> None:
        """Load the model.

        Args:
            name: a folder as ``save_pretrained`` writes it, or a hub id.
            device: by default CUDA if there is any, else the CPU.

        Raises:
            UserError: it cannot be loaded.
        """
        folder = Path(name)
        self.model = f"{folder.name}@{fingerprint(folder)}" if folder.is_dir() else name
        self.spent = Spent()
        self._lock = threading.Lock()
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
            self._network: Any = AutoModelForCausalLM.from_pretrained(
                name, use_safetensors=True, dtype=torch.bfloat16 if self._device.type == "cuda" else "auto"
            )
        except (OSError, ValueError, KeyError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(f"the judge '{name}' cannot be loaded: {reason}") from None
        self._network.to(self._device).eval()

    @torch.no_grad()
    def chat(self, messages: Sequence[dict[str, Any]], *, max_tokens: int = 256) -> Reply:
        """The reply to ``messages`` in OpenAI's form; threads take turns.

        Raises:
            RemoteError: they are longer than the model's context.
        """
        with self._lock:
            begun = time.monotonic()
            ids = self._ids(messages)
            most = getattr(self._network.config, "max_position_embeddings", None)
            if most is not None and ids.shape[1] + max_tokens > most:
                raise RemoteError(
                    f"the question has {ids.shape[1]} tokens; the judge takes {most}, {max_tokens} of them to answer"
                )
            made = self._network.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_tokens,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=self._padding(),
            )[0, ids.shape[1] :]
            seconds = time.monotonic() - begun
            self.spent.requests += 1
            self.spent.attempts += 1
            self.spent.prompt_tokens += ids.shape[1]
            self.spent.completion_tokens += len(made)
            self.spent.seconds += seconds
        text = self._tokenizer.decode(made, skip_special_tokens=True)
        return Reply(text.strip(), ids.shape[1], len(made), seconds)

    def _ids(self, messages: Sequence[dict[str, Any]]) -> torch.Tensor:
        """Tokens (1, L); by the model's own chat template, or paragraphs where it has none."""
        if self._tokenizer.chat_template:
            text = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
            found = self._tokenizer(text, add_special_tokens=False, return_tensors="pt")
        else:
            text = "\n\n".join(str(each["content"]) for each in messages) + "\n\n"
            found = self._tokenizer(text, return_tensors="pt")
        return found["input_ids"].to(self._device)

    def _padding(self) -> int | None:
        padding = self._tokenizer.pad_token_id
        return self._tokenizer.eos_token_id if padding is None else padding
