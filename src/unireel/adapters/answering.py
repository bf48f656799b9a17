"""What the adapters share: films from whatever a benchmark hands over, and answers that are never an exception."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.videoqa.askers import Ask, Pipeline, ask_each, words_of
from unireel.evaluation.videoqa.formats import Question

FRAMES = 17
"""Frames taken of a film by default: as many as the pocket models see."""

KEPT_FILMS = 8
"""Decoded films that are remembered, as benchmarks ask several questions about one."""

PICTURES_PER_SECOND = 8.0
"""Rate of a film that is handed over as single pictures."""


@dataclass(frozen=True)
class Shown:
    """What a question is about: a film, or its part from ``start`` to ``end`` seconds; or pictures in order."""

    film: str | None = None
    start: float | None = None
    end: float | None = None
    pictures: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Request:
    """A question, what it is about, and the strings that end its answer."""

    text: str
    shown: Shown
    until: tuple[str, ...] = ()


class Answering:
    """A loaded model that answers requests in batches.

    Args:
        model: name, folder or hub id, as for :func:`unireel.load`.
        device, dtype: where and how it computes, by default as for :func:`unireel.load`.
        frames: taken of each film, evenly spread.
        batch: requests at once.
        warn: told about every request that has no answer.
    """

    def __init__(
        self,
        model: str,
        device: str | None = None,
        dtype: str | None = None,
        frames: int = FRAMES,
        batch: int = 16,
        warn: Callable[[str], None] = print,
    ) -> None:
        from unireel.hub import load

        self.model = load(model, device, dtype)
        if not hasattr(self.model, "ask_many"):
            raise UserError(f"the model '{model}' does not answer questions")
        self.frames, self.batch, self.warn = frames, batch, warn
        self._asker = Pipeline(self.model, batch)
        self._films: OrderedDict[tuple, Clip] = OrderedDict()

    def answer(self, requests: Sequence[Request]) -> list[str]:
        """The answers in order; empty, and warned about, where a film cannot be read or the question is refused."""
        starts = range(0, len(requests), self.batch)
        return [said for start in starts for said in self._batch(requests[start : start + self.batch])]

    def _batch(self, requests: Sequence[Request]) -> list[str]:
        found: list[str | UserError] = []
        asks: list[Ask] = []
        for each in requests:
            try:
                asks.append((self._film(each.shown), Question("", "", each.text)))
                found.append("")
            except UserError as error:
                found.append(error)
        said = (
            each if isinstance(each, UserError) else words_of(each) for each in ask_each(self._asker, asks)
        )
        found = [each if isinstance(each, UserError) else next(said) for each in found]
        for request, answer in zip(requests, found, strict=True):
            if isinstance(answer, UserError):
                self.warn(f"no answer to '{request.text[:80]}': {answer}")
        return [
            "" if isinstance(answer, UserError) else cut(answer, request.until)
            for request, answer in zip(requests, found, strict=True)
        ]

    def _film(self, shown: Shown) -> Clip:
        if shown.film is None:
            return film_of_pictures(shown.pictures)
        key = (shown.film, shown.start, shown.end, self.frames)
        if key not in self._films:
            path = Path(shown.film.removeprefix("file://"))
            self._films[key] = Clip.load(
                path, num_frames=self.frames, start=shown.start or 0.0, end=shown.end
            )
            if len(self._films) > KEPT_FILMS:
                self._films.popitem(last=False)
        self._films.move_to_end(key)
        return self._films[key]


def film_of_pictures(pictures: Sequence[Any]) -> Clip:
    """Pictures (PIL images, arrays, paths), the later ones brought to the size of the first, as one film.

    Raises:
        UserError: there are none, or one cannot be read.
    """
    if not pictures:
        raise UserError("the question comes without a film, and the model answers about films only")
    first, *rest = [_picture(each) for each in pictures]
    images = [first, *(each if each.size == first.size else each.resize(first.size) for each in rest)]
    return Clip.from_images(images, PICTURES_PER_SECOND)


def _picture(picture: Any) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture).convert("RGB")
    return Clip.load(Path(str(picture).removeprefix("file://"))).image(0)


def cut(answer: str, until: Sequence[str]) -> str:
    """``answer`` up to the first of the strings that end it."""
    for each in until:
        answer = answer.split(each, 1)[0] if each else answer
    return answer.strip()
