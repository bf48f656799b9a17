"""Rectified flow: the straight path between data and noise, and how times are drawn in training."""

from __future__ import annotations

import torch
from torch import Tensor


def interpolate(data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    r"""The state :math:`x_t = (1 - t)\,x_0 + t\,\epsilon` of the straight path (arXiv 2209.03003).

    Args:
        data, noise: equal shapes (B, ...).
        time: flow time in [0, 1], (B,) or broadcastable against ``data``; 0 is data, 1 is noise.
    """
    time = time.view(-1, *[1] * (data.ndim - 1)) if time.ndim == 1 else time
    return (1 - time) * data + time * noise


def velocity(data: Tensor, noise: Tensor) -> Tensor:
    r"""The path's velocity :math:`\mathrm{d}x_t/\mathrm{d}t = \epsilon - x_0`, the regression target."""
    return noise - data


def shift_time(time: Tensor, shift: float) -> Tensor:
    r"""Move times towards noise: :math:`s t / (1 + (s - 1) t)` (arXiv 2403.03206, eq. 23); 1 changes nothing."""
    return shift * time / (1 + (shift - 1) * time)


def sample_times(count: int, shift: float, uniform: float, device: torch.device) -> Tensor:
    """Training times (``count``,): logit-normal (arXiv 2403.03206) for most samples, uniform for a share of them.

    Args:
        shift: see :func:`shift_time`; applied to both kinds.
        uniform: share in [0, 1] of samples with uniform time, so that both ends of the path are seen.
    """
    times = torch.sigmoid(torch.randn(count, device=device))
    flat = torch.rand(count, device=device)
    return shift_time(torch.where(torch.rand(count, device=device) < uniform, flat, times), shift)
