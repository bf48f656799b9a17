"""What every task of WorldBench offers, and what a model has to offer to be judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from unireel.clip import Clip
from unireel.evaluation.intervals import Score
from unireel.evaluation.page import Strip
from unireel.evaluation.worldbench.setting import Setting
from unireel.world.scene import Scene

Record = dict[str, Any]
"""One judged item as plain JSON: its "part" and "index", what was asked, what the model did, the verdict."""


class Statement(Protocol):
    """An answer or a caption."""

    @property
    def text(self) -> str: ...
    @property
    def confidence(self) -> float: ...


class Model(Protocol):
    """The part of a pipeline that WorldBench uses; ``size`` is the side of its films in pixels."""

    @property
    def size(self) -> int: ...

    def generate_many(
        self,
        prompts: Sequence[str],
        images: Sequence[np.ndarray] | None = None,
        seeds: Sequence[int] | None = None,
        frames: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        batch_size: int = 16,
    ) -> list[Clip]: ...

    def ask_many(self, pairs: Sequence[tuple[Clip, str]], batch_size: int = 32) -> Sequence[Statement]: ...

    def caption_many(self, clips: Sequence[Clip], batch_size: int = 32) -> Sequence[Statement]: ...


class Item(Protocol):
    """One thing to do: number ``index`` of ``part``, about ``scene``; ``text`` is the words the model is given."""

    @property
    def part(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def scene(self) -> Scene: ...
    @property
    def text(self) -> str: ...


@dataclass(frozen=True)
class Outcome:
    """What came of one item: its record, and the film if the model made one."""

    record: Record
    film: Clip | None = None


@dataclass(frozen=True)
class Exhibit:
    """A judged film for the report.

    ``heading``: the prompt or the question. ``lines``: (whether right, or None; words). ``film``: content of a WebP
    file, ``faster`` times as fast as the film is. ``first``: content of the PNG of the first frame that was given, if
    one was. ``source``: content of the WebP file of the film that was given, if one was. ``strips``: the frames that
    the model looked at, where it chose them itself.
    """

    part: str
    right: bool
    heading: str
    lines: tuple[tuple[bool | None, str], ...]
    film: bytes
    first: bytes | None = None
    source: bytes | None = None
    strips: tuple[Strip, ...] = ()
    faster: int = 1


class Task(ABC):
    """A kind of work that is measured. Its parts are sequences of items, each with ``n`` items in an evaluation.

    A new task is a subclass and an entry in :func:`unireel.evaluation.worldbench.tasks.all_tasks`.
    """

    name: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    needs: ClassVar[str]
    """The method without which a model cannot do it."""

    batch_factor: ClassVar[int] = 1
    """Items of one batch, in batches of films."""

    def __init__(self) -> None:
        self._items: dict[tuple[Setting, str, int], Item] = {}

    def groups(self) -> dict[str, tuple[str, ...]]:
        """What a person may ask for, and the parts that this means."""
        return {self.name: self.parts, **{part: (part,) for part in self.parts}}

    def item(self, part: str, index: int, setting: Setting) -> Any:
        """Item number ``index`` (from 0) of ``part``: always the same for the same setting.

        Items are remembered: sampling a scene costs as much as judging a film, and the report asks for it again.
        """
        key = (setting, part, index)
        if key not in self._items:
            self._items[key] = self.draw(part, index, setting)
        return self._items[key]

    @abstractmethod
    def draw(self, part: str, index: int, setting: Setting) -> Item:
        """Make item number ``index`` of ``part`` for :meth:`item`."""

    @abstractmethod
    def run(self, model: Model, items: Sequence[Any], setting: Setting) -> list[Outcome]:
        """Have the model do a batch of items of one part, and judge what it did."""

    @abstractmethod
    def scores(self, records: Mapping[str, Sequence[Record]]) -> dict[str, Score]:
        """The figures that follow from the records of some or all parts."""

    @abstractmethod
    def exhibits(self, part: str, records: Sequence[Record], setting: Setting, films: Path) -> list[Exhibit]:
        """Successes and failures of one part; ``films`` is the folder of the films that were kept."""
