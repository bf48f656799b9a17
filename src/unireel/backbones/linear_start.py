"""A start for the pocket autoencoder that already reconstructs: principal components of small blocks of film.

An autoencoder this small learns slowly from random weights (tens of minutes to reach what a linear code gives at
once). Here its first and last convolutions are set to the principal components of 4 x 4 x 4 pixel blocks, residual
branches to zero, so that training starts from the linear code and only has to improve on it.

Two facts make the start exact up to group norm: ``silu(x) - silu(-x) = x``, so that a linear signal passes the final
non-linearity as a pair of channels of opposite sign; and a constant pair of channels (:data:`ANCHOR`) that carries
most of a frame's energy keeps group norm from rescaling the others much.
"""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportOptionalMemberAccess=false

from __future__ import annotations

import torch
from diffusers import AutoencoderKLCosmos
from torch import Tensor, nn

ANCHOR = 3.0
"""Energy of the constant channels relative to all others."""


@torch.no_grad()
def linear_start(vae: AutoencoderKLCosmos, pixels: Tensor) -> None:
    """Set ``vae`` in place to a linear code of ``pixels`` (B, 3, F, H, W) in [-1, 1]."""
    blocks = vae.encoder.patch_embed(pixels).transpose(0, 1).flatten(1)  # (3 p^3, blocks)
    mean = blocks.mean(1)
    values, vectors = torch.linalg.eigh(torch.cov(blocks))
    order = values.argsort(descending=True)
    basis, spread = vectors[:, order].T, values[order].clamp_min(1e-8).sqrt()  # (D, D) rows, (D,)
    for part in (vae.encoder, vae.decoder):
        _silence(part)
    for convolution in (vae.quant_conv, vae.post_quant_conv):
        _set_centre(convolution, torch.eye(convolution.out_channels))
    codes = vae.config["latent_channels"]
    width = vae.encoder.conv_in.conv_s.out_channels
    kept = (width - 2) // 2
    gain = (width / (2 * spread[:kept].square().sum())).sqrt()
    read = gain * basis[:kept]
    _paired(vae.encoder.conv_in, read, -(read @ mean), width)
    _unpaired(
        vae.encoder.norm_out.norm,
        vae.encoder.conv_out,
        (torch.eye(kept) / (gain * spread[:kept])[:, None])[:codes],
    )
    width = vae.decoder.conv_in.conv_s.out_channels
    gain = (width / (2.0 * codes)) ** 0.5
    _paired(vae.decoder.conv_in, gain * torch.eye(codes), torch.zeros(codes), width)
    _unpaired(
        vae.decoder.norm_out.norm, vae.decoder.conv_out, (basis[:codes] * spread[:codes, None]).T / gain
    )
    vae.decoder.conv_out.conv_t.bias.copy_(mean)


def _silence(part: nn.Module) -> None:
    """Make every residual and attention branch of an encoder or decoder output zero."""
    for name, module in part.named_modules():
        if name.endswith(("conv2.conv_t", "to_out.0")):
            nn.init.zeros_(module.weight)  # type: ignore[arg-type]
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def _set_centre(convolution: nn.Module, matrix: Tensor) -> None:
    """Zero a causal convolution, then put ``matrix`` (out, in) at the centre in space and the present in time."""
    weight, bias = convolution.weight, convolution.bias
    nn.init.zeros_(weight)  # type: ignore[arg-type]
    nn.init.zeros_(bias)  # type: ignore[arg-type]
    rows, columns = matrix.shape
    weight[:rows, :columns, -1, weight.shape[3] // 2, weight.shape[4] // 2] = matrix  # type: ignore[index]


def _paired(projection: nn.Module, matrix: Tensor, offset: Tensor, width: int) -> None:
    """Channels ``matrix x + offset``, their negatives, and last the constant pair that anchors group norm."""
    count = len(matrix)
    anchor = (ANCHOR * width / 2) ** 0.5
    _set_centre(projection.conv_t, torch.eye(width))  # type: ignore[arg-type]
    _set_centre(projection.conv_s, torch.cat([matrix, -matrix]))  # type: ignore[arg-type]
    bias = projection.conv_s.bias  # type: ignore[union-attr]
    bias[: 2 * count] = torch.cat([offset, -offset])  # type: ignore[index]
    bias[-2:] = torch.tensor([anchor, -anchor])  # type: ignore[index]


def _unpaired(norm: nn.GroupNorm, projection: nn.Module, matrix: Tensor) -> None:
    """Undo group norm's typical scale, then read ``matrix`` (out, count) from the differences of paired channels."""
    norm.weight.fill_((1 + ANCHOR) ** 0.5)
    nn.init.zeros_(norm.bias)
    _set_centre(projection.conv_s, torch.cat([matrix, -matrix], dim=1))  # type: ignore[arg-type]
    _set_centre(projection.conv_t, torch.eye(projection.conv_t.out_channels))  # type: ignore[arg-type, union-attr]
