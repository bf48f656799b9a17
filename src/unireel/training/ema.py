"""Exponential moving average of the trained weights."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from unireel.training.distributed import local


class Ema:
    """Running average of parameters: ``average = d * average + (1 - d) * weight``.

    After update ``t`` (0-based), ``d = min(decay, t / (t + warmup))``.

    The short memory at the start keeps the random initial weights out of the average. Averages are float32
    and, for sharded parameters, hold this process's shard only.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float, warmup: int) -> None:
        self.decay, self.warmup = decay, warmup
        self.parameters = dict(parameters)
        self._weights = [local(parameter).detach() for parameter in self.parameters.values()]
        self._averages = [weight.float().clone() for weight in self._weights]

    def rate(self, step: int) -> float:
        """The decay that :meth:`update` uses after update number ``step`` (0-based)."""
        return min(self.decay, step / (step + self.warmup)) if step + self.warmup else 0.0

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they are after update number ``step`` (0-based)."""
        if self._averages:
            weights = [weight.float() for weight in self._weights]
            share = 1.0 - self.rate(step)
            torch._foreach_lerp_(self._averages, weights, share)  # pyright: ignore[reportPrivateImportUsage]

    def state(self) -> dict[str, Tensor]:
        """This process's averages by parameter name (live tensors: copy into them to restore)."""
        return dict(zip(self.parameters, self._averages, strict=True))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The averages stand in for the weights inside; afterwards the weights are back, bit for bit."""
        kept = [weight.clone() for weight in self._weights]
        self._copy(self._averages)
        try:
            yield
        finally:
            self._copy(kept)

    def _copy(self, sources: list[Tensor]) -> None:
        with torch.no_grad():
            for weight, source in zip(self._weights, sources, strict=True):
                weight.copy_(source)
