"""Prompts encoded once: the negative prompt is the same for every film, and the others are often asked again."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch import Tensor


class PromptCache(Protocol):
    """What stands in place of a pipeline's encoding of prompts."""

    def clear(self) -> None:
        """Forget all, because weights have changed."""

    def remove(self) -> None:
        """Give the pipeline its own encoding back."""


class _Recent:
    """The last ``size`` results."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.clear: Callable[[], None] = (entries := OrderedDict()).clear
        self._entries: OrderedDict[Hashable, Any] = entries

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self._entries:
            self._entries[key] = make()
        self._entries.move_to_end(key)
        if len(self._entries) > self.size:
            self._entries.popitem(last=False)
        return self._entries[key]


class WanPrompts:
    """For diffusers' Wan pipelines: each prompt is encoded once, at its true length, and padded with zeros afterwards.

    The encoder attends to nothing but a prompt's own tokens, so that the padding it is spared changes nothing.
    """

    def __init__(self, pipeline: Any, size: int = 64) -> None:
        self._pipeline, self._recent = pipeline, _Recent(size)
        self.clear = self._recent.clear
        pipeline._get_t5_prompt_embeds = self._embed

    def remove(self) -> None:
        """Give the pipeline its own encoding back."""
        del self._pipeline._get_t5_prompt_embeds

    def _embed(
        self,
        prompt: str | Sequence[str],
        num_videos_per_prompt: int = 1,
        max_sequence_length: int = 226,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """As the pipeline's own: (prompts * videos, ``max_sequence_length``, D), padding zero."""
        encoder = self._pipeline.text_encoder
        device, dtype = device or self._pipeline._execution_device, dtype or encoder.dtype
        rows = []
        for text in [prompt] if isinstance(prompt, str) else prompt:
            key = text, max_sequence_length, id(encoder), encoder.dtype
            states = self._recent.get(key, lambda text=text: self._encode(text, max_sequence_length))
            states = states.to(device, dtype)
            rows.append(
                torch.cat([states, states.new_zeros(max_sequence_length - len(states), states.shape[1])])
            )
        return torch.stack(rows).repeat_interleave(num_videos_per_prompt, dim=0)

    def _encode(self, text: str, length: int) -> Tensor:
        """States of the prompt's own tokens, (L, D)."""
        encoder = self._pipeline.text_encoder
        tokens = self._pipeline.tokenizer(
            [prompt_clean(text)], max_length=length, truncation=True, return_tensors="pt"
        )
        device = next(encoder.parameters()).device
        return encoder(tokens.input_ids.to(device), tokens.attention_mask.to(device)).last_hidden_state[0]


class HousePrompts:
    """For our own pipelines: the last batches of prompts, with the states of the empty one."""

    def __init__(self, pipeline: Any, size: int = 64) -> None:
        self._pipeline, self._encode, self._recent = pipeline, pipeline.encode_prompt, _Recent(size)
        self.clear = self._recent.clear
        pipeline.encode_prompt = self._encode_once

    def remove(self) -> None:
        """Give the pipeline its own encoding back."""
        del self._pipeline.encode_prompt

    def _encode_once(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        encoder = self._pipeline.text_encoder
        key = tuple(prompts), id(encoder), encoder.dtype, self._pipeline.device
        return self._recent.get(key, lambda: self._encode(prompts))
