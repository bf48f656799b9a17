"""WUPS: answers compared by the Wu-Palmer similarity of their words (Malinowski and Fritz 2014)."""

from __future__ import annotations

import math
from collections.abc import Callable

from unireel.evaluation.videoqa.text import words

Similarity = Callable[[str, str], float]
"""Of two words, in [0, 1], 1 for equal ones."""

DISCOUNT = 0.1


def wups(said: str, answer: str, similarity: Similarity, threshold: float = 0.9) -> float:
    """How alike two answers are, in [0, 1]: each is the set of its words.

    For both directions, the product over the words of one answer of the best similarity to a word of the other; the
    smaller product counts. A similarity below ``threshold`` (usually 0.9, or 0 for none) counts a tenth.
    """
    one, two = set(words(said)), set(words(answer))
    if not one or not two:
        return 0.0

    def discounted(a: str, b: str) -> float:
        value = 1.0 if a == b else similarity(a, b)
        return value if value >= threshold else DISCOUNT * value

    table = {(a, b): discounted(a, b) for a in one for b in two}
    forth = math.prod(max(table[a, b] for b in two) for a in one)
    back = math.prod(max(table[a, b] for a in one) for b in two)
    return min(forth, back)
