r"""Discrete flows on words: masked, uniform, and in between (arXiv 2407.15595, 2406.07524, 2503.04482).

Each word is independently still the data's with probability :math:`1 - t`, else drawn from a source: the state "not
known yet" (number V), any word, or a mixture. The network says :math:`p(x^i \mid x_t)`. The process that has these
marginals jumps at rate

.. math:: u_t(y \mid x_t^i) = \frac{1}{t} \left( p(x^i = y \mid x_t) - \delta_{x_t^i}(y) \right),

whatever the source. A step from t to s with the prediction held fixed is exact in closed form: a word jumps with
probability :math:`1 - s/t`, to what is drawn from the prediction.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unireel.flow.text import Generator, TextFlow, by_row, draw

LEAST_TIME = 1e-3
"""Time below which a weight of 1 / t grows no further."""


class DiscreteFlow(TextFlow):
    """A flow whose source is, for a share ``uniform`` of the words, any word, and else "not known yet".

    0 is masked diffusion: words that are known are never asked for nor changed. 1 is uniform diffusion.
    """

    def __init__(self, vocabulary: int, uniform: float) -> None:
        if not 0 <= uniform <= 1:
            raise ValueError(f"the share of random words is between 0 and 1, not {uniform}")
        self.vocabulary, self.uniform = vocabulary, uniform

    @property
    def mask(self) -> int:
        """The state "not known yet"."""
        return self.vocabulary

    @property
    def states(self) -> int:
        """How many states a word has."""
        return self.vocabulary + (self.uniform < 1)

    def source(self) -> Tensor:
        """The source's distribution over states, (states,) float64."""
        source = torch.full((self.states,), self.uniform / self.vocabulary, dtype=torch.float64)
        if self.uniform < 1:
            source[self.mask] = 1 - self.uniform
        return source

    def clean(self, ids: Tensor) -> Tensor:
        """The words themselves."""
        return ids

    def noise(self, shape: tuple[int, int], generator: Generator = None) -> Tensor:
        """Words of the source, (B, L) int64."""
        words = by_row(
            lambda each, own: torch.randint(self.vocabulary, each, generator=own), shape, generator
        )
        known = by_row(lambda each, own: torch.rand(each, generator=own), shape, generator) < self.uniform
        return torch.where(known, words, self.mask) if self.uniform < 1 else words

    def corrupt(self, ids: Tensor, time: Tensor, generator: Generator = None) -> Tensor:
        """Each word kept with probability 1 - t, else from the source."""
        noise = self.noise((ids.shape[0], ids.shape[1]), generator).to(ids.device)
        height = by_row(lambda each, own: torch.rand(each, generator=own), ids.shape, generator)
        gone = height.to(ids.device) < time
        return torch.where(gone, noise, ids)

    def loss(self, output: Tensor, ids: Tensor, state: Tensor, time: Tensor) -> Tensor:
        """Cross-entropy.

        Masked: of unknown words, weighing 1 / t, which makes the mean over times a bound on the likelihood, tight
        for an exact network. Else of every word alike, which an exact network minimises at every time.
        """
        errors = F.cross_entropy(output.float().transpose(1, 2), ids, reduction="none")
        if self.uniform:
            return errors
        return errors * (state == self.mask) / time.clamp_min(LEAST_TIME)

    def probabilities(self, output: Tensor, state: Tensor, time: Tensor | None = None) -> Tensor:
        """The softmax; in masked diffusion, certainty about words that are known."""
        words = output.double().softmax(-1)
        if self.uniform:
            return words
        known = F.one_hot(state.clamp_max(self.vocabulary - 1), self.vocabulary).to(words)
        return torch.where((state != self.mask)[..., None], known, words)

    def transition(self, words: Tensor, state: Tensor, now: float, then: float) -> Tensor:
        """The distribution (B, L, states) of each word's next state; the rule of the module, exactly."""
        jump = 1 - then / now
        stay = F.one_hot(state, self.states).to(words)
        return (1 - jump) * stay + jump * F.pad(words, (0, self.states - self.vocabulary))

    def forget(self, now: float, then: float) -> Tensor:
        """The matrix (states, states) of transitions that brings the process up from ``now`` to ``then`` >= ``now``."""
        kept = (1 - then) / (1 - now)
        return kept * torch.eye(self.states, dtype=torch.float64) + (1 - kept) * self.source()

    def step(
        self,
        output: Tensor,
        state: Tensor,
        now: float,
        then: float,
        generator: Generator = None,
        churn: float = 0.0,
    ) -> Tensor:
        """A draw from :meth:`transition`.

        With ``churn`` c > 0 the step goes on to (1 - c) ``then`` and comes back by forgetting, so that words that
        were chosen before the others were known can change; with small steps the law is the same. 1 draws every
        word anew, as Uni-ViGU's joint sampler does (there, with another probability than the network is told).
        """
        lower = (1 - churn) * then
        words = self.probabilities(output, state)
        reached = draw(self.transition(words, state, now, lower), generator)
        if lower == then:
            return reached
        table = self.forget(lower, then).to(words.device)
        return draw(table[reached], generator)

    def settle(self, words: Tensor, state: Tensor, unknown: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Fix those ``count`` (B,) of the ``unknown`` (B, L) words that the network is surest of, to the likeliest.

        Returns:
            The next state and what is still unknown. Known words are not looked at again.
        """
        best, likeliest = words.max(-1)
        order = best.masked_fill(~unknown, -1).argsort(-1, descending=True).argsort(-1)
        chosen = unknown & (order < count[:, None])
        return torch.where(chosen, likeliest, state), unknown & ~chosen
