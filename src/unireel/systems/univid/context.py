"""What the decoder attends to: C_t alone, or together with the states of its own text encoder.

Wan attends to a text context of fixed length, padded with zeros and without a mask. Whatever is combined here is laid
out in that length, so that what a trained decoder expects of its padding stays as it was.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from unireel.backbones.understanding.interface import VIEWS, Features, Picture, Understanding, View
from unireel.errors import UsageError, UserError
from unireel.systems.univid.connector import WHOLE, Conditions, Mix

Combination = Literal["replace", "concatenate", "gate"]


class ContextCombiner(nn.Module):
    """C_t and the text encoder's states in one context.

    - ``replace``: C_t alone.
    - ``concatenate``: the text's states, then C_t.
    - ``gate``: the same with C_t multiplied by tanh of a learned number that starts at zero. Zeros are what the
      padding is made of, so that at the start the decoder does exactly what it did without C_t.

    Args:
        combination: one of these.
        length: tokens of the context (512 for Wan).
    """

    def __init__(self, combination: Combination = "gate", length: int = 512) -> None:
        super().__init__()
        self.combination, self.length = combination, length
        self.gate = nn.Parameter(torch.zeros(())) if combination == "gate" else None

    def forward(self, conditions: Conditions, text: Tensor | None, text_mask: Tensor | None) -> Tensor:
        """The context (B, ``length``, d_c).

        Args:
            conditions: C_t.
            text: states of the decoder's text encoder (B, L, d_c), or None if they are replaced.
            text_mask: which of them are there (B, L).

        Raises:
            UserError: text and C_t together are longer than the context.
        """
        tokens = conditions.tokens if self.gate is None else conditions.tokens * self.gate.tanh()
        rows = [row[mask] for row, mask in zip(tokens, conditions.mask, strict=True)]
        if self.combination != "replace":
            if text is None or text_mask is None:
                raise ValueError(f"to {self.combination} needs the states of a text encoder")
            texts = [row[mask.bool()] for row, mask in zip(text.to(tokens), text_mask, strict=True)]
            rows = [torch.cat(pair) for pair in zip(texts, rows, strict=True)]
        longest = max(len(row) for row in rows)
        if longest > self.length:
            raise UserError(
                f"the prompt is longer than the context: with its images it needs {longest} tokens of {self.length}"
            )
        context = pad_sequence(rows, batch_first=True)
        return nn.functional.pad(context, (0, 0, 0, self.length - longest))


@dataclass(frozen=True)
class Condition:
    """One branch of guidance, encoded once and on its own: Z_u, the text's states, latents of the reference image.

    ``given`` (B,) bool says which rows have latents, None that all have.
    """

    features: Features
    text: Tensor | None = None
    text_mask: Tensor | None = None
    latents: Tensor | None = None
    given: Tensor | None = None


def encode_branches(
    understanding: Understanding,
    prompts: Sequence[str],
    avoided: Sequence[str],
    images: Sequence[Sequence[Picture]] | None = None,
    views: Collection[View] = VIEWS,
) -> tuple[Features, Features]:
    """Z_u of the prompts and, in a prefill of its own with the same images, of what is to be avoided."""
    if len(prompts) != len(avoided):
        raise UsageError(f"{len(prompts)} prompts need as many of what is to be avoided, got {len(avoided)}")
    return (
        understanding.hidden_states(prompts, images, views),
        understanding.hidden_states(avoided, images, views),
    )


class TimedContext:
    """The decoder's context as a function of flow time, for the prompts or for what is to be avoided.

    Args:
        connector: :class:`~unireel.systems.univid.connector.Connector` or what is called like it.
        combiner: how C_t and the text meet.
        condition: the branch.
        mix: shares of the visual blocks.
    """

    def __init__(
        self, connector: Any, combiner: ContextCombiner, condition: Condition, mix: Mix = WHOLE
    ) -> None:
        self.connector, self.combiner, self.condition, self.mix = connector, combiner, condition, mix

    def __call__(self, time: Tensor) -> Tensor:
        """The context (B, length, d_c) at flow time ``time``, () or (B,)."""
        own = self.condition
        time = time.expand(len(own.features.states)) if time.ndim == 0 else time
        return self.combiner(self.conditions(time), own.text, own.text_mask)

    def conditions(self, time: Tensor) -> Conditions:
        """C_t alone, at flow times (B,)."""
        own = self.condition
        return self.connector(own.features, time, own.latents, self.mix, own.given)
