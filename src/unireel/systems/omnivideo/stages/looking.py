"""Where words of plans and thoughts should look: at the object that they tell of, and at the words that they repeat.

From words alone a small model learns for very long which object of a film a clause is about, and to repeat what was
said. The World knows both, and attention can be told (supervised attention, arXiv 1609.04186), as that of the base
system's video-language model is for answers and captions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unireel.systems.omnivideo.stages.mixture import Sample
from unireel.world.language.vocabulary import words
from unireel.world.scene import BACKGROUNDS, COLOURS, SHAPES, SIZES, STYLES, VECTORS

_FILM_VALUES = frozenset({*STYLES, *BACKGROUNDS})
_OBJECT_VALUES = frozenset({*SHAPES, *COLOURS, *SIZES, *VECTORS})

Row = tuple[int, ...]


def clauses_of(plan: Sequence[str]) -> list[range]:
    """Places of the words of each sentence of a plan, with its full stop; the first is of the whole film."""
    ends = [place + 1 for place, word in enumerate(plan) if word == "."]
    return [range(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def told_of(samples: Sequence[Sample], begins: Sequence[int]) -> Tensor:
    """Whom the words of plans tell of: rows (Q, 6) of :func:`unireel.data.turns.names_asked`.

    Args:
        begins: place at which each sample's turn begins.
    """
    rows: list[Row] = []
    for row, (sample, begin) in enumerate(zip(samples, begins, strict=True)):
        if sample.task != "plan":
            continue
        before = begin + len(words(sample.text)) + 2  # the mark before the plan's first word
        for clause, number in zip(clauses_of(words(sample.plan))[1:], sample.about, strict=True):
            mask = 1 << number if number >= 0 else 0
            rows += [(row, before + place, 0, mask, 1, 0) for place in clause]
    return torch.tensor(rows, dtype=torch.long).view(-1, 6)


def repeated(samples: Sequence[Sample], begins: Sequence[int]) -> Tensor:
    """Words that plans and thoughts repeat: (Q, 3) of :func:`unireel.data.turns.names_copied`.

    Of a rewritten request all words that it shares with what was said; of a plan what the instruction names of the film
    or of the object that it changes.
    """
    rows: list[Row] = []
    for row, (sample, begin) in enumerate(zip(samples, begins, strict=True)):
        said = words(sample.text)
        first = begin + 1  # of what was said
        if sample.thought:
            prompt = words(sample.thought.prompt)
            before = (
                first + len(said) + 1 + len(words(sample.thought.reasoning))
            )  # the mark of the rewritten request
            pairs = _shared(said, prompt)
        elif sample.task == "plan":
            before, pairs = begin + len(said) + 2, _named(said, sample)
        else:
            continue
        rows += [(row, before + to, first + place) for to, place in pairs]
    return torch.tensor(rows, dtype=torch.long).view(-1, 3)


def _shared(said: Sequence[str], prompt: Sequence[str]) -> list[tuple[int, int]]:
    """Places in ``prompt`` and in ``said`` of what both begin and end with."""
    least = min(len(said), len(prompt))
    start = next((i for i in range(least) if said[i] != prompt[i]), least)
    end = next((i for i in range(least - start) if said[-1 - i] != prompt[-1 - i]), least - start)
    tail = [(len(prompt) - 1 - i, len(said) - 1 - i) for i in reversed(range(end))]
    return [(i, i) for i in range(start)] + tail


def _named(said: Sequence[str], sample: Sample) -> list[tuple[int, int]]:
    """Places in the plan and in the instruction of values that both name."""
    plan = words(sample.plan)
    film, *objects = clauses_of(plan)
    of_object = objects[0] if sample.changes else range(0)
    wanted = [(place, _FILM_VALUES) for place in film] + [(place, _OBJECT_VALUES) for place in of_object]
    return [
        (place, said.index(plan[place]))
        for place, kind in wanted
        if plan[place] in kind and plan[place] in said
    ]
