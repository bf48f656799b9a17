"""A video DiT becomes one with a text stream; the weights that Uni-ViGU's authors released; sizes.

The released checkpoint holds a model of its own layout (``WanUnifiedTransformer``). Its tensors are ours under other
names, except that both streams there share each block's modulation table: we load it into both.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

import inspect
import pickle
import re
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import WanTransformer3DModel
from diffusers.models.attention import FeedForward
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unireel.backbones.uni_wan import UniWanTransformer
from unireel.backbones.weights import KeyReport
from unireel.errors import UserError

RELEASED_VOCABULARY = 256_384
"""Rows of UMT5's embedding; the tokenizer of Wan, over which the released model writes."""

_OUTSIDE = (
    ("vocab_embed.", "text_embedding."),
    ("time_embedding_v.time_embedder.", "condition_embedder.time_embedder."),
    ("time_embedding_v.time_proj.", "condition_embedder.time_proj."),
    ("cond_text_embedder.", "condition_embedder.text_embedder."),
    ("time_embedding_t.time_embedder.", "text_time_embedder."),
    ("time_embedding_t.time_proj.", "text_time_proj."),
    ("scale_shift_table_v", "scale_shift_table"),
    ("scale_shift_table_t", "text_table"),
    ("text_head.norm_final.", "text_norm."),
    ("text_head.linear.", "text_head."),
    ("video_head.proj_out.", "proj_out."),
)
"""How names begin in the release and here, outside of blocks; inside, and what is not listed, they are the same."""

_COMPUTED = re.compile(r"rotary_emb_(text|video)\.")
_WRAPPERS = re.compile(r"(_fsdp_wrapped_module|_orig_mod|module)\.")


def with_text(
    video: WanTransformer3DModel,
    text_vocabulary: int,
    text_init: Literal["video", "new"] = "video",
    **settings: Any,
) -> UniWanTransformer:
    """A model with a text stream whose film half is a copy of ``video``.

    Args:
        text_vocabulary, settings: see :class:`~unireel.backbones.uni_wan.UniWanTransformer`.
        text_init: text's feed-forward layers, modulations and time embedding start as the film's, or anew; of layers
            that are narrower (``text_ffn_dim``), the film's hidden units that weigh most.
    """
    accepted = inspect.signature(UniWanTransformer.__init__).parameters
    sizes = {name: value for name, value in video.config.items() if name in accepted}
    with torch.device(video.device):
        model = UniWanTransformer(text_vocabulary=text_vocabulary, **(sizes | settings))
    if video.dtype != torch.float32:
        model.to(video.dtype)
    if video.device.type == "meta":
        return model
    model.load_state_dict(video.state_dict(), strict=False)
    if text_init == "video":
        start_from_video(model)
    return model


@torch.no_grad()
def start_from_video(model: UniWanTransformer) -> None:
    """Set text's feed-forward layers, modulations and time embedding to the film's, in place."""
    for block in model.blocks:
        if block.ffn_t is not None:
            _narrowed(block.ffn, block.ffn_t)
        block.scale_shift_table_t.copy_(block.scale_shift_table)
    embedder = model.condition_embedder
    model.text_time_embedder.load_state_dict(embedder.time_embedder.state_dict())
    model.text_time_proj.load_state_dict(embedder.time_proj.state_dict())
    model.text_table.copy_(model.scale_shift_table)


@torch.no_grad()
def with_narrower_text(model: UniWanTransformer, hidden: int) -> UniWanTransformer:
    """A model whose text has feed-forward layers of ``hidden`` units, of its own those that weigh most.

    Raises:
        UserError: text has no layers of its own, or ``hidden`` is not between 1 and what they have.
    """
    if model.config["text_ffn"] != "own":
        raise UserError("text without feed-forward layers of its own cannot be narrowed")
    own = model.config["text_ffn_dim"] or model.config["ffn_dim"]
    if not 1 <= hidden <= own:
        raise UserError(f"{hidden} hidden units: text has {own}, and can be narrowed to between 1 and that")
    narrow = UniWanTransformer.from_config({**model.config, "text_ffn_dim": hidden})
    assert isinstance(narrow, UniWanTransformer)
    kept = {name: value for name, value in model.state_dict().items() if ".ffn_t." not in name}
    narrow.load_state_dict(kept, strict=False)
    for block, target in zip(model.blocks, narrow.blocks, strict=True):
        _narrowed(block.ffn_t, target.ffn_t)
    return narrow


def _narrowed(layer: FeedForward, target: FeedForward) -> None:
    """Set ``target`` to ``layer``, or if it is narrower to those of its hidden units that weigh most, in order."""
    (first, last), (own_first, own_last) = ((each.net[0].proj, each.net[2]) for each in (layer, target))
    weight = first.weight.norm(dim=1) * last.weight.norm(dim=0)
    units = weight.topk(own_first.out_features).indices.sort().values
    own_first.weight.copy_(first.weight[units])
    own_first.bias.copy_(first.bias[units])
    own_last.weight.copy_(last.weight[:, units])
    own_last.bias.copy_(last.bias)


def released_transformer(vocabulary: int = RELEASED_VOCABULARY, **sizes: Any) -> UniWanTransformer:
    """The released model's shape and conventions: Wan2.1-T2V-1.3B unless ``sizes`` say otherwise; 3.0 billion
    parameters, so build it under ``torch.device("meta")`` to count them."""
    return UniWanTransformer(text_vocabulary=vocabulary, positions="released", one_way=False, **sizes)


def from_released(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the release under our names; angles, which are computed, are left out."""
    renamed: dict[str, Tensor] = {}
    for stored, value in tensors.items():
        name = _WRAPPERS.sub("", stored)
        if _COMPUTED.match(name):
            continue
        for theirs, ours in _OUTSIDE:
            if name.startswith(theirs):
                name = ours + name[len(theirs) :]
                break
        renamed[name] = value
        if name.startswith("blocks.") and name.endswith(".scale_shift_table"):
            renamed[name + "_t"] = value
    return renamed


def load_released(path: str | Path, **sizes: Any) -> tuple[UniWanTransformer, KeyReport]:
    """The model in a released ``step-*.pth`` (restricted reader, which runs no code) or safetensors file.

    Raises:
        UserError: the file cannot be read, or any tensor is missing, unexpected or misshapen.
    """
    path = Path(path)
    try:
        content: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except FileNotFoundError:
        raise UserError(f"there is no file '{path}'") from None
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"'{path}' cannot be read as weights: {str(error).splitlines()[0]}") from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"'{path}' holds no tensors of a model")
    tensors = from_released(content)
    if "text_embedding.weight" not in tensors:
        raise UserError(f"'{path}' holds no Uni-ViGU model: it lacks vocab_embed.weight")
    with torch.device("meta"):
        model = released_transformer(tensors["text_embedding.weight"].shape[0], **sizes)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    report = KeyReport.compare(wanted, {name: tuple(value.shape) for name, value in tensors.items()})
    report.require(path)
    model.load_state_dict(tensors, assign=True)
    own = model.config
    # Rotary angles are computed, not stored: they are the only thing that is still on the meta device.
    model.rope = WanRotaryPosEmbed(own["attention_head_dim"], own["patch_size"], own["rope_max_seq_len"])
    return model.eval(), report
