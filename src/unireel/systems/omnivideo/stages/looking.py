"""Where words of plans and thoughts should look: at the object that they tell of, and at the words that they repeat.

From words alone a small model learns for very long which object of a film a clause is about, and to repeat what was
said. The World knows both, and attention can be told (supervised attention, arXiv 1609.04186), as that of the base
system's video-language model is for answers and captions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unireel.data.indirect import OPPOSITES
from unireel.systems.omnivideo.speech import Thought
from unireel.systems.omnivideo.stages.mixture import Sample
from unireel.world.language.phrases import NUMBERS, TIMES, plural
from unireel.world.language.plans import TENTHS
from unireel.world.language.vocabulary import words
from unireel.world.scene import BACKGROUNDS, COLOURS, SHAPES, SIZES, STYLES, VECTORS

_VALUES = frozenset({*STYLES, *BACKGROUNDS, *SHAPES, *COLOURS, *SIZES, *VECTORS})
"""Words of an instruction that plans repeat."""
_OWN = frozenset({"at", "to", "from", ",", ".", *TENTHS})
"""Words of plans that are not repeated from captions: places and times, and what joins them."""

_NUMBER_OF = {said: NUMBERS[number] for number, said in TIMES.items()}
"""The numbers that "once" and "twice" are."""

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
        before = _before_plan(sample, begin)
        for clause, number in zip(clauses_of(words(sample.plan))[1:], sample.about, strict=True):
            mask = 1 << number if number >= 0 else 0
            rows += [(row, before + place, 0, mask, 1, 0) for place in clause]
    return torch.tensor(rows, dtype=torch.long).view(-1, 6)


def repeated(samples: Sequence[Sample], begins: Sequence[int]) -> Tensor:
    """Words that plans and thoughts repeat: (Q, 3) of :func:`unireel.data.turns.names_copied`.

    Of a rewritten request all words that it shares with what was said, and what it takes from the reasoning; of the
    reasoning what it takes from what was said, and the word that another one is the opposite of. Of a plan what the
    description says of the same object or of the film, and what the instruction says anew of these.
    """
    rows: list[Row] = []
    for row, (sample, begin) in enumerate(zip(samples, begins, strict=True)):
        said = words(sample.text)
        first = begin + 1  # of what was said
        if sample.thought:
            # Places count from the first word that was said; each mark is a word.
            before, pairs = first + len(said), _thought_over(said, sample.thought)
        elif sample.task == "plan":
            before, pairs = _before_plan(sample, begin), _told_before(sample)
        else:
            continue
        rows += [(row, before + to, first + place) for to, place in pairs]
    return torch.tensor(rows, dtype=torch.long).view(-1, 3)


def _thought_over(said: Sequence[str], thought: Thought) -> list[tuple[int, int]]:
    """Places in reasoning, mark and rewritten request together, and in what was said, mark and these together, of words
    that are taken from there."""
    why, prompt = words(thought.reasoning), words(thought.prompt)
    start, end = _shared(said, prompt)
    hidden, found = range(start, len(said) - end), range(start, len(prompt) - end)
    after = len(said) + 1  # the place of the reasoning's first word
    pairs = []
    for place, word in enumerate(why):
        # "the opposite of left is right": right is taken from left, and left from the request, as all the rest.
        source = _last(why[:place], (OPPOSITES.get(word, ""),))
        if source is not None:
            pairs.append((place, after + source))
        elif (source := _last([said[each] for each in hidden], (word, plural(word)))) is not None:
            pairs.append((place, hidden[source]))
    mark = len(why) + 1  # the place of the rewritten request's first word
    pairs += [(mark + place, place) for place in range(start)]
    for place in found:
        source = _last(why, (prompt[place], _NUMBER_OF.get(prompt[place], "")))
        if source is not None:
            pairs.append((mark + place, after + source))
    return pairs + [(mark + len(prompt) - 1 - i, len(said) - 1 - i) for i in reversed(range(end))]


def _shared(one: Sequence[str], other: Sequence[str]) -> tuple[int, int]:
    """How many words both begin with, and how many of the others both end with."""
    least = min(len(one), len(other))
    start = next((i for i in range(least) if one[i] != other[i]), least)
    end = next((i for i in range(least - start) if one[-1 - i] != other[-1 - i]), least - start)
    return start, end


def _last(text: Sequence[str], wanted: Sequence[str]) -> int | None:
    """The last place of one of ``wanted``."""
    return next((place for place in reversed(range(len(text))) if text[place] in wanted), None)


def _before_plan(sample: Sample, begin: int) -> int:
    """Place of the mark before a plan's first word."""
    return begin + len(words(sample.text)) + len(words(sample.description)) + 3


def _told_before(sample: Sample) -> list[tuple[int, int]]:
    """Places in the plan, and in instruction, marks and description together, of words that both have."""
    said, description, plan = words(sample.text), words(sample.description), words(sample.plan)
    after = len(said) + 2  # the place of the description's first word
    film, *clauses = clauses_of(plan)
    ends = [place for place, word in enumerate(description) if word == "."]
    objects = _split(range(ends[0] + 1, ends[1]), description)
    of_film = range(description.index("background"), len(description))
    # Words, what the description has of them, and whether the instruction is about them.
    parts = [(film, of_film, True)]
    for number, (clause, own) in enumerate(zip(clauses, sample.described, strict=True)):
        parts.append((clause, objects[own] if own >= 0 else range(0), sample.changes and number == 0))
    pairs = []
    for clause, own, asked in parts:
        for place in clause:
            found = next((i for i in own if description[i] == plan[place]), None)
            if plan[place] not in _OWN and found is not None:
                pairs.append((place, after + found))
            elif asked and plan[place] in _VALUES and plan[place] in said:
                pairs.append((place, said.index(plan[place])))
    return pairs


def _split(places: range, text: Sequence[str]) -> list[range]:
    """The clauses of a caption's sentence about objects."""
    commas = [place for place in places if text[place] == ","]
    return [
        range(start, end)
        for start, end in zip([places.start, *(c + 1 for c in commas)], [*commas, places.stop], strict=True)
    ]
