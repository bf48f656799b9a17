"""New parts around a trained base model: what a pocket Omni-Video starts from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import WanTransformer3DModel

from unireel.systems.omnivideo.heads import ContextAdapter, VisionHead
from unireel.systems.omnivideo.visual_context import VisualContextAdapter

EXTRA_WORDS = ("as", "opposite")
"""Words of indirect prompts that the World's vocabulary lacks; see :mod:`unireel.data.indirect`."""

TUBES = 5
"""Visual tokens of a pocket film: one for each four frames that the language model sees as one."""


@dataclass(frozen=True)
class Sizes:
    """Of the pocket system's new parts.

    Attributes:
        head_layers, head_ffn: of the vision head, which is as wide as the language model.
        expansion: tokens of context from one visual token.
        adapter_layers, adapter_ffn: of the adapter, which is as wide as the context.
        patch: latents along the side of a source token.
    """

    head_layers: int = 2
    head_ffn: int = 512
    expansion: int = 8
    adapter_layers: int = 2
    adapter_ffn: int = 384
    patch: int = 2
    heads: int = 4


def new_parts(
    language_width: int, transformer: WanTransformer3DModel, sizes: Sizes, positions: bool, seed: int
) -> tuple[VisionHead, ContextAdapter, VisualContextAdapter]:
    """Vision head, adapter and visual-context adapter from random weights, the same for the same seed."""
    config = transformer.config
    context = config["text_dim"]  # type: ignore[index]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return (
            VisionHead(language_width, language_width, TUBES, sizes.head_layers, sizes.heads, sizes.head_ffn),
            ContextAdapter(
                language_width, context, sizes.expansion, sizes.adapter_layers, sizes.heads, sizes.adapter_ffn
            ),
            VisualContextAdapter(
                config["out_channels"],  # type: ignore[index]
                config["num_attention_heads"] * config["attention_head_dim"],  # type: ignore[index]
                context,
                sizes.patch,
                positions,
                base=100.0,
            ),
        )
