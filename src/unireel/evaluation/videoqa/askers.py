"""Who answers: a Unireel model, or any chat model behind an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from unireel.backbones.remote import Endpoint, image_part, text_part
from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.strips import Round, rounds_of
from unireel.evaluation.videoqa.formats import LETTERS, Question

Ask = tuple[Clip | None, Question]
"""A film, or None for the words alone, and a question about it."""


@dataclass(frozen=True)
class Traced:
    """An answer that was found by Pyramid Reflection, and its rounds, see :mod:`unireel.evaluation.strips`."""

    text: str
    rounds: list[Round]


def words_of(answer: str | Traced) -> str:
    """What was answered, however it was found."""
    return answer.text if isinstance(answer, Traced) else answer


class Asker(Protocol):
    """What answers questions. ``without_film``: whether it takes one without any film; ``batch``: asked at once."""

    without_film: bool
    batch: int

    def ask(self, asks: Sequence[Ask]) -> Sequence[str | Traced]:
        """The answers.

        Raises:
            UserError: a question cannot be asked; which one is not said.
        """
        ...


class Pipeline:
    """A Unireel model; it is asked the question's own words, also if there are options."""

    without_film = False

    def __init__(self, model: Any, batch: int = 16) -> None:
        self.model, self.batch = model, batch

    def ask(self, asks: Sequence[Ask]) -> list[str]:
        """Answers in batches."""
        pairs = [(clip, question.text) for clip, question in asks]
        return [each.text for each in self.model.ask_many(pairs, batch_size=self.batch, judge=False)]


class Loop(Protocol):
    """Pyramid Reflection, see ``docs/reflection.md``."""

    def ask(self, film: Clip, question: str) -> Any: ...


class Reflecting:
    """Pyramid Reflection around any model: the film that it is given is the pool of frames.

    ``lettered``: whether the options of a question are put to the model, by letter.
    """

    without_film = False
    batch = 1

    def __init__(self, loop: Loop, lettered: bool) -> None:
        self.loop, self.lettered = loop, lettered

    def ask(self, asks: Sequence[Ask]) -> list[Traced]:
        """One after the other."""
        return [self._answer(clip, question) for clip, question in asks if clip is not None]

    def _answer(self, clip: Clip, question: Question) -> Traced:
        words = words_for(question) if self.lettered and question.options else question.text
        found = self.loop.ask(clip, words)
        return Traced(found.text, rounds_of(found.trace))


class ChatModel:
    """A chat model that sees frames as pictures, with the field's usual instruction to answer briefly."""

    without_film = True
    batch = 1
    MOST_TOKENS = 64

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def ask(self, asks: Sequence[Ask]) -> list[str]:
        """One request for each."""
        return [self._answer(clip, question) for clip, question in asks]

    def _answer(self, clip: Clip | None, question: Question) -> str:
        frames: Sequence[np.ndarray] = () if clip is None else list(clip)
        content = [*map(image_part, frames), text_part(words_for(question))]
        return self.endpoint.chat(
            [{"role": "user", "content": content}], max_tokens=self.MOST_TOKENS
        ).text.strip()


def words_for(question: Question) -> str:
    """The question as a chat model gets it, with its options by letter if it has any."""
    text = question.text.strip()
    text = text[0].upper() + text[1:] + ("" if text.endswith(("?", ".", "!")) else "?")
    if not question.options:
        return f"{text}\nAnswer with one word or a short phrase."
    options = "\n".join(f"{letter}. {each}" for letter, each in zip(LETTERS, question.options, strict=False))
    return f"{text}\n{options}\nAnswer with the letter of the right option only."


def ask_each(asker: Asker, asks: Sequence[Ask]) -> list[str | Traced | UserError]:
    """The answers, or why there is none: a batch that is refused is asked one by one."""
    found: list[str | Traced | UserError] = []
    for start in range(0, len(asks), asker.batch):
        batch = asks[start : start + asker.batch]
        try:
            found += asker.ask(batch)
        except UserError as error:
            found += [error] if len(batch) == 1 else [_ask_one(asker, each) for each in batch]
    return found


def _ask_one(asker: Asker, ask: Ask) -> str | Traced | UserError:
    try:
        return asker.ask([ask])[0]
    except UserError as error:
        return error
