"""Sampling a flow model: from noise to data along the learned velocity, with guidance."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from unireel.backbones.wan import Prediction, predict_velocity, token_times
from unireel.flow.matching import shift_time

Context = Tensor | Callable[[Tensor], Tensor]
"""What a model attends to, (B, L, D): the same at all times, or a function of the flow time ()."""

OnStep = Callable[[int, Tensor, Tensor], Tensor]


def time_grid(steps: int, shift: float, device: torch.device | str = "cpu") -> Tensor:
    """Flow times of ``steps`` steps from 1 (noise) to 0 (data), shifted towards noise: (``steps`` + 1,) float32."""
    return shift_time(torch.linspace(1, 0, steps + 1, device=device), shift)


@torch.no_grad()
def sample(
    model: nn.Module,
    noise: Tensor,
    text: Context,
    empty: Context,
    steps: int = 20,
    guidance: float = 4.0,
    shift: float = 2.0,
    first: Tensor | None = None,
    interval: tuple[float, float] = (0.0, 1.0),
    prediction: Prediction = "velocity",
    on_step: OnStep | None = None,
    start: float = 1.0,
    restart: float = 0.0,
) -> Tensor:
    """Integrate the flow from ``noise`` to data by the two-step Adams-Bashforth method on uneven steps.

    Each step extrapolates the velocity to its middle from this and the previous evaluation (second order at one
    evaluation a step); the first and the last step are Euler's.

    Args:
        model: a Wan-type transformer.
        noise: (B, C, T, h, w) at time ``start``.
        text, empty: states of the prompts and of the empty prompt (or of what is to be avoided), (B, L, D), or
            functions of the flow time that give them.
        guidance: scale g of classifier-free guidance, v = v_empty + g (v_text - v_empty); 1 leaves it out.
        shift: of the times, see :func:`~unireel.flow.matching.shift_time`.
        first: clean first latent frame (B, C, 1, h, w) that is kept (image to video), or None.
        interval: flow times in which guidance acts (arXiv 2404.07724); outside, g = 1.
        prediction: what the network puts out, see :func:`~unireel.backbones.wan.predict_velocity`.
        on_step: called after each step with (number, flow time * 1000 before the step, state); returns the state to
            go on with.
        start: flow time of ``noise``; below 1 it is data with noise, which is drawn again from there (SDEdit, arXiv
            2108.01073), and the times are those of a whole sampling times ``start``.
        restart: flow time up to which the result is noised and drawn once more, in a quarter as many steps and without
            guidance; 0: it is not, and a picture (T = 1) never is. What went wrong near noise is mended (restart
            sampling, arXiv 2306.14878). The noise is ``noise`` with its channels moved on by one, so that nothing else
            is drawn at random; ``on_step`` is not told.

    Returns:
        Latents (B, C, T, h, w).
    """
    flow = partial(
        _integrate, model, text=text, empty=empty, first=first, interval=interval, prediction=prediction
    )
    times = time_grid(steps, shift, noise.device)
    state = flow(noise, start * times, guidance=guidance, on_step=on_step)
    if restart and noise.shape[2] > 1:
        few = time_grid(restart_steps(steps), shift, noise.device)
        state = flow(renoised(state, noise, restart), restart * few, guidance=1.0)
    return state


def renoised(state: Tensor, noise: Tensor, time: float) -> Tensor:
    """``state`` at flow time ``time``, with the ``noise`` that it was drawn from, its channels moved on by one."""
    return (1 - time) * state + time * noise.roll(1, dims=1)


def restart_steps(steps: int) -> int:
    """In how many steps what was drawn in ``steps`` is drawn once more."""
    return max(steps // 4, 1)


def _integrate(
    model: nn.Module,
    state: Tensor,
    times: Tensor,
    text: Context,
    empty: Context,
    guidance: float,
    first: Tensor | None,
    interval: tuple[float, float],
    prediction: Prediction,
    on_step: OnStep | None = None,
) -> Tensor:
    """From ``state`` at the first of the ``times`` to the last one; see :func:`sample`."""
    patch = model.config["patch_size"]  # type: ignore[index]
    tokens = (state.shape[3] // patch[1]) * (state.shape[4] // patch[2])
    if getattr(model, "is_cache_enabled", False):
        model._reset_stateful_cache()  # type: ignore[operator]
    before, steps = None, len(times) - 1
    clean = torch.full((len(state),), first is not None, device=state.device)
    for number in range(steps):
        now, then = times[number], times[number + 1]
        if first is not None:
            state = torch.cat([first, state[:, :, 1:]], dim=2)
            at = token_times(now.expand(len(state)), clean, state.shape[2], tokens)
        else:
            at = (1000 * now).expand(len(state))
        scale = guidance if interval[0] <= float(now) <= interval[1] else 1.0
        contexts = [_at(text, now)] if scale == 1.0 else [_at(text, now), _at(empty, now)]
        v = _guided(model, state, at, contexts, scale, prediction)
        slope = v
        if before is not None and number < steps - 1:
            slope = v + (v - before[1]) * (then - now) / (2 * (now - before[0]))
        state, before = state + (then - now) * slope, (now, v)
        if on_step:
            state = on_step(number, 1000 * now, state)
    return state if first is None else torch.cat([first, state[:, :, 1:]], dim=2)


def _at(context: Context, time: Tensor) -> Tensor:
    return context if isinstance(context, Tensor) else context(time)


def _guided(
    model: nn.Module,
    state: Tensor,
    at: Tensor,
    contexts: list[Tensor],
    guidance: float,
    prediction: Prediction,
) -> Tensor:
    """The guided velocity; both branches, if there are two, in one batch."""
    if len(contexts) == 1:
        with _cache_of(model, "text"):
            return predict_velocity(model, state, at, contexts[0], prediction)
    twice = torch.cat([state, state]), torch.cat([at, at]), torch.cat(contexts)
    with _cache_of(model, "both"):
        with_text, without = predict_velocity(model, *twice, prediction).chunk(2)
    return without + guidance * (with_text - without)


def _cache_of(model: nn.Module, branches: str) -> AbstractContextManager:
    """What diffusers' step caches, where one is enabled, keep for these ``branches`` of guidance."""
    cached = getattr(model, "is_cache_enabled", False)
    return model.cache_context(branches) if cached else nullcontext()  # type: ignore[operator]
