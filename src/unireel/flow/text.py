"""Flows that write text: what every formulation answers; :mod:`~unireel.flow.formulations` chooses one.

Time runs as for films: 1 is noise, 0 is data. All take a network that predicts the words behind a noisy state; what
the state is (words, or vectors that stand for words) is theirs. B batch, L words, V vocabulary, d width of vectors.
"""

from __future__ import annotations

import abc

import torch
from torch import Tensor


class TextFlow(abc.ABC):
    """One formulation of text as a flow."""

    feedback = False
    """Whether the network is shown what it predicted one evaluation ago."""

    @abc.abstractmethod
    def clean(self, ids: Tensor) -> Tensor:
        """The state at time 0 of words (B, L): (B, L) int64 or (B, L, d)."""

    @abc.abstractmethod
    def noise(self, shape: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
        """A state at time 1 for (B, L) words; drawn on the CPU, so that a seed means the same everywhere."""

    @abc.abstractmethod
    def corrupt(self, ids: Tensor, time: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The state at ``time`` (B, L) in [0, 1] of words ``ids`` (B, L)."""

    @abc.abstractmethod
    def loss(self, output: Tensor, ids: Tensor, state: Tensor, time: Tensor) -> Tensor:
        """Each word's loss (B, L) for the network's ``output`` at ``state`` and ``time``; 0 where nothing is asked."""

    @abc.abstractmethod
    def probabilities(self, output: Tensor, state: Tensor, time: Tensor) -> Tensor:
        """What the network says of each word behind the state: (B, L, V), summing to 1."""

    @abc.abstractmethod
    def step(
        self, output: Tensor, state: Tensor, now: float, then: float, generator: torch.Generator | None = None
    ) -> Tensor:
        """The state at time ``then`` < ``now`` from the network's ``output`` at ``state``."""

    def shown(self, output: Tensor) -> Tensor | None:
        """What the next evaluation is shown of this one's ``output``, if there is :attr:`feedback`: (B, L, d)."""
        return None


def draw(probabilities: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One number for each distribution in (..., V): (...) int64.

    By inversion in float64: in less, the tail is cut off and the temperature is in effect lower (arXiv 2409.02908).
    """
    total = probabilities.double().cumsum(-1)
    height = torch.rand(total.shape[:-1], generator=generator, dtype=torch.float64).to(total.device)
    drawn = torch.searchsorted(total, (height[..., None] * total[..., -1:]), right=True)[..., 0]
    return drawn.clamp_max(probabilities.shape[-1] - 1)
