"""Flows that write text: what every formulation answers; :mod:`~unireel.flow.formulations` chooses one.

Time runs as for films: 1 is noise, 0 is data. All take a network that predicts the words behind a noisy state; what
the state is (words, or vectors that stand for words) is theirs. B batch, L words, V vocabulary, d width of vectors.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Generator = torch.Generator | Sequence[torch.Generator] | None
"""Where noise comes from: one generator for a batch, or one for each of its texts, so that a seed means the same text
whatever stands beside it."""


class TextFlow(abc.ABC):
    """One formulation of text as a flow."""

    feedback = False
    """Whether the network is shown what it predicted one evaluation ago."""

    @abc.abstractmethod
    def clean(self, ids: Tensor) -> Tensor:
        """The state at time 0 of words (B, L): (B, L) int64 or (B, L, d)."""

    @abc.abstractmethod
    def noise(self, shape: tuple[int, int], generator: Generator = None) -> Tensor:
        """A state at time 1 for (B, L) words; drawn on the CPU, so that a seed means the same everywhere."""

    @abc.abstractmethod
    def corrupt(self, ids: Tensor, time: Tensor, generator: Generator = None) -> Tensor:
        """The state at ``time`` (B, L) in [0, 1] of words ``ids`` (B, L)."""

    @abc.abstractmethod
    def loss(self, output: Tensor, ids: Tensor, state: Tensor, time: Tensor) -> Tensor:
        """Each word's loss (B, L) for the network's ``output`` at ``state`` and ``time``; 0 where nothing is asked."""

    @abc.abstractmethod
    def probabilities(self, output: Tensor, state: Tensor, time: Tensor) -> Tensor:
        """What the network says of each word behind the state: (B, L, V), summing to 1."""

    @abc.abstractmethod
    def step(
        self, output: Tensor, state: Tensor, now: float, then: float, generator: Generator = None
    ) -> Tensor:
        """The state at time ``then`` < ``now`` from the network's ``output`` at ``state``."""

    def shown(self, output: Tensor) -> Tensor | None:
        """What the next evaluation is shown of this one's ``output``, if there is :attr:`feedback`: (B, L, d)."""
        return None


def by_row(
    random: Callable[[Sequence[int], torch.Generator | None], Tensor],
    shape: Sequence[int],
    generator: Generator,
) -> Tensor:
    """``random(shape, generator)``, each row from its own generator if there are as many.

    Raises:
        ValueError: there are generators for another number of rows.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return random(shape, generator)
    if len(generator) != shape[0]:
        raise ValueError(f"{shape[0]} texts need one generator or as many, not {len(generator)}")
    return torch.stack([random(shape[1:], each) for each in generator])


def draw(probabilities: Tensor, generator: Generator = None) -> Tensor:
    """One number for each distribution in (..., V): (...) int64.

    By inversion in float64: in less, the tail is cut off and the temperature is in effect lower (arXiv 2409.02908).
    """
    total = probabilities.double().cumsum(-1)
    height = by_row(_height, total.shape[:-1], generator).to(total.device)
    drawn = torch.searchsorted(total, (height[..., None] * total[..., -1:]), right=True)[..., 0]
    return drawn.clamp_max(probabilities.shape[-1] - 1)


def _height(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    return torch.rand(tuple(shape), generator=generator, dtype=torch.float64)
