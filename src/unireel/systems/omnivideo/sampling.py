"""UniPC sampling (arXiv 2302.04867) with the paper's settings, by diffusers' scheduler."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import UniPCMultistepScheduler
from torch import Tensor

from unireel.errors import UsageError


@dataclass(frozen=True)
class Sampling:
    """Steps, shift of the times, guidance scale on words, and that on a source film."""

    steps: int = 40
    shift: float = 5.0
    text: float = 3.0
    source: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.shift <= 0:
            raise UsageError(
                f"sampling needs at least 1 step and a positive shift, not {self.steps} and {self.shift}"
            )


PAPER = {
    "t2i": Sampling(50, 5.0, 5.0),
    "t2v": Sampling(40, 5.0, 3.0),
    "i2i": Sampling(40, 5.0, 3.0),
    "v2v": Sampling(40, 5.0, 3.0),
}
"""The paper's settings (section 5.1); those of edits are the release's scripts'."""

RELEASED = {**PAPER, "t2v": Sampling(50, 5.0, 5.0)}
"""The release's scripts', whose film is guided by 5 in 50 steps."""


def unipc(
    steps: int,
    shift: float,
    own_times: bool = False,
    device: torch.device | str = "cpu",
    start: float = 1.0,
) -> UniPCMultistepScheduler:
    """The scheduler at its times: order 2, ``bh2``, 1000 training times, flow prediction, as Wan's own.

    ``own_times`` are those of Wan's own code, from 0.999 to 0 before they are shifted; diffusers' go from 1 to 0.001.
    All are multiplied by ``start``.
    """
    scheduler = UniPCMultistepScheduler(
        num_train_timesteps=1000,
        solver_order=2,
        solver_type="bh2",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=shift,
    )
    times = {"sigmas": np.linspace(0.999, 0, steps + 1)[:-1]} if own_times else {"num_inference_steps": steps}
    scheduler.set_timesteps(device=device, **times)
    if start != 1:
        scheduler.sigmas = start * scheduler.sigmas
        scheduler.timesteps = (start * scheduler.timesteps).to(scheduler.timesteps.dtype)
    return scheduler


@torch.no_grad()
def integrate(
    velocity: Callable[[Tensor, Tensor, Tensor], Tensor],
    noise: Tensor,
    steps: int,
    shift: float,
    first: Tensor | None = None,
    on_step: Callable[[int, Tensor, Tensor], Tensor] | None = None,
    own_times: bool = False,
    start: float = 1.0,
) -> Tensor:
    """From noise (B, C, T, h, w) to data along ``velocity``.

    Args:
        velocity: of (state, time, sigma): the whole number () that Wan models are called with, and the exact flow
            time () in [0, 1], 1 is noise.
        first: clean first latent frame (B, C, 1, h, w) that is kept.
        on_step: called after each step with (number, time before the step, state); returns the state to go on with.
        own_times: see :func:`unipc`.
        start: flow time of ``noise``; below 1 it is data with noise, see :func:`~unireel.flow.sampling.sample`.
    """
    scheduler = unipc(steps, shift, own_times, noise.device, start)
    state = noise
    for number, (time, sigma) in enumerate(zip(scheduler.timesteps, scheduler.sigmas[:-1], strict=True)):
        if first is not None:
            state = torch.cat([first, state[:, :, 1:]], dim=2)
        slope = velocity(state, time, sigma.to(state.device))
        state = scheduler.step(slope, time, state, return_dict=False)[0]
        if on_step:
            state = on_step(number, time, state)
    return state if first is None else torch.cat([first, state[:, :, 1:]], dim=2)
