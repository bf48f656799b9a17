"""Which option of a multiple choice a model chose, from its own words; what is not clear is nothing, never a guess."""

from __future__ import annotations

import re
from collections.abc import Sequence

from unireel.evaluation.videoqa.formats import LETTERS
from unireel.evaluation.videoqa.text import normalised

_MARKER = re.compile(
    r"\b(?:answer|option|choice)\b[^A-Za-z(]*(?:(?:is|are|would be|should be)\b)?\W*", re.IGNORECASE
)


def chosen_option(said: str, options: Sequence[str]) -> int | None:
    """The number of the option that ``said`` chooses, from 0, or None.

    In this order: a number from 0 alone (TGIF-QA), unless it is an option's text; an option's text; a letter alone or
    in front of the rest; the one letter that is left when denied ones ("not A") and the article "A" are not counted,
    or the first one after "answer", "option" or "choice".
    """
    text = said.strip()
    plain = [normalised(each) for each in options]
    if plain.count(normalised(text)) == 1 and normalised(text):
        return plain.index(normalised(text))
    if text.isdecimal():
        return int(text) if int(text) < len(options) else None
    letters = LETTERS[: len(options)]
    leading = re.match(rf"\(?([{letters}])\)?(?:[.):,]|\s*$)", text)
    if leading:
        return letters.index(leading[1])
    # "b)", "(b)" and "option c" are letters too; other small letters are words.
    text = re.sub(rf"(?<=\()([{letters.lower()}])(?=\))", lambda match: match[1].upper(), text)
    text = re.sub(
        rf"({_MARKER.pattern})\b([{letters.lower()}])(?=\W*$)",
        lambda match: match[1] + match[2].upper(),
        text,
        flags=re.IGNORECASE,
    )
    named = _letters(text, letters)
    if len(set(named)) == 1:
        return letters.index(named[0])
    for marker in _MARKER.finditer(text):
        after = _letters(text[marker.end() :], letters)
        if len(set(after)) == 1:
            return letters.index(after[0])
    return None


def _letters(text: str, letters: str) -> list[str]:
    """Single capital letters in ``text`` that name options: not denied, and not the article before a small word."""
    found = []
    for match in re.finditer(rf"\b([{letters}])\b", text):
        before, after = text[: match.start()].rstrip("( "), text[match.end() :]
        if re.search(r"\b(?:not|isn't|neither|nor|except)$", before, re.IGNORECASE):
            continue
        if (
            match[1] == "A"
            and re.match(r"\s+[a-z]", after)
            and not re.match(r"\s+(?:is|and|or|because|but)\b", after)
        ):
            continue
        found.append(match[1])
    return found
