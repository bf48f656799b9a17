"""Wan2.2-TI2V-5B and Wan2.1-T2V-1.3B (arXiv 2503.20314): their sizes, and their weights in both published layouts.

The layout of diffusers (``transformer/config.json`` names ``WanTransformer3DModel``) and the original one
(``config.json`` names ``WanModel``) differ in names only; no tensor changes.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, UMT5EncoderModel

from unireel.backbones.weights import KeyReport, load_weights, read_json, weight_files
from unireel.errors import UserError

TI2V_5B_PARAMETERS, T2V_1_3B_PARAMETERS = 4_999_787_712, 1_418_996_800
DIFFUSERS, ORIGINAL = "WanTransformer3DModel", "WanModel"

OUTSIDE = (
    ("time_embedding.0.", "condition_embedder.time_embedder.linear_1."),
    ("time_embedding.2.", "condition_embedder.time_embedder.linear_2."),
    ("time_projection.1.", "condition_embedder.time_proj."),
    ("text_embedding.0.", "condition_embedder.text_embedder.linear_1."),
    ("text_embedding.2.", "condition_embedder.text_embedder.linear_2."),
    ("head.head.", "proj_out."),
    ("head.modulation", "scale_shift_table"),
)
INSIDE = (
    ("modulation", "scale_shift_table"),
    ("norm3.", "norm2."),
    ("ffn.0.", "ffn.net.0.proj."),
    ("ffn.2.", "ffn.net.2."),
    *(
        (f"{original}.{part}.", f"{ours}.{renamed}.")
        for original, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for part, renamed in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))
    ),
    ("self_attn.", "attn1."),
    ("cross_attn.", "attn2."),
)
"""How names begin, originally and in diffusers, outside and inside of blocks; what is not listed is the same."""


def to_diffusers_name(name: str) -> str:
    """A parameter's name in diffusers for its ``name`` in the original layout."""
    return _renamed(name, OUTSIDE, INSIDE)


def to_original_name(name: str) -> str:
    """The inverse of :func:`to_diffusers_name`."""
    back = ([(ours, original) for original, ours in pairs] for pairs in (OUTSIDE, INSIDE))
    return _renamed(name, *back)


def _renamed(name: str, outside: Iterable[tuple[str, str]], inside: Iterable[tuple[str, str]]) -> str:
    block = re.match(r"blocks\.\d+\.", name)
    head = block.group() if block else ""
    rest = name[len(head) :]
    for before, after in inside if block else outside:
        if rest.startswith(before):
            return head + after + rest[len(before) :]
    return name


def to_diffusers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in the original layout, under diffusers' names."""
    return {to_diffusers_name(name): value for name, value in weights.items()}


def to_original(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in diffusers' layout, under their original names."""
    return {to_original_name(name): value for name, value in weights.items()}


def wan_ti2v_5b() -> WanTransformer3DModel:
    """The transformer of Wan2.2-TI2V-5B; build it under ``torch.device("meta")`` unless there are 20 GB to spare."""
    return WanTransformer3DModel(
        num_attention_heads=24, in_channels=48, out_channels=48, ffn_dim=14336, num_layers=30
    )


def wan_t2v_1_3b() -> WanTransformer3DModel:
    """The transformer of Wan2.1-T2V-1.3B."""
    return WanTransformer3DModel(
        num_attention_heads=12, in_channels=16, out_channels=16, ffn_dim=8960, num_layers=30
    )


def from_original_config(config: Mapping[str, Any]) -> WanTransformer3DModel:
    """The transformer that an original ``config.json`` describes.

    Raises:
        UserError: an entry is missing, or it is a model of another type (image encoders, speech, animation).
    """
    kind = config.get("model_type", "t2v")
    if kind not in ("t2v", "ti2v"):
        raise UserError(f"Wan models of type '{kind}' are not supported; supported: t2v, ti2v")
    try:
        return WanTransformer3DModel(
            patch_size=tuple(config.get("patch_size", (1, 2, 2))),
            num_attention_heads=config["num_heads"],
            attention_head_dim=config["dim"] // config["num_heads"],
            in_channels=config["in_dim"],
            out_channels=config["out_dim"],
            text_dim=config.get("text_dim", 4096),
            freq_dim=config["freq_dim"],
            ffn_dim=config["ffn_dim"],
            num_layers=config["num_layers"],
            eps=config["eps"],
        )
    except KeyError as error:
        raise UserError(f"the configuration of the Wan model lacks {error}") from error


def load_wan(
    folder: str | Path,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    strict: bool = True,
) -> tuple[WanTransformer3DModel, KeyReport]:
    """The transformer of a folder in either layout, in evaluation mode, and the report on its weights.

    Args:
        folder: of a diffusers pipeline, of its transformer, or in the original layout.
        dtype, device: where the weights go; embeddings of time, modulations and norms stay in float32, as diffusers
            has it.
        strict: whether any missing, unexpected or misshapen tensor is an error.

    Raises:
        UserError: files are missing or damaged, or hold another model.
    """
    folder = Path(folder)
    if (folder / "transformer" / "config.json").is_file():
        folder = folder / "transformer"
    config = read_json(folder / "config.json")
    layout = config.get("_class_name")
    if layout not in (DIFFUSERS, ORIGINAL):
        raise UserError(f"'{folder}' holds a {layout or 'nameless model'}; accepted: {DIFFUSERS}, {ORIGINAL}")
    files = weight_files(folder)
    with torch.device("meta"):
        model = (
            from_original_config(config) if layout == ORIGINAL else WanTransformer3DModel.from_config(config)
        )
    rename = to_diffusers_name if layout == ORIGINAL else str
    report = load_weights(model, files, rename, dtype, device, strict)
    own = model.config
    # Rotary angles are computed, not stored: they are the only thing that is still on the meta device.
    model.rope = WanRotaryPosEmbed(own["attention_head_dim"], own["patch_size"], own["rope_max_seq_len"]).to(
        device
    )
    return model.eval(), report


def load_encoders(folder: str | Path) -> tuple[AutoencoderKLWan, UMT5EncoderModel, PreTrainedTokenizerBase]:
    """Autoencoder, text encoder and its tokenizer of a model in diffusers' layout, in bfloat16, for evaluation.

    Raises:
        UserError: one is missing or of another kind.
    """
    folder = Path(folder)
    options = {"torch_dtype": torch.bfloat16, "local_files_only": True}
    try:
        vae = AutoencoderKLWan.from_pretrained(folder / "vae", **options)
        text_encoder = UMT5EncoderModel.from_pretrained(folder / "text_encoder", **options)
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"'{folder}' cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    return vae.eval(), text_encoder.eval(), tokenizer
