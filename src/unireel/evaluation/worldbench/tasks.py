"""The tasks of WorldBench, and what names on a command line mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from unireel.errors import UsageError
from unireel.evaluation.worldbench.editing import Edits
from unireel.evaluation.worldbench.generation import ImageToVideo, TextToVideo
from unireel.evaluation.worldbench.images import TextToImage
from unireel.evaluation.worldbench.joint import Joint
from unireel.evaluation.worldbench.needles import Needles
from unireel.evaluation.worldbench.task import Task
from unireel.evaluation.worldbench.understanding import Captions, Questions


def all_tasks() -> tuple[Task, ...]:
    """Every task, in the order in which they are measured."""
    return Captions(), Questions(), Needles(), Edits(), Joint(), TextToImage(), ImageToVideo(), TextToVideo()


def chosen_parts(names: Iterable[str], tasks: Sequence[Task]) -> list[tuple[Task, str]]:
    """The parts that ``names`` mean, each once, in the tasks' own order; hyphens and underscores stand for spaces.

    Raises:
        UsageError: a name means nothing, or there are none.
    """
    meanings: dict[str, tuple[str, ...]] = {}
    for task in tasks:
        meanings |= task.groups()
    wanted: set[str] = set()
    for name in names:
        plain = name.strip().replace("-", " ").replace("_", " ")
        if plain not in meanings:
            accepted = ", ".join(each.replace(" ", "-") for each in meanings)
            raise UsageError(f"unknown category '{name.strip()}'; accepted: {accepted}")
        wanted.update(meanings[plain])
    if not wanted:
        raise UsageError("name at least one category, for example 't2v,qa'")
    return [(task, part) for task in tasks for part in task.parts if part in wanted]
