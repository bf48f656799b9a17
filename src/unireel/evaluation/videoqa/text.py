"""Comparing short answers word by word."""

from __future__ import annotations

import re
from collections import Counter

ARTICLES = frozenset({"a", "an", "the"})
NUMBERS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)


def words(text: str) -> list[str]:
    """The words of ``text`` in lower case, without punctuation and articles."""
    found = re.findall(r"[^\W_]+(?:[-'.][^\W_]+)*", text.lower())
    # An answer that is nothing but an article ("a", the letter) keeps it.
    return [each for each in found if each not in ARTICLES] or found


def normalised(text: str) -> str:
    """``text`` in lower case, without punctuation, articles and superfluous space."""
    return " ".join(words(text))


def token_f1(said: str, answer: str) -> float:
    """Harmonic mean of precision and recall of words, in [0, 1]."""
    one, two = Counter(words(said)), Counter(words(answer))
    shared = sum((one & two).values())
    return 2 * shared / (sum(one.values()) + sum(two.values())) if shared else 0.0


def number_in(text: str) -> float | None:
    """The one number in ``text``, in digits or as a word up to twelve; None if there is none or more than one."""
    digits = re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])", text)
    spelled = [str(NUMBERS.index(each)) for each in words(text) if each in NUMBERS]
    found = {float(each) for each in (*digits, *spelled)}
    return found.pop() if len(found) == 1 else None
