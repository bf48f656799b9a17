"""Rules that stand in for language models: the kind of a question by its words, and its content as a statement."""

from __future__ import annotations

import re
from typing import Literal

_DYNAMIC = re.compile(
    r"\b(how (many times|often)|times|once|twice|before|after|then|first|last(ly)?|next|finally|while|until"
    r"|begins|starts|started|ends|ended|finish(es|ed)?|stop(s|ped)?|order|sequence|repeat(s|ed|edly)?|again"
    r"|chang(e|es|ed|ing)|become(s)?|turn(s|ed)?( into)?|direction|which way|faster|slower|camera"
    r"|where (does|do|did) .* (go|move|run|walk)"
    r"|what (does|do|did|happens|happened)\b.*\b(do|doing|happens?|happened)|move(s|d|ment|ments)?|moving"
    r"|jump(s|ed)?|appear(s|ed)?|disappear(s|ed)?|grow(s)?|shrink(s)?|enter(s|ed)?|leave(s)?)\b",
    re.IGNORECASE,
)
_THING = r"( (colour|color|shape|size|kind|type|sort)( of)?)?"
_HELPING = r"(is|are|was|were|does|do|did|has|have|can|will)"
_ASKING = re.compile(
    rf"^\s*((how (many( times)?|often|much|long)|wh(at|ich|o|ose|ere|en|y){_THING}|how)\b(\s+{_HELPING}\b)?"
    rf"|{_HELPING}\b)\s*",
    re.IGNORECASE,
)


def route_by_words(question: str) -> tuple[Literal["static", "dynamic"], str]:
    """Whether an English question asks for something over time, and the words that say so."""
    found = _DYNAMIC.search(question)
    return ("dynamic", f"it says '{found.group(0)}'") if found else ("static", "nothing in it is about time")


def statement(question: str) -> str:
    """What a question is about, without the asking: "what colour is the big cup?" becomes "the big cup"."""
    text = _ASKING.sub("", question.strip().rstrip("?!. "), count=1).strip()
    return re.sub(r"^there\s+", "", text) or question.strip().rstrip("?!. ")
