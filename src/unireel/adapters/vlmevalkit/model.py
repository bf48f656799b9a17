"""A Unireel model as VLMEvalKit wants it, and its place in VLMEvalKit's list of models."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

from unireel.adapters.answering import FRAMES, Answering, Request, Shown

# VLMEvalKit is installed from its repository, so it is no dependency that could be declared.
BaseModel = import_module("vlmeval.vlm.base").BaseModel
NAME = "unireel"


class Unireel(BaseModel):
    """A Unireel model that answers questions about films and pictures.

    A refused question gets an empty answer and a line on the standard error: one bad row does not end a run.

    Args:
        model: name, folder or hub id.
        device, dtype: as for :func:`unireel.load`.
        nframe: frames taken of each film; VLMEvalKit sets it to what a data set says.
    """

    INTERLEAVE = True
    VIDEO_LLM = True

    def __init__(
        self,
        model: str = "pocket/base",
        device: str | None = None,
        dtype: str | None = None,
        nframe: int | None = FRAMES,
    ) -> None:
        super().__init__()
        self.nframe = nframe
        self._answering = Answering(model, device, dtype, warn=partial(print, file=sys.stderr))

    def generate_inner(self, message: Sequence[dict[str, Any]], dataset: str | None = None) -> str:
        """The answer to one message: parts of ``type`` text, image or video, each with its ``value``."""
        self._answering.frames = self.nframe or FRAMES
        return self._answering.answer([read_message(message)])[0]


def read_message(message: Sequence[dict[str, Any]]) -> Request:
    """The words of a message and what they are about: its first film, else all its pictures."""
    values: dict[str, list[Any]] = {"text": [], "image": [], "video": []}
    for part in message:
        values[part["type"]].append(part["value"])
    films = values["video"]
    shown = Shown(str(films[0])) if films else Shown(pictures=tuple(values["image"]))
    return Request("\n".join(each.strip() for each in values["text"] if each.strip()), shown)


def register(model: str, name: str = NAME, **options: Any) -> None:
    """Make ``--model NAME`` mean a Unireel model; ``options`` as for :class:`Unireel`."""
    vars(import_module("vlmeval.vlm"))["Unireel"] = Unireel  # what a --config file names as "class"
    import_module("vlmeval.config").supported_VLM[name] = partial(Unireel, model=model, **options)
