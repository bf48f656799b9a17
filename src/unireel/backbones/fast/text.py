"""Text contexts of a Wan transformer at their true length, prepared once per prompt.

Wan's pipelines pad the text states with zeros to a fixed length (512). Cross-attention has no positions, so that all
padding has one and the same key and value: k equal keys weigh in a softmax like one key whose logit is raised by ln k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

BLOCK = 8
"""Lengths are rounded up to a multiple of this, so that a compiler meets few of them."""


def collapse_padding(text: Tensor) -> tuple[Tensor, Tensor | None]:
    """The states without repeated padding, and what to add to the logits of attention to them.

    Args:
        text: (B, L, D), each row's padding zero.

    Returns:
        The first L' states (B, L', D), where all that is left out is zero in every row of the batch and the last one
        kept is too, and a float32 bias (1, 1, 1, L') which is ln(L - L' + 1) for the last; or ``text`` and None if
        there is nothing to leave out.
    """
    length = text.shape[1]
    filled = (text != 0).any(dim=2).any(dim=0).nonzero()
    used = int(filled[-1]) + 1 if len(filled) else 0
    kept = -(-(used + 1) // BLOCK) * BLOCK
    if kept >= length:
        return text, None
    bias = torch.zeros(1, 1, 1, kept, device=text.device)
    bias[..., -1] = math.log(length - kept + 1)
    return text[:, :kept], bias


@dataclass(frozen=True, eq=False)
class Context:
    """What the blocks attend to: embedded text (B, L', D), the bias of its logits or None, and keys and values."""

    states: Tensor
    bias: Tensor | None
    kept: dict[Hashable, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Keys and values by the attention that they belong to."""


class ContextCache:
    """The contexts of the last few texts; both branches of guidance and every step find theirs again.

    A text is recognised by its values, not by its tensor, so that a sampler may build its batches anew each step and
    nobody is served stale states after an edit in place. Off the CPU, where looking at values would wait for the
    device, only the same unchanged tensor is recognised.
    """

    def __init__(self, size: int = 4) -> None:
        self.size = size
        self._entries: list[tuple[Tensor, int, Context]] = []

    def get(self, text: Tensor, make: Callable[[Tensor], Context]) -> Context:
        """The context of ``text`` (B, L, D), made by ``make`` at the first sight."""
        for place, (known, version, context) in enumerate(self._entries):
            if _same(text, known, version):
                self._entries.append(self._entries.pop(place))
                return context
        context = make(text)
        # On the CPU a copy, because the owner may write into it; elsewhere the tensor itself, and its version.
        self._entries.append((text.clone() if text.device.type == "cpu" else text, _version(text), context))
        del self._entries[: -self.size]
        return context

    def clear(self) -> None:
        """Forget all, because weights have changed."""
        self._entries.clear()


def _same(text: Tensor, known: Tensor, version: int) -> bool:
    if text.device != known.device or text.dtype != known.dtype or text.shape != known.shape:
        return False
    if text.device.type == "cpu":
        return torch.equal(text, known)
    return text is known and _version(text) == version


def _version(tensor: Tensor) -> int:
    """How often the tensor was written to; tensors of inference mode do not count it."""
    return 0 if tensor.is_inference() else tensor._version
