"""One guided step of a Wan transformer of published shape and random weights: diffusers' own, and ours."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from unireel.backbones.fast import Precision, accelerate
from unireel.backbones.fast.precision import halve
from unireel.bench.measure import Contestant, Stopwatch
from unireel.bench.pocket import size_of
from unireel.errors import UsageError

TEXT_ROWS, WORDS = 512, (60, 130)
"""Rows of the text as Wan's pipelines pad it, and how many of a prompt's and the negative prompt's are words."""


@dataclass(frozen=True)
class Shape:
    """A published transformer, and the latents (T, h, w) of the film its paper makes.

    ``per_token`` models take a time per token, the first latent frame's zero.
    """

    heads: int
    ffn: int
    layers: int
    channels: int
    latents: tuple[int, int, int]
    per_token: bool = False


SHAPES = {
    "wan2.1-1.3b": Shape(12, 8960, 30, 16, (21, 60, 104)),
    "wan2.2-5b": Shape(24, 14336, 30, 48, (31, 44, 80), per_token=True),
    "wan2.1-14b": Shape(40, 13824, 40, 16, (21, 60, 104)),
}


def build(shape: Shape, layers: int) -> WanTransformer3DModel:
    """The transformer with so many of its layers, float32, random."""
    torch.manual_seed(0)
    return WanTransformer3DModel(
        num_attention_heads=shape.heads,
        ffn_dim=shape.ffn,
        num_layers=layers,
        in_channels=shape.channels,
        out_channels=shape.channels,
    ).eval()


def inputs(shape: Shape, latents: tuple[int, int, int], device: str) -> list[dict[str, Tensor]]:
    """What the transformer takes in the two branches of guidance."""
    random = torch.Generator().manual_seed(1)
    noise = torch.randn(1, shape.channels, *latents, generator=random).to(device)
    tokens = latents[1] * latents[2] // 4
    time = torch.full((1, latents[0] * tokens), 700.0, device=device)
    time[:, :tokens] = 0
    branches = []
    for words in WORDS:
        text = torch.zeros(1, TEXT_ROWS, 4096)
        text[:, :words] = torch.randn(1, words, 4096, generator=random) * 0.3
        timestep = time if shape.per_token else time[:, -1]
        branches.append(
            {"hidden_states": noise, "timestep": timestep, "encoder_hidden_states": text.to(device)}
        )
    return branches


def find_shape(name: str) -> Shape:
    """The shape of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in SHAPES:
        raise UsageError(f"there is no model '{name}' to bench; models are pocket/base, {', '.join(SHAPES)}")
    return SHAPES[name]


def contestants(
    shape: Shape,
    layers: int,
    latents: tuple[int, int, int],
    device: str = "cpu",
    precision: Precision = "auto",
    compile: bool = False,
) -> list[Contestant]:
    """diffusers in both formats and ours, on latents (T, h, w)."""
    model, given = build(shape, layers), inputs(shape, latents, device)
    theirs, ours = copy.deepcopy(model), copy.deepcopy(model)
    halve(theirs)
    for each in (model, theirs, ours):
        each.to(device)
    accelerate(ours, precision, compile)

    def runner(one: Any, narrow: bool) -> Any:
        def run(number: int, watch: Stopwatch) -> Tensor:
            with watch.stage("denoise"):
                branches = []
                for branch in given:
                    if narrow:
                        branch = {
                            key: each if key == "timestep" else each.bfloat16()
                            for key, each in branch.items()
                        }
                    branches.append(one(**branch, return_dict=False)[0].float())
                return branches[1] + 5 * (branches[0] - branches[1])

        return run

    rate = str(ours.proj_out.weight.dtype).removeprefix("torch.")
    return [
        Contestant("diffusers float32", runner(model, False), size_of(model), "float32"),
        Contestant("diffusers bfloat16", runner(theirs, True), size_of(theirs), "bfloat16"),
        Contestant("unireel", runner(ours, False), size_of(ours), rate),
    ]
