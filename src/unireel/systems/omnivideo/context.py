"""The decoder's context: [source | visual tokens | text], each with a budget, nothing cut and nothing lost."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unireel.errors import UserError
from unireel.systems.omnivideo.profile import Profile

SEGMENTS = ("source", "visual", "text")
"""In the order in which they stand in the context."""

MARKS = {
    "source": ("<img_st>", "<img_ed>"),
    "visual": ("<ipl_st>", "<ipl_ed>"),
    "text": ("<prp_st>", "<prp_ed>"),
}
"""What the release puts around each segment."""

REMEDIES = {
    "source": "use a shorter or smaller film",
    "visual": "this is the model's own doing: raise its budget",
    "text": "use fewer words",
}


@dataclass(frozen=True)
class Row:
    """The segments of one sample, each (n, D), or None where there is none."""

    source: Tensor | None = None
    visual: Tensor | None = None
    text: Tensor | None = None


@dataclass(frozen=True)
class Context:
    """Tokens (B, L, D), zero where ``mask`` (B, L) bool is False; ``mask`` is None where padding is to be seen."""

    tokens: Tensor
    mask: Tensor | None

    @classmethod
    def cat(cls, contexts: Sequence[Context]) -> Context:
        """Several batches as one, padded to the longest."""
        most = max(each.tokens.shape[1] for each in contexts)
        tokens = [torch.nn.functional.pad(c.tokens, (0, 0, 0, most - c.tokens.shape[1])) for c in contexts]
        masks = [
            torch.nn.functional.pad(c.mask, (0, most - c.mask.shape[1]))
            for c in contexts
            if c.mask is not None
        ]
        return cls(torch.cat(tokens), torch.cat(masks) if masks else None)


@dataclass(frozen=True)
class Assembler:
    """Lays segments out in one context.

    Attributes:
        profile: says how padding is treated, how long contexts are and whether marks are used.
        budgets: tokens that each of :data:`SEGMENTS` may have.
        marks: the release's marks by name, each (n, D).
        multiple: lengths are completed to a multiple of this, so that a compiler sees few of them.
    """

    profile: Profile
    budgets: Mapping[str, int]
    marks: Mapping[str, Tensor] = field(default_factory=dict)
    multiple: int = 1

    def __call__(self, rows: Sequence[Row]) -> Context:
        """The context of a batch.

        Raises:
            UserError: a segment is longer than its budget, or all of a row than the profile's length.
        """
        pieces = [self._row(row) for row in rows]
        longest = -(-max(len(each) for each in pieces) // self.multiple) * self.multiple
        length = self.profile.length or longest
        if longest > length:
            raise UserError(
                f"the context needs {longest} tokens of {length}: {REMEDIES['source']}, or {REMEDIES['text']}"
            )
        tokens = pad_sequence(pieces, batch_first=True)
        tokens = torch.nn.functional.pad(tokens, (0, 0, 0, length - tokens.shape[1]))
        if not self.profile.masked:
            return Context(tokens, None)
        counts = torch.tensor([len(each) for each in pieces], device=tokens.device)
        return Context(tokens, torch.arange(length, device=tokens.device) < counts[:, None])

    def _row(self, row: Row) -> Tensor:
        if row.text is None or not len(row.text):
            raise ValueError("a context has a text; that of no text is the state of the empty prompt")
        parts = []
        for name in SEGMENTS:
            segment = getattr(row, name)
            if segment is None:
                continue
            check_budget(name, len(segment), self.budgets)
            if self.profile.marks:
                begin, end = (self.marks.get(mark) for mark in MARKS[name])
                if begin is not None and end is not None:
                    segment = torch.cat([begin.to(segment), segment, end.to(segment)])
            parts.append(segment)
        return torch.cat([part.to(parts[-1]) for part in parts])


def check_budget(name: str, count: int, budgets: Mapping[str, int]) -> None:
    """Raise a :class:`UserError` if segment ``name`` with ``count`` tokens is over its budget."""
    if count > budgets[name]:
        raise UserError(
            f"the {name} needs {count} tokens of context and may have {budgets[name]}: {REMEDIES[name]}"
        )
