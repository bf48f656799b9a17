"""A film and its text made together, and films that read a text which is given."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unireel.backbones.uni_rows import Film
from unireel.backbones.uni_wan import UniWanTransformer
from unireel.backbones.wan import Prediction, token_times
from unireel.flow.sampling import renoised, restart_steps, sample, time_grid
from unireel.flow.text import Generator, TextFlow
from unireel.systems.univigu.pages import Page
from unireel.systems.univigu.writing import Branch, Writer, Written, guided, remembered


@dataclass(frozen=True)
class PairSampling:
    """How film and text are sampled together.

    Attributes:
        film_steps, text_steps: of each; the network is evaluated for both at once as often as there are film steps, and
            for steps of the text that are more than those once more each.
        film_guidance, text_guidance: scales of guidance by the prompt; 1 leaves it out.
        film_shift, text_shift: of the times, see :func:`~unireel.flow.matching.shift_time`.
        churn, greedy: see :meth:`~unireel.systems.univigu.writing.Writer.move`.
        restart: flow time up to which the film is noised and drawn once more, without guidance of the film and in a
            quarter of its steps (:func:`~unireel.flow.sampling.sample`); its text is written anew meanwhile, so that it
            is about the film as it became. 0: neither; a picture is not.
    """

    film_steps: int = 24
    text_steps: int = 24
    film_guidance: float = 2.0
    text_guidance: float = 1.0
    film_shift: float = 2.0
    text_shift: float = 1.0
    prediction: Prediction = "data"
    churn: float = 0.0
    greedy: bool = True
    restart: float = 0.0

    def __post_init__(self) -> None:
        if self.film_steps < 1 or self.text_steps < 1:
            raise ValueError(f"at least one step of each, not {self.film_steps} and {self.text_steps}")


class Duet:
    """A model with two streams as the film's sampler wants one; the text goes along, and guidance is in it.

    Args:
        branches: what the two sides of guidance read, the one with the prompt first.
        writer: of text that is made meanwhile; None: there is none to make.
    """

    def __init__(
        self,
        model: UniWanTransformer,
        branches: tuple[Branch, Branch],
        sampling: PairSampling,
        writer: Writer | None = None,
    ) -> None:
        self.model, self.writer, self.sampling = model, writer, sampling
        guided = sampling.film_guidance != 1.0 or (writer is not None and sampling.text_guidance != 1.0)
        self.branches = branches if guided else branches[:1]
        channels = model.config["out_channels"]  # coordinates are added by the model itself
        sizes = {"in_channels": channels, "out_channels": channels}
        self.config: dict[str, Any] = sizes | {"patch_size": model.config["patch_size"]}
        self.text_times = time_grid(sampling.text_steps, sampling.text_shift).tolist()
        self.at = 0
        self.text: Tensor | None = None

    def __call__(self, hidden_states: Tensor, timestep: Tensor, **_: Any) -> tuple[Tensor]:
        """The film's guided output (B, C, T, h, w) as diffusers' models give it; the text's is kept in ``text``."""
        film, words, places = Film(hidden_states, timestep), None, None
        if self.writer is not None:
            now = torch.full((len(hidden_states), 1), self.text_times[self.at], device=timestep.device)
            words, places = self.writer.rows(now)
            self.writer.evaluations += 1
        seen = [self.model.streams(each.context, film, words, each.memory) for each in self.branches]
        if self.writer is not None:
            text = guided([each.text for each in seen], self.sampling.text_guidance)
            self.text = self.writer.spread(text, places)
        return (guided([each.video for each in seen], self.sampling.film_guidance),)

    def write(self) -> None:
        """One step of the text from the latest evaluation."""
        now, then = self.text_times[self.at : self.at + 2]
        self.writer.move(self.text, now, then, self.sampling.churn, self.sampling.greedy)
        self.at += 1


@torch.no_grad()
def sample_pair(
    model: UniWanTransformer,
    flow: TextFlow,
    noise: Tensor,
    page: Page,
    context: Tensor,
    empty: Tensor,
    end: int,
    sampling: PairSampling = PairSampling(),
    first: Tensor | None = None,
    generator: Generator = None,
    on_step: Callable[[int, Tensor, Tensor], Tensor] | None = None,
) -> tuple[Tensor, Written]:
    """A film and a text that belong together, from noise.

    Args:
        noise: (B, C, T, h, w) at time 1.
        page: words that are given are kept, the open ones written. Given words are read once.
        context, empty: states of the prompts and of the empty one, (B, L, D).
        end: the number of the word that ends a text.
        first: clean first latent frames (B, C, 1, h, w) that are kept.
        on_step: see :func:`~unireel.flow.sampling.sample`; not told of what is drawn once more.

    Returns:
        Latents (B, C, T, h, w), and the page filled.
    """
    rest = (page, context, empty, end, first, generator)
    state, written = _pair(model, flow, noise, *rest, sampling, on_step)
    if sampling.restart and noise.shape[2] > 1:
        few = replace(sampling, film_steps=restart_steps(sampling.film_steps), film_guidance=1.0)
        again = renoised(state, noise, sampling.restart)
        state, more = _pair(model, flow, again, *rest, few, None, sampling.restart)
        written = replace(more, evaluations=written.evaluations + more.evaluations)
    return state, written


def _pair(
    model: UniWanTransformer,
    flow: TextFlow,
    noise: Tensor,
    page: Page,
    context: Tensor,
    empty: Tensor,
    end: int,
    first: Tensor | None,
    generator: Generator,
    sampling: PairSampling,
    on_step: Callable[[int, Tensor, Tensor], Tensor] | None,
    start: float = 1.0,
) -> tuple[Tensor, Written]:
    """A film from ``noise`` at the flow time ``start``, and its text from nothing."""
    writer = Writer(model, flow, page, end, generator)
    branches = [Branch(each, remembered(model, writer, each, None)) for each in (context, empty)]
    duet = Duet(model, (branches[0], branches[1]), sampling, writer)
    patch = duet.config["patch_size"]
    tokens = (noise.shape[3] // patch[1]) * (noise.shape[4] // patch[2])
    film_times = start * time_grid(sampling.film_steps, sampling.film_shift, noise.device)
    clean = torch.full((len(noise),), first is not None, device=noise.device)

    def step(number: int, time: Tensor, state: Tensor) -> Tensor:
        due = round((number + 1) * sampling.text_steps / sampling.film_steps)
        for more in range(due - duet.at):
            if more:  # the text has more steps than the film: once more, with the film as it is now
                kept = state if first is None else torch.cat([first, state[:, :, 1:]], dim=2)
                now = film_times[number + 1].expand(len(noise))
                duet(kept, token_times(now, clean, noise.shape[2], tokens))
            duet.write()
        return state if on_step is None else on_step(number, time, state)

    return _film(duet, noise, context, sampling, first, step, start), writer.written()


@torch.no_grad()
def sample_film(
    model: UniWanTransformer,
    flow: TextFlow,
    noise: Tensor,
    page: Page,
    context: Tensor,
    empty: Tensor,
    end: int,
    sampling: PairSampling = PairSampling(),
    first: Tensor | None = None,
    on_step: Callable[[int, Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """A film whose rows read a text that is wholly given; the side without the prompt is without the text too.

    The text is read once, whatever the number of steps. Arguments as of :func:`sample_pair`.
    """
    if bool(page.open.any()):
        raise ValueError("the text has words that are not given")
    memory = remembered(model, Writer(model, flow, page, end), context, None)
    duet = Duet(model, (Branch(context, memory), Branch(empty)), sampling)
    return _film(duet, noise, context, sampling, first, on_step)


def _film(
    duet: Duet,
    noise: Tensor,
    context: Tensor,
    sampling: PairSampling,
    first: Tensor | None,
    on_step: Any,
    start: float = 1.0,
) -> Tensor:
    # The duet has its contexts and its guidance in it: to the sampler it is a model without.
    return sample(
        duet,
        noise,
        context,
        context,
        steps=sampling.film_steps,
        guidance=1.0,
        shift=sampling.film_shift,
        first=first,
        prediction=sampling.prediction,
        on_step=on_step,
        start=start,
    )
