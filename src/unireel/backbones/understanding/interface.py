"""What every understanding model offers, whichever it is."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

Picture = np.ndarray | Image.Image
View = Literal["vit", "vae"]
"""How an image is read: by the ViT (what it means) or through the autoencoder (how it looks)."""
VIEWS: tuple[View, ...] = ("vit", "vae")


class Kind(enum.IntEnum):
    """What a state of :class:`Features` belongs to; the numbers are those of :mod:`unireel.backbones.packing`."""

    PADDING = -1
    VIT = 0
    VAE = 1
    TEXT = 2


@dataclass(frozen=True)
class Features:
    """Z_u of UniVid: last-layer hidden states of a prefill, in each row laid out as [ViT | VAE | text].

    Attributes:
        states: (B, N, D), padding (at the end of each row) is zero.
        kinds: the :class:`Kind` of each, (B, N) int64.
    """

    states: Tensor
    kinds: Tensor

    @classmethod
    def of(cls, rows: Sequence[tuple[Tensor, Tensor]]) -> Features:
        """From each row's states (n, D) and kinds (n,), in any order of kinds; within a kind the order stays."""
        orders = [kinds.argsort(stable=True) for _, kinds in rows]
        states = [states[order] for (states, _), order in zip(rows, orders, strict=True)]
        kinds = [kinds[order].long() for (_, kinds), order in zip(rows, orders, strict=True)]
        return cls(
            pad_sequence(states, batch_first=True),
            pad_sequence(kinds, batch_first=True, padding_value=Kind.PADDING),
        )

    @property
    def mask(self) -> Tensor:
        """Which states are not padding, (B, N) bool."""
        return self.kinds != Kind.PADDING

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Features:
        """The same elsewhere."""
        return Features(self.states.to(device, dtype), self.kinds.to(device))


@dataclass(frozen=True)
class Request:
    """A question, frames (F, H, W, 3) uint8 to look at in their order, and what the model is told before."""

    question: str
    frames: np.ndarray | None = None
    system: str = ""


@dataclass(frozen=True)
class Spoken:
    """What a model said: text, token ids without the end mark, and each token's probability (the end mark's last)."""

    text: str
    ids: tuple[int, ...]
    probabilities: tuple[float, ...]


class Understanding(Protocol):
    """An understanding model with its tokenizer.

    Whether gradients flow is up to the caller of ``hidden_states``; the other two never keep any.
    """

    @property
    def width(self) -> int:
        """D, the width of its states."""
        ...

    def hidden_states(
        self,
        prompts: Sequence[str],
        images: Sequence[Sequence[Picture]] | None = None,
        views: Collection[View] = VIEWS,
    ) -> Features:
        """Z_u of each prompt with its images.

        Args:
            prompts: B of them; an empty prompt is allowed.
            images: the images of each prompt, of any sizes.
            views: how images are read; a model without an autoencoder reads them by ViT only.

        Raises:
            UserError: a prompt is longer than the context, or an image has an impossible shape.
        """
        ...

    def generate(
        self, prompts: Sequence[str], max_new_tokens: int = 128, temperature: float = 0.0, seed: int = 0
    ) -> list[Spoken]:
        """Continue each prompt as plain text: the likeliest continuation, or a sample if ``temperature`` > 0."""
        ...

    def chat(
        self, requests: Sequence[Request], max_new_tokens: int = 128, temperature: float = 0.0, seed: int = 0
    ) -> list[Spoken]:
        """Answer each request as an assistant does."""
        ...


@torch.no_grad()
def decode(
    step: Callable[[Tensor | None], Tensor],
    eos: Collection[int],
    most: int,
    temperature: float,
    generator: torch.Generator | None,
) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """The loop of decoding: token after token until all rows have ended.

    Args:
        step: takes the tokens chosen last (B,), None at first, and returns the next logits (B, V).
        eos: ids that end a row.
        most: tokens at most, the end mark included.
        temperature: 0 takes the likeliest token, more divides the logits before one is drawn.
        generator: of the draws.

    Returns:
        For each row its ids without the end mark, and the probability of each of its tokens, with the end mark's.
    """
    token: Tensor | None = None
    ids: list[list[int]] = []
    probabilities: list[list[float]] = []
    alive: list[bool] = []
    for _ in range(most):
        logits = step(token).float()
        if token is None:
            ids, probabilities = [[] for _ in logits], [[] for _ in logits]
            alive = [True] * len(logits)
        chances = (logits / temperature if temperature > 0 else logits).softmax(-1)
        token = (
            torch.multinomial(chances.cpu(), 1, generator=generator)[:, 0].to(logits.device)
            if temperature > 0
            else chances.argmax(-1)
        )
        chosen = chances.gather(-1, token[:, None])[:, 0].tolist()
        for row, (number, chance) in enumerate(zip(token.tolist(), chosen, strict=True)):
            if alive[row]:
                probabilities[row].append(chance)
                alive[row] = number not in eos
                if alive[row]:
                    ids[row].append(number)
        if not any(alive):
            break
    return [(tuple(a), tuple(b)) for a, b in zip(ids, probabilities, strict=True)]


def drawn(temperature: float, seed: int) -> torch.Generator | None:
    """The generator of a run: None where nothing is drawn."""
    return torch.Generator().manual_seed(seed) if temperature > 0 else None
