"""A plug-in for lmms-eval (0.7): ``lmms-eval --model unireel --model_args pretrained=pocket/base --tasks ...``.

lmms-eval finds it by the entry point ``lmms_eval.models``; nothing has to be changed there.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from tqdm import tqdm

from unireel.adapters.answering import FRAMES, Answering, Request, Shown
from unireel.errors import UsageError

NAME = "unireel"
LOG = logging.getLogger(__name__)


def manifests() -> ModelManifest:
    """What the entry point hands to lmms-eval."""
    return ModelManifest(NAME, chat_class_path=f"{__name__}.Unireel")


class Unireel(lmms):
    """A Unireel model that answers questions about films and pictures.

    A question that the model refuses, or whose film cannot be read, gets an empty answer and a warning: one bad row
    does not end a run, and no answer is made up.

    Args:
        pretrained: model name, folder or hub id.
        device, dtype: as for :func:`unireel.load`; lmms-eval gives ``device`` if ``--device`` was used.
        batch_size: questions at once.
        num_frames: taken of each film.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str = "pocket/base",
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | str = 16,
        num_frames: int = FRAMES,
        **unknown: Any,
    ) -> None:
        super().__init__()
        # lmms-eval hands over options of its own to every model.
        unknown.pop("max_batch_size", None)
        if unknown:
            raise UsageError(
                f"the model '{NAME}' has no argument '{next(iter(unknown))}'; "
                "accepted: pretrained, device, dtype, batch_size, num_frames"
            )
        self.batch_size = int(batch_size)
        self._answering = Answering(
            pretrained, own_device(device), dtype, num_frames, self.batch_size, LOG.warning
        )

    @property
    def device(self) -> Any:
        """Where the model is."""
        return self._answering.model.device

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """One answer for each request, in order."""
        answers: list[str] = []
        with tqdm(total=len(requests), disable=self.rank != 0, desc="answering") as progress:
            for start in range(0, len(requests), self.batch_size):
                batch = requests[start : start + self.batch_size]
                said = self._answering.answer([self._request(*each.args) for each in batch])
                for each, answer in zip(batch, said, strict=True):
                    context, _, options, *_ = each.args
                    self.cache_hook.add_partial("generate_until", (context, options), answer)
                answers += said
                progress.update(len(batch))
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered: the model answers in its own words."""
        raise UsageError(
            f"the model '{NAME}' has no probabilities of given answers: use a task that generates"
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered: the model answers one question at a time."""
        raise UsageError(f"the model '{NAME}' answers one question at a time: use a task of one round")

    def _request(
        self, context: str, messages_of: Any, options: Mapping[str, Any], doc: int, task: str, split: str
    ) -> Request:
        """The six arguments of a chat task's instance."""
        until = options.get("until") or ()
        stops = (until,) if isinstance(until, str) else tuple(until)
        text, shown = read_messages(messages_of(self.task_dict[task][split][doc]))
        return Request(text, shown, stops)


def own_device(device: str | None) -> str | None:
    """``device``; where lmms-eval was started once for each GPU and none was named, this process's own."""
    rank = os.environ.get("LOCAL_RANK")
    several = rank is not None and device in (None, "cuda") and torch.cuda.is_available()
    return f"cuda:{rank}" if several else device


def read_messages(messages: Sequence[Mapping[str, Any]]) -> tuple[str, Shown]:
    """The words of the user's turns and what they show: the first film, else all pictures.

    Raises:
        UsageError: something else than words, pictures and films is in them.
    """
    words: list[str] = []
    films: list[Shown] = []
    pictures: list[Any] = []
    for message in messages:
        if message["role"] != "user":
            continue
        for part in message["content"]:
            if part["type"] == "text":
                words.append(part["text"])
            elif part["type"] == "image":
                pictures.append(part["url"])
            elif part["type"] == "video":
                films.append(_film(part))
            else:
                raise UsageError(f"the model '{NAME}' takes words, pictures and films, not '{part['type']}'")
    shown = films[0] if films else Shown(pictures=tuple(pictures))
    return "\n".join(each.strip() for each in words if each.strip()), shown


def _film(part: Mapping[str, Any]) -> Shown:
    url, start, end = part["url"], part.get("start_time"), part.get("end_time")
    if isinstance(url, Mapping):  # tasks with parts of films put these facts one level deeper
        start, end = url.get("video_start", start), url.get("video_end", end)
        url = url.get("url") or url.get("path") or url.get("video")
    if isinstance(url, str):
        return Shown(url, start, end)
    return Shown(pictures=() if url is None else tuple(url))
