"""Wider models that compute what trained ones do, to go on training from: Wan transformers, autoencoders' decoders.

Net2Net's widening (arXiv 1511.05641): each channel of the residual stream, each head and each hidden
unit that is added is a copy of one that exists, and what reads from copies shares out its weights among them. Copies
keep the mean square of every normalised vector, so that layer norms and RMS norms give what they gave. The shares are
drawn at random, so that the copies' gradients differ from the first step and they part.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

import torch
from diffusers import AutoencoderKLCosmos, WanTransformer3DModel
from torch import Tensor

from unireel.errors import UserError

SPREAD = 0.5
"""Standard deviation of a copy's share of a weight, as part of the even share."""


@torch.no_grad()
def twice_as_wide(
    model: WanTransformer3DModel, ffn: int, generator: torch.Generator | None = None
) -> WanTransformer3DModel:
    """A model with twice the heads and width and ``ffn`` hidden units, and the output of ``model`` up to rounding.

    Args:
        model: any Wan transformer without image inputs.
        ffn: hidden units of the feed-forward layers, between those of ``model`` and twice as many.
        generator: of the shares.

    Raises:
        UserError: ``ffn`` is out of range, or the model has image inputs.
    """
    config = dict(model.config)
    least = config["ffn_dim"]
    if not least <= ffn <= 2 * least:
        raise UserError(
            f"{ffn} hidden units: a model with {least} can be widened to between {least} and {2 * least}"
        )
    if config["image_dim"] is not None or config["added_kv_proj_dim"] is not None:
        raise UserError("a Wan transformer with image inputs cannot be widened")
    width = config["num_attention_heads"] * config["attention_head_dim"]
    sizes = {"num_attention_heads": 2 * config["num_attention_heads"], "ffn_dim": ffn}
    wide = WanTransformer3DModel.from_config(config | sizes)
    assert isinstance(wide, WanTransformer3DModel)
    stream, hidden = torch.arange(width).repeat(2), torch.arange(ffn) % least
    own = model.state_dict()
    for name, target in wide.state_dict().items():
        target.copy_(_widened(name, own[name].float(), stream, hidden, generator))
    return wide


@torch.no_grad()
def with_wider_decoder(
    model: AutoencoderKLCosmos, width: int, generator: torch.Generator | None = None
) -> AutoencoderKLCosmos:
    """An autoencoder whose decoder is ``width`` wide, with about the output of ``model``: up to rounding for a multiple
    of its width; else group norms and attention see some channels once more than others.

    Args:
        model: with a decoder that is equally wide everywhere, and one group in its group norms.
        width: if it is the decoder's, ``model`` itself is given back.
        generator: of the shares.

    Raises:
        UserError: ``width`` is less than the decoder's, or that is not the same everywhere.
    """
    own = tuple(model.config["decode_block_out_channels"])
    if own == (width,) * len(own):
        return model
    if width < own[0] or set(own) != {own[0]}:
        raise UserError(
            f"{width} channels: a decoder with {', '.join(map(str, own))} cannot be widened to that"
        )
    wide = AutoencoderKLCosmos.from_config({**model.config, "decode_block_out_channels": (width,) * len(own)})
    assert isinstance(wide, AutoencoderKLCosmos)
    sources, weights = torch.arange(width) % own[0], model.state_dict()
    for name, target in wide.state_dict().items():
        weight = weights[name].float()
        if target.shape != weight.shape:
            if not name.endswith("conv_out.conv_s.weight"):
                weight = weight[sources]
            if target.ndim > 1 and target.shape[1] != weight.shape[1]:
                taps = weight.flatten(2).movedim(2, 0)
                read = torch.stack([widened_reader(each, sources, generator) for each in taps], 2)
                weight = read.view(target.shape)
        # Attention has one head, whose products are divided by the root of its width.
        if name.startswith("decoder") and "to_q" in name:
            weight = weight * (own[0] / width) ** 0.5
        target.copy_(weight)
    return wide


def widened_reader(weight: Tensor, sources: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The weight (O, len(``sources``)) of a layer that reads copies of the inputs that ``weight`` (O, I) reads.

    ``sources`` says which input each of the new ones is a copy of. The shares of the copies of one input add up to 1.
    """
    shares = 1 + SPREAD * torch.randn(len(weight), len(sources), generator=generator)
    count = torch.zeros(weight.shape[1]).index_add_(0, sources, torch.ones(len(sources)))
    total = torch.zeros_like(weight).index_add_(1, sources, shares)
    # What is too much or too little is spread evenly, which leaves an input with one copy a share of exactly 1.
    shares = shares + ((1 - total) / count)[:, sources]
    return weight[:, sources] * shares


def _widened(
    name: str, weight: Tensor, stream: Tensor, hidden: Tensor, generator: torch.Generator | None
) -> Tensor:
    if name.endswith("scale_shift_table"):
        return weight[..., stream]
    if "time_proj" in name:
        weight = weight.unflatten(0, (6, -1))[:, stream].flatten(0, 1)
    elif "ffn.net.0" in name:
        weight = weight[hidden]
    elif not name.startswith("proj_out"):
        weight = weight[stream]
    if weight.ndim != 2 or "linear_1" in name:  # norms, biases, and what reads patches, texts and times
        return weight
    return widened_reader(weight, hidden if "ffn.net.2" in name else stream, generator)
