"""The dual encoder that ranks frames by how well a text describes them: SigLIP at a small size.

SigLIP2's checkpoints of fixed resolution (arXiv 2502.14786) are transformers' ``SiglipModel``; so is the pocket ranker.
As there, texts are padded to 64 tokens without an attention mask, pictures are scaled to [-1, 1], and a pair's
probability is ``sigmoid(exp(scale) * cosine + bias)`` (arXiv 2303.15343).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import processors
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, SiglipConfig, SiglipModel

from unireel.backbones.text import tokenize, word_tokenizer
from unireel.errors import UserError

TEXT_LENGTH = 64
"""Tokens of every text, its end and padding included."""

CHUNK = 256
"""Frames or texts that are embedded at a time."""

_SCALE, _BIAS = math.log(10.0), -10.0  # where SigLIP starts its temperature and bias


@dataclass(frozen=True)
class RankedFrame:
    """A frame's number and the probability, in [0, 1], that the text describes it."""

    frame: int
    probability: float


def ranker_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """The word tokenizer of :func:`~unireel.backbones.text.word_tokenizer`, called as SigLIP's processors call theirs.

    It ends texts with ``</s>`` itself and returns no attention mask, so that
    ``tokenizer(texts, padding="max_length", max_length=64)`` gives what the model takes.
    """
    base = word_tokenizer(words)
    end = (base.eos_token, base.eos_token_id)
    base.backend_tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"$A {end[0]}", special_tokens=[end]
    )
    settings = {**base.init_kwargs, "model_max_length": TEXT_LENGTH, "model_input_names": ["input_ids"]}
    return PreTrainedTokenizerFast(**{**settings, "tokenizer_object": base.backend_tokenizer})


def pocket_ranker(
    tokenizer: PreTrainedTokenizerBase,
    width: int,
    layers: int,
    heads: int,
    text_width: int,
    text_layers: int,
    size: int = 48,
    patch: int = 8,
) -> SiglipModel:
    """SigLIP with a vision tower of ``width`` x ``layers`` and a text tower of ``text_width`` x ``text_layers``.

    Args:
        heads: attention heads of either tower.
        size: side of the pictures in pixels; ``patch``: side of a visual patch.

    Returns:
        A model with random weights whose embeddings have ``width`` numbers.
    """
    config = SiglipConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": text_width,
            "intermediate_size": 3 * text_width,
            "num_hidden_layers": text_layers,
            "num_attention_heads": heads,
            "max_position_embeddings": TEXT_LENGTH,
            "projection_size": width,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "hidden_size": width,
            "intermediate_size": 3 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "image_size": size,
            "patch_size": patch,
        },
    )
    model = SiglipModel(config)
    torch.nn.init.constant_(model.logit_scale, _SCALE)
    torch.nn.init.constant_(model.logit_bias, _BIAS)
    return model


def picture_side(model: SiglipModel) -> int:
    """Side in pixels of the pictures that ``model`` takes."""
    return cast(int, model.vision_model.config.image_size)


def frame_pixels(frames: np.ndarray) -> Tensor:
    """Frames (N, S, S, 3) uint8 to what the vision tower takes: (N, 3, S, S) float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


@torch.no_grad()
def frame_embeddings(model: SiglipModel, frames: np.ndarray) -> Tensor:
    """Embeddings of ``frames`` (N, S, S, 3) uint8: (N, D) float32 of length 1, on the model's device.

    Raises:
        UserError: the frames are not square pictures of the side that the model takes.
    """
    side = picture_side(model)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (side, side, 3) or not len(frames):
        raise UserError(
            f"frames of shape {frames.shape} and type {frames.dtype} cannot be ranked; accepted: one or more of "
            f"{side} x {side} pixels, (N, {side}, {side}, 3) uint8: resize the film to {side} x {side}"
        )
    parts = []
    for start in range(0, len(frames), CHUNK):
        pixels = frame_pixels(frames[start : start + CHUNK]).to(model.device, model.dtype)
        parts.append(unit(model.vision_model(pixel_values=pixels).pooler_output))
    return torch.cat(parts)


@torch.no_grad()
def text_embeddings(model: SiglipModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Tensor:
    """Embeddings of M ``texts``: (M, D) float32 of length 1, on the model's device.

    Raises:
        UserError: no texts, or a text of more than 63 words and marks.
    """
    if not texts:
        raise UserError("there is no text to rank frames by; give one or more")
    parts = []
    for start in range(0, len(texts), CHUNK):
        ids, _ = tokenize(tokenizer, texts[start : start + CHUNK], TEXT_LENGTH)
        parts.append(unit(model.text_model(input_ids=ids.to(model.device)).pooler_output))
    return torch.cat(parts)


def unit(features: Tensor) -> Tensor:
    """Features (N, D) as float32 vectors of length 1."""
    return F.normalize(features.float(), dim=-1)


def match_logits(model: SiglipModel, frames: Tensor, texts: Tensor) -> Tensor:
    """Log-odds that each text describes each frame, from embeddings (N, D) and (M, D): (N, M) float32."""
    with torch.autocast(frames.device.type, enabled=False):
        return frames @ texts.T * model.logit_scale.float().exp() + model.logit_bias.float()


@torch.no_grad()
def rank(
    model: SiglipModel,
    tokenizer: PreTrainedTokenizerBase,
    frames: np.ndarray,
    text: str,
    count: int | None = None,
) -> list[RankedFrame]:
    """The ``count`` (default: all) of N ``frames`` (N, S, S, 3) uint8 that ``text`` describes best, best first.

    Frames of equal probability keep their order.

    Raises:
        UserError: see :func:`frame_embeddings` and :func:`text_embeddings`.
    """
    logits = match_logits(model, frame_embeddings(model, frames), text_embeddings(model, tokenizer, [text]))[
        :, 0
    ]
    order = logits.argsort(descending=True, stable=True)[:count].tolist()
    return [RankedFrame(number, float(logits[number].sigmoid())) for number in order]
