"""Making the films of a benchmark in its own file layout: resumable, divided into shards, failures listed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.journal import Journal
from unireel.evaluation.shards import Shard
from unireel.world.scene import stable_hash


class Generator(Protocol):
    """What is asked to make films."""

    def generate_many(self, prompts: Sequence[str], **options: Any) -> list[Clip]:
        """One film for each prompt; ``options`` are ``seeds``, ``frames``, ``steps``, ``guidance``, ``batch_size``."""
        ...


@dataclass(frozen=True)
class Wanted:
    """A film to make: where it goes (relative to the layout's folder), of what, and with which noise."""

    path: Path
    prompt: str
    seed: int


@dataclass(frozen=True)
class Options:
    """How films are sampled; None leaves it to the model. ``scale`` enlarges the pixels of the files."""

    frames: int | None = None
    steps: int | None = None
    guidance: float | None = None
    batch: int = 8
    scale: int = 1


Advance = Callable[[int, int, float], None]
"""Called with (films made or given up, films left, seconds that took)."""


def seed_of(seed: int, name: str, sample: int) -> int:
    """The seed of one film, in [0, 2**31): another for each sample, the same whatever else is made."""
    return stable_hash(f"{seed}/{name}/{sample}") % 2**31


def shard(wanted: Sequence[Wanted], which: str | None) -> list[Wanted]:
    """The part of ``wanted`` that ``which`` names, see :class:`Shard`; all without it.

    Raises:
        UsageError: not of that form.
    """
    return list(wanted) if which is None else list(wanted[Shard.read(which).items])


def missing(wanted: Sequence[Wanted], folder: Path) -> list[Wanted]:
    """What is not there yet: files appear whole or not at all, so a file that exists is done."""
    return [each for each in wanted if not (folder / each.path).exists()]


def make(
    model: Generator,
    wanted: Sequence[Wanted],
    folder: Path,
    options: Options,
    failures: Journal,
    advance: Advance | None = None,
) -> int:
    """Make the films that are missing, batch by batch; each is on the disk before the next batch begins.

    A prompt that the model refuses (:class:`UserError`) is written to ``failures`` and passed over; a rerun tries it
    again.

    Returns:
        How many films were made.
    """
    todo = missing(wanted, folder)
    made = 0
    for start in range(0, len(todo), options.batch):
        batch = todo[start : start + options.batch]
        begun = time.perf_counter()
        made += len(_make_batch(model, batch, folder, options, failures))
        if advance:
            advance(len(batch), len(todo) - start - len(batch), time.perf_counter() - begun)
    return made


def _make_batch(
    model: Generator, batch: Sequence[Wanted], folder: Path, options: Options, failures: Journal
) -> list[Wanted]:
    """Make a batch; if the model refuses it, one by one, so that one bad prompt costs no other film."""
    try:
        clips = model.generate_many(
            [each.prompt for each in batch],
            seeds=[each.seed for each in batch],
            frames=options.frames,
            steps=options.steps,
            guidance=options.guidance,
            batch_size=options.batch,
        )
    except UserError as error:
        if len(batch) == 1:
            failures.append(
                [{"id": batch[0].path.as_posix(), "prompt": batch[0].prompt, "error": str(error)}]
            )
            return []
        return [done for each in batch for done in _make_batch(model, [each], folder, options, failures)]
    for each, clip in zip(batch, clips, strict=True):
        path = folder / each.path
        path.parent.mkdir(parents=True, exist_ok=True)
        clip.save(path, scale=options.scale)
    return list(batch)
