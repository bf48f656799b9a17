"""Low-rank adapters (LoRA, arXiv 2106.09685) on a video decoder's attention, through peft.

Adapters are stored as diffusers and peft store them: ``pytorch_lora_weights.safetensors`` in a folder, which a plain
diffusers pipeline loads with ``load_lora_weights``.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from diffusers import WanPipeline, WanTransformer3DModel
from diffusers.utils import is_peft_available
from torch import nn

from unireel.errors import UsageError, UserError

FILE = "pytorch_lora_weights.safetensors"
ADAPTER = "default"
"""Name of the adapters in a model, new or loaded, as peft has it: what was loaded can be saved again."""
Attention = Literal["self", "cross"]
ATTENTIONS: dict[Attention, str] = {"self": "attn1", "cross": "attn2"}
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


def target_pattern(attentions: Collection[Attention], blocks: range | None = None) -> str:
    """The pattern of names of the projections to adapt, as peft takes it."""
    if not attentions or set(attentions) - ATTENTIONS.keys():
        raise UsageError(
            f"LoRA goes on {' and '.join(ATTENTIONS)} attention, not on {', '.join(attentions) or 'none'}"
        )
    numbers = r"\d+" if blocks is None else f"({'|'.join(map(str, blocks))})"
    chosen = "|".join(name for kind, name in ATTENTIONS.items() if kind in attentions)
    return rf"blocks\.{numbers}\.({chosen})\.({'|'.join(map(re.escape, PROJECTIONS))})"


def add_lora(
    transformer: WanTransformer3DModel,
    rank: int = 32,
    alpha: float | None = None,
    attentions: Collection[Attention] = ("self", "cross"),
    blocks: range | None = None,
    rank_stabilised: bool = False,
    dropout: float = 0.0,
) -> list[nn.Parameter]:
    """Freeze a decoder and put adapters on its attention's projections; returns the parameters to train.

    Args:
        transformer: as diffusers has it; changed in place. Adapters start as zero: nothing it computes changes.
        rank, alpha: adapters add alpha / rank B A (alpha / sqrt(rank) if ``rank_stabilised``); alpha is the rank by
            default.
        attentions: "self", "cross" or both (UniVid's section 3.2).
        blocks: which of them, all by default.
        dropout: on the adapters' input.

    Raises:
        UsageError: no such attention or rank.
        UserError: peft is not installed.
    """
    if rank < 1:
        raise UsageError(f"the rank of an adapter is at least 1, not {rank}")
    pattern = target_pattern(attentions, blocks)
    peft = _peft()
    transformer.requires_grad_(False)
    transformer.add_adapter(
        peft.LoraConfig(
            r=rank,
            lora_alpha=rank if alpha is None else alpha,
            target_modules=pattern,
            lora_dropout=dropout,
            use_rslora=rank_stabilised,
            init_lora_weights=True,
        )
    )
    return lora_parameters(transformer)


def lora_parameters(transformer: WanTransformer3DModel) -> list[nn.Parameter]:
    """The adapters' parameters, in the order of the model."""
    return [each for name, each in transformer.named_parameters() if ".lora_" in name]


def save_lora(transformer: WanTransformer3DModel, folder: str | Path) -> None:
    """Write the adapters and nothing else to ``folder``.

    Raises:
        UserError: the model has none.
    """
    if not lora_parameters(transformer):
        raise UserError("there is nothing to save: the decoder has no adapters")
    WanPipeline.save_lora_weights(
        folder,
        transformer_lora_layers=_peft().get_peft_model_state_dict(transformer),
        weight_name=FILE,
        transformer_lora_adapter_metadata=transformer.peft_config[ADAPTER].to_dict(),
    )


def load_lora(transformer: WanTransformer3DModel, folder: str | Path) -> None:
    """Put the adapters of ``folder`` on a decoder.

    Raises:
        UserError: there are none, they are of another model, or peft is not installed.
    """
    _peft()
    path = Path(folder) / FILE
    if not path.is_file():
        raise UserError(f"'{folder}' has no adapters: it has no file '{FILE}'")
    try:
        transformer.load_lora_adapter(folder, adapter_name=ADAPTER, weight_name=FILE, local_files_only=True)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"the adapters in '{folder}' do not fit: {str(error).strip().splitlines()[0]}"
        ) from error


def _peft() -> Any:
    if not is_peft_available():
        raise UserError("LoRA needs peft; install it with: pip install 'unireel[lora]'")
    import peft

    return peft
