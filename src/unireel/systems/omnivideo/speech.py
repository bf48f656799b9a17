"""What the language model says: words, or marks that visual tokens stand between, or a thought before either."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unireel.errors import UserError

Kind = Literal["image", "video"]
"""What visual tokens stand for."""

MARKS: dict[Kind, tuple[str, str]] = {"image": ("<BOI>", "<EOI>"), "video": ("<BOV>", "<EOV>")}
"""Before and after the visual tokens of a picture and of a film (section 3.2 of the paper)."""

PICTURE = "draw a picture,"
"""What a prompt begins with where a picture is wanted: nothing else in it tells one from a film."""

THINK, REWRITE = "<think>", "<rewrite>"
"""Before a request that is to be thought about, and before the rewritten request in the model's thought."""

NEW_TOKENS = (*MARKS["image"], *MARKS["video"], THINK, REWRITE)


@dataclass(frozen=True)
class Request:
    """What a person says, and the film it is about: frames (F, H, W, 3) uint8, or None."""

    text: str
    frames: np.ndarray | None = None


def as_heard(text: str, kind: Kind, has_film: bool) -> str:
    """``text`` as the language model hears it: for a new picture it says so; of a film or an edit nothing is added."""
    return text if has_film or kind == "video" else f"{PICTURE} {bare(text)}"


def bare(text: str) -> str:
    """``text`` without the wish for a picture that it may begin with."""
    return re.sub(r"^draw a picture(?: of\b| ?,)? *", "", text)


@dataclass(frozen=True)
class Reply:
    """What the text head answered: words, or the wish to make something.

    Attributes:
        text: the answer; empty if something is to be made.
        makes: "image" or "video" if the model began with ``<BOI>`` or ``<BOV>``, else None.
        confidence: probability of the answer, or of that mark.
    """

    text: str
    makes: Kind | None
    confidence: float


@dataclass(frozen=True)
class Thought:
    """The model's reasoning about a request, to be shown, edited (``dataclasses.replace``) and used again.

    Attributes:
        reasoning: why it is rewritten as it is.
        prompt: the request as the decoder should hear it.
        caption: for edits, what the edited film will show, all of it
            (:func:`~unireel.world.language.plan_after`); empty otherwise.
    """

    reasoning: str
    prompt: str
    caption: str = ""

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise UserError(
                "the thought has no rewritten prompt: the model did not finish it; write one with "
                "dataclasses.replace, or go without think mode"
            )

    def __str__(self) -> str:
        lines = [("thought", self.reasoning), ("prompt", self.prompt), ("edited film", self.caption)]
        return "\n".join(f"{name}: {text}" for name, text in lines if text)
