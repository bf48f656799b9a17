"""Few distinct times in place of one for each token, and normalisation modulated by them.

TI2V decoders take a time per token, but tokens of one sample have at most two: that of clean frames and that of noisy
ones. Tokens with the same time lie in runs; everything that depends on time is computed once a run.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_RUNS = 16
"""With more runs of equal times than this, times are not grouped."""

Runs = tuple[tuple[int, int], ...]
"""First and last + 1 of the tokens of each run."""


def group_times(times: Tensor, tokens: int) -> tuple[Tensor, Runs] | None:
    """The distinct times of a batch and where they hold.

    Args:
        times: (B,), or per token (B, N).
        tokens: N.

    Returns:
        Times (b, R), where b is 1 if all samples have the same ones and B otherwise, and the R runs; or None if there
        are more than :data:`MOST_RUNS`.
    """
    runs: Runs = ((0, tokens),)
    if times.ndim == 2:
        changes = (times[:, 1:] != times[:, :-1]).any(dim=0).nonzero().flatten().tolist()
        if len(changes) >= MOST_RUNS:
            return None
        runs = tuple(pairwise([0, *(place + 1 for place in changes), tokens]))
        times = times[:, [start for start, _ in runs]]
    else:
        times = times[:, None]
    same = len(times) == 1 or bool((times == times[:1]).all())
    return (times[:1] if same else times), runs


def modulated_norm(states: Tensor, shift: Tensor, scale: Tensor, runs: Runs, eps: float) -> Tensor:
    """norm(x) (1 + scale) + shift, in float32: (B, N, D).

    Args:
        states: (B, N, D).
        shift, scale: float32 of each run, (b, R, D).
    """
    states, size = states.float(), (states.shape[-1],)
    if len(scale) == 1:
        # The same for the whole batch: the affine part of one normalisation.
        gain = 1 + scale[0]
        return _per_run(
            runs, lambda run, place: F.layer_norm(states[:, place], size, gain[run], shift[0, run], eps)
        )
    normal, gain = F.layer_norm(states, size, eps=eps), 1 + scale
    return _per_run(
        runs, lambda run, place: torch.addcmul(shift[:, run, None], normal[:, place], gain[:, run, None])
    )


def gated(states: Tensor, update: Tensor, gate: Tensor, runs: Runs) -> Tensor:
    """x + update gate in the format of ``states`` (B, N, D); ``gate`` is float32 of each run, (b, R, D)."""
    wide, update = states.float(), update.float()
    total = _per_run(
        runs, lambda run, place: torch.addcmul(wide[:, place], update[:, place], gate[:, run, None])
    )
    return total.type_as(states)


def _per_run(runs: Runs, compute: Callable[[int, slice], Tensor]) -> Tensor:
    parts = [compute(run, slice(*place)) for run, place in enumerate(runs)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
