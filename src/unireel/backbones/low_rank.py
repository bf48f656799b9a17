"""Low-rank differences (LoRA, arXiv 2106.09685) as part of linear layers: trained as factors, written as matrices.

peft's adapters (:mod:`unireel.backbones.lora`) compute beside a layer, for models too large to have its gradient. The
matrices of a pocket model are small: here the sum is formed once a step, and a block runs as it did without.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unireel.errors import UsageError


class LowRankLinear(nn.Linear):
    """``x (W + U D)^T + b`` with W and b fixed; U (out, rank) starts as zero, D (rank, in) at random.

    Args:
        linear: the layer whose W and b these are.
        rank: of what is added.
        generator: for D.
    """

    def __init__(self, linear: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        for parameter in linear.parameters():
            parameter.requires_grad_(False)
        down = torch.randn((rank, linear.in_features), generator=generator) * linear.in_features**-0.5
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank).to(self.weight))
        self.down = nn.Parameter(down.to(self.weight))

    def whole(self) -> Tensor:
        """The matrix that it multiplies by."""
        return self.weight + self.up @ self.down

    def forward(self, input: Tensor) -> Tensor:
        """As of any linear layer."""
        return F.linear(input, self.whole(), self.bias)


def add_low_rank(module: nn.Module, ranks: Mapping[str, int], seed: int = 0) -> list[str]:
    """Make the linear layers of ``module`` whose names match a pattern of ``ranks`` low-rank ones, in place.

    Returns:
        Their names.

    Raises:
        UsageError: a pattern matches no linear layer, or a rank is below 1.
    """
    layers = {name: each for name, each in module.named_modules() if isinstance(each, nn.Linear)}
    generator = torch.Generator().manual_seed(seed)
    changed = []
    for pattern, rank in ranks.items():
        found = [name for name in fnmatch.filter(layers, pattern) if name not in changed]
        if not found or rank < 1:
            raise UsageError(f"low_rank: {pattern}: {rank} is no rank, or no linear layer is called so")
        for name in found:
            _put(module, name, LowRankLinear(layers[name], rank, generator))
        changed += found
    return changed


@torch.no_grad()
def approximate(layer: LowRankLinear, base: Tensor) -> None:
    """Let ``layer`` be ``base`` plus the nearest of its rank to the matrix that it had.

    Of a difference of lower rank, the rest of the factors is as it is at the start of a training: random rows whose
    columns are zero. (Were both zero, neither would ever get a gradient.)
    """
    up, size, down = torch.linalg.svd(layer.whole() - base, full_matrices=False)
    rank = min(int((size > 1e-6 * base.norm()).sum()), layer.down.shape[0])
    root = size[:rank].sqrt()
    layer.up.zero_()[:, :rank] = up[:, :rank] * root
    layer.down[:rank] = root[:, None] * down[:rank]
    layer.weight.copy_(base)


@contextmanager
def as_matrices(module: nn.Module) -> Iterator[None]:
    """Within, every :class:`LowRankLinear` of ``module`` is an ordinary linear layer of the same function."""
    layers = {name: each for name, each in module.named_modules() if isinstance(each, LowRankLinear)}
    for name, each in layers.items():
        with torch.device("meta"):
            plain = nn.Linear(each.in_features, each.out_features, each.bias is not None)
        plain.weight = nn.Parameter(each.whole().detach(), requires_grad=False)
        plain.bias = each.bias
        _put(module, name, plain)
    try:
        yield
    finally:
        for name, each in layers.items():
            _put(module, name, each)


def _put(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, layer)
