r"""Continuous flows on text: words as vectors, on the straight path to Gaussian noise.

:class:`EmbeddingFlow` predicts words by cross-entropy and moves towards their mean vector ("score interpolation",
arXiv 2211.15089): with :math:`\hat x = \sum_w p(w \mid z_t)\, E_w` the velocity is :math:`(z_t - \hat x) / t`, which is
exact for an exact network. :class:`VelocityFlow` regresses the velocity, as the summary of Uni-ViGU's paper has it.
There is no softmax to round with, and where vectors are learned the loss is least when all of them are equal.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unireel.flow.matching import interpolate
from unireel.flow.text import Generator, TextFlow, by_row

LEAST_TIME = 1e-3
"""Time below which a velocity is computed as if at this time."""


class VectorFlow(TextFlow):
    """What both have in common.

    Args:
        codes: vectors of words (V, d), used at the length sqrt(d), so that each number has about the noise's size. With
            d = 16 to 32 words are told apart in the middle of the path; wider ones, near its noisy end only.
    """

    def __init__(self, codes: Tensor) -> None:
        self.codes = codes

    def table(self) -> Tensor:
        """The vectors at their length, (V, d)."""
        return F.normalize(self.codes, dim=-1) * self.codes.shape[-1] ** 0.5

    def clean(self, ids: Tensor) -> Tensor:
        """The words' vectors (B, L, d)."""
        return F.embedding(ids, self.table())

    def noise(self, shape: tuple[int, int], generator: Generator = None) -> Tensor:
        """Gaussian noise (B, L, d) float32."""
        wide = (*shape, self.codes.shape[-1])
        return by_row(lambda each, own: torch.randn(each, generator=own), wide, generator)

    def corrupt(self, ids: Tensor, time: Tensor, generator: Generator = None) -> Tensor:
        """The straight path's state."""
        noise = self.noise((ids.shape[0], ids.shape[1]), generator).to(self.codes)
        return interpolate(self.clean(ids), noise, time[..., None])


class EmbeddingFlow(VectorFlow):
    """Score interpolation: the network puts out logits."""

    feedback = True

    def loss(self, output: Tensor, ids: Tensor, state: Tensor, time: Tensor) -> Tensor:
        """Cross-entropy of every word at every time."""
        return F.cross_entropy(output.float().transpose(1, 2), ids, reduction="none")

    def probabilities(self, output: Tensor, state: Tensor, time: Tensor) -> Tensor:
        """The softmax."""
        return output.double().softmax(-1)

    def step(
        self, output: Tensor, state: Tensor, now: float, then: float, generator: Generator = None
    ) -> Tensor:
        """A step of Euler's along the velocity to the mean vector; nothing is drawn."""
        return state + (then - now) * (state - self.shown(output)) / max(now, LEAST_TIME)

    def shown(self, output: Tensor) -> Tensor:
        """The mean vector (B, L, d)."""
        return output.float().softmax(-1).to(self.codes.dtype) @ self.table()


class VelocityFlow(VectorFlow):
    """The literal regression: the network puts out a velocity of width d."""

    def loss(self, output: Tensor, ids: Tensor, state: Tensor, time: Tensor) -> Tensor:
        """Mean squared error against (state - data) / t, the noise minus the data."""
        target = (state - self.clean(ids)) / time[..., None].clamp_min(LEAST_TIME)
        return (output.float() - target).square().mean(-1)

    def probabilities(self, output: Tensor, state: Tensor, time: Tensor) -> Tensor:
        """All on the word whose vector is nearest to where the velocity points."""
        data = state - time[..., None] * output
        nearest = (data @ self.table().T).argmax(-1)
        return F.one_hot(nearest, len(self.codes)).double()

    def step(
        self, output: Tensor, state: Tensor, now: float, then: float, generator: Generator = None
    ) -> Tensor:
        """A step of Euler's along the velocity; nothing is drawn."""
        return state + (then - now) * output
