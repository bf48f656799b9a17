"""Text from a model with two streams: about a given film, or while the film is made."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportReturnType=false
# pyright: reportOptionalOperand=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unireel.backbones.uni_rows import Film, Memory, Words
from unireel.backbones.uni_wan import UniWanTransformer
from unireel.flow.discrete import DiscreteFlow
from unireel.flow.text import Generator, TextFlow
from unireel.systems.univigu.pages import Page

Order = Literal["sure", "rates"]


@dataclass(frozen=True)
class Written:
    """A page filled: words (B, L), the probability of each when it was last decided (1 for given ones), and how many
    evaluations of the network it took."""

    ids: Tensor
    probabilities: Tensor
    evaluations: int


@dataclass(frozen=True)
class Branch:
    """One side of guidance: what cross-attention reads (B, L, D), and what self-attention remembers."""

    context: Tensor
    memory: Memory | None = None


class Writer:
    """A page on its way from noise to words.

    Args:
        model, flow: the network and its formulation of text.
        page: what is given, and what is to be written.
        end: the number of the word that ends a text.
        generator: of the noise; drawn on the CPU.
    """

    def __init__(
        self,
        model: UniWanTransformer,
        flow: TextFlow,
        page: Page,
        end: int,
        generator: Generator = None,
    ) -> None:
        self.model, self.flow, self.page, self.end, self.generator = model, flow, page, end, generator
        clean = flow.clean(page.ids)
        noise = flow.noise((page.ids.shape[0], page.ids.shape[1]), generator).to(clean)
        self.state = torch.where(_like(page.open, clean), noise, clean)
        self.open = page.open
        self.unknown = page.open
        self.before: Tensor | None = None
        self.ids = page.ids.clone()
        self.probabilities = torch.ones(page.ids.shape, dtype=torch.float64, device=page.ids.device)
        self.evaluations = 0

    def given(self) -> Words | None:
        """The given words as rows, to be remembered; None if there are none."""
        chosen = self.page.given & self.page.there
        if not bool(chosen.any()):
            return None
        places, there = _columns(chosen)
        return Words(
            _taken(self.state, places), torch.zeros_like(places, dtype=torch.float32), there, there, places
        )

    def rows(self, time: Tensor) -> tuple[Words, Tensor]:
        """The words still open as rows at ``time`` (B, 1) in [0, 1], and their places (B, M)."""
        places, there = _columns(self.open)
        before = None if self.before is None else _taken(self.before, places)
        at = (1000 * time).expand(-1, places.shape[1])
        words = Words(_taken(self.state, places), at, there, torch.zeros_like(there), places, before)
        return words, places

    def whole(self, time: Tensor) -> Words:
        """All words of the page as rows, the open ones at ``time`` (B, 1)."""
        at = 1000 * time * self.page.open
        there = self.page.given & self.page.there | self.open
        return Words(self.state, at, there, self.page.given, None, self.before)

    def spread(self, output: Tensor, places: Tensor) -> Tensor:
        """A network's output for rows (B, M, n) at the page's places, (B, L, n)."""
        whole = output.new_zeros(*self.page.ids.shape, output.shape[-1])
        return whole.scatter_(1, places[..., None].expand_as(output), output)

    def move(self, output: Tensor, now: float, then: float, churn: float = 0.0, greedy: bool = True) -> None:
        """A step by the flow's rates from the network's ``output`` (B, L, V or d); the last one decides every word.

        ``greedy`` decides for the likeliest word instead of drawing.
        """
        time = torch.full(self.page.ids.shape, now, device=output.device)
        words = self.flow.probabilities(output, self.state, time)
        if self.flow.feedback:
            self.before = self.flow.shown(output) * self.page.open[..., None]
        if then > 0 or not greedy:
            options = {"churn": churn} if isinstance(self.flow, DiscreteFlow) and then > 0 else {}
            moved = self.flow.step(output, self.state, now, then, self.generator, **options)
            self.state = torch.where(_like(self.open, moved), moved.to(self.state), self.state)
        if then == 0:
            discrete = isinstance(self.flow, DiscreteFlow) and not greedy
            self._decide(self.state if discrete else words.argmax(-1), words, self.open)

    def settle(self, output: Tensor, count: Tensor) -> None:
        """Fix the ``count`` (B,) words that the network is surest of, and drop what is behind an end that is fixed."""
        flow = self.flow
        assert isinstance(flow, DiscreteFlow)
        words = flow.probabilities(output, self.state)
        state, unknown = flow.settle(words, self.state, self.unknown, count)
        self._decide(state, words, self.unknown & ~unknown)
        self.state, self.unknown = state, unknown
        place = torch.arange(state.shape[1], device=state.device)
        ends = self.page.open & ~unknown & (state == self.end)
        first = torch.where(ends, place, state.shape[1]).amin(1, keepdim=True)
        self.open, self.unknown = self.open & (place <= first), self.unknown & (place <= first)

    def written(self) -> Written:
        """The page as it stands."""
        return Written(self.ids, self.probabilities, self.evaluations)

    def _decide(self, ids: Tensor, words: Tensor, which: Tensor) -> None:
        chosen = words.gather(-1, ids[..., None].clamp_max(words.shape[-1] - 1))[..., 0]
        self.ids = torch.where(which, ids, self.ids)
        self.probabilities = torch.where(which, chosen, self.probabilities)


@torch.no_grad()
def write(
    model: UniWanTransformer,
    flow: TextFlow,
    page: Page,
    context: Tensor,
    end: int,
    latents: Tensor | None = None,
    memory: Memory | None = None,
    *,
    steps: int | None = None,
    guidance: float = 1.0,
    order: Order | None = None,
    churn: float = 0.0,
    greedy: bool = True,
    reuse: bool | None = None,
    generator: Generator = None,
) -> Written:
    """Fill a page, about a film if one is given.

    Args:
        context: states of the prompt for cross-attention (B, L, D); of the empty one to go by the film alone.
        end: the number of the word that ends a text.
        latents: of clean films (B, C, T, h, w); None: text from the context alone.
        memory: of the films, if they have been read before (:func:`read`), instead of ``latents``.
        steps: evaluations; by default one for each open word.
        guidance: scale g of guidance by the film, out = out_without + g (out_with - out_without); 1 leaves it out.
        order: "sure" fixes in each step the words that the network is surest of; "rates" follows the flow's process. By
            default "sure" where there are unknown words (masked, hybrid), else "rates".
        churn: see :meth:`~unireel.flow.discrete.DiscreteFlow.step`.
        greedy: see :meth:`Writer.move`.
        reuse: whether film and given words are read once, at the first step. Exact if the model is ``one_way``, which
            is the default there; else an approximation, which the default avoids.
    """
    writer = Writer(model, flow, page, end, generator)
    order = order or ("sure" if isinstance(flow, DiscreteFlow) and flow.uniform < 1 else "rates")
    if order == "sure" and not (isinstance(flow, DiscreteFlow) and flow.uniform < 1):
        raise ValueError("the order 'sure' needs a formulation with unknown words")
    reuse = bool(model.config["one_way"]) if reuse is None else reuse
    count = int(page.open.sum(1).max())
    steps = max(count, 1) if steps is None else steps
    if latents is not None and reuse:
        memory, latents = read(model, latents, context), None
    memories = [memory] if guidance == 1.0 else [memory, None]
    if reuse:
        memories = [remembered(model, writer, context, each) for each in memories]
    films = [None if latents is None else _clean(latents), None]
    sizes = torch.full((len(context),), -(-count // steps), device=context.device)
    for step in range(steps):
        if order == "sure":
            if not bool(writer.unknown.any()):
                break
            time = writer.unknown.sum(1, keepdim=True) / page.open.sum(1, keepdim=True).clamp_min(1)
        else:
            time = torch.full((len(context), 1), 1 - step / steps, device=context.device)
        output = guided(
            [
                _evaluated(model, writer, context, film, each, time.to(context), reuse)
                for film, each in zip(films, memories, strict=False)
            ],
            guidance,
        )
        writer.evaluations += 1
        if order == "sure":
            writer.settle(output, sizes)
        else:
            writer.move(output, 1 - step / steps, 1 - (step + 1) / steps, churn, greedy)
    return writer.written()


def read(model: UniWanTransformer, latents: Tensor, context: Tensor) -> Memory:
    """What is remembered of clean films (B, C, T, h, w)."""
    memory = model.streams(context, _clean(latents), remember=True).memory
    assert memory is not None
    return memory


def remembered(
    model: UniWanTransformer, writer: Writer, context: Tensor, memory: Memory | None
) -> Memory | None:
    """``memory`` with the page's given words added."""
    given = writer.given()
    if given is None:
        return memory
    return model.streams(context, words=given, memory=memory, remember=True).memory


def guided(outputs: list[Tensor], scale: float) -> Tensor:
    """Guidance without + scale * (with - without) from outputs [with, without]; [with] alone is left as it is."""
    return outputs[0] if len(outputs) == 1 else outputs[1] + scale * (outputs[0] - outputs[1])


def _evaluated(
    model: UniWanTransformer,
    writer: Writer,
    context: Tensor,
    film: Film | None,
    memory: Memory | None,
    time: Tensor,
    reuse: bool,
) -> Tensor:
    """The network's output for the whole page, (B, L, V or d)."""
    if not reuse:
        return model.streams(context, film, writer.whole(time), memory).text
    words, places = writer.rows(time)
    return writer.spread(model.streams(context, words=words, memory=memory).text, places)


def _clean(latents: Tensor) -> Film:
    count = len(latents)
    return Film(latents, latents.new_zeros(count), torch.ones(count, dtype=torch.bool, device=latents.device))


def _columns(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Places (B, M) of the chosen words (B, L) bool, those of each row first; and which are there."""
    count = chosen.sum(1)
    width = max(int(count.max()), 1)
    places = (~chosen).to(torch.int8).argsort(dim=1, stable=True)[:, :width]
    return places, torch.arange(width, device=chosen.device) < count[:, None]


def _taken(state: Tensor, places: Tensor) -> Tensor:
    return (
        state.gather(1, places)
        if state.ndim == 2
        else state.gather(1, places[..., None].expand(-1, -1, state.shape[-1]))
    )


def _like(mask: Tensor, state: Tensor) -> Tensor:
    return mask if state.ndim == 2 else mask[..., None]
