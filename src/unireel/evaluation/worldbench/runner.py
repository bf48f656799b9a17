"""The run of an evaluation: what is still missing is done batch by batch, then everything is added up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from unireel.errors import UserError
from unireel.evaluation.intervals import Score, rate
from unireel.evaluation.worldbench.ledger import Ledger
from unireel.evaluation.worldbench.setting import Setting
from unireel.evaluation.worldbench.task import Model, Task
from unireel.world import agreement

CHECKER_FILMS = 100
CHECKER_CORRUPTION = "all"
"""What is done to the films on which the checker itself is measured: about what a decoder does."""


@dataclass(frozen=True)
class Plan:
    """What is measured: the parts, each with its task, and ``n`` items of each (at least 1)."""

    parts: tuple[tuple[Task, str], ...]
    n: int
    setting: Setting


@dataclass(frozen=True)
class Result:
    """All figures of an evaluation; ``checker`` has "agreement" and "rejection" of the judge itself."""

    model: str
    split: str
    seed: int
    scores: dict[str, Score]
    checker: dict[str, Score]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: {"model", "split", "seed", "scores": {key: {"value", "low", "high", "n"}}, "checker"}."""
        return asdict(self)


Advance = Callable[[str, int, int, float], None]
"""Called with (task, items done, items of the task still missing, seconds that took)."""


def evaluate(model: Model, name: str, plan: Plan, ledger: Ledger, advance: Advance | None = None) -> Result:
    """Do what ``ledger`` has no record of, and add everything up, see :func:`work` and :func:`result`."""
    work(model, plan, ledger, advance)
    return result(name, plan, ledger)


def work(model: Model, plan: Plan, ledger: Ledger, advance: Advance | None = None) -> int:
    """Do what ``ledger`` has no record of and is to be done here.

    Args:
        model: what is judged.
        advance: told about every finished batch.

    Returns:
        How many items still have no record: those of other shards.

    Raises:
        UserError: the ledger was written with another World.
    """
    for task, part in plan.parts:
        _check_same_world(task, part, plan, ledger)
    todo = {part: ledger.missing(part, plan.n) for _, part in plan.parts}
    for task, part in plan.parts:
        size = task.batch_factor * plan.setting.batch
        while indices := todo[part][:size]:
            begun = time.perf_counter()
            items = [task.item(part, index, plan.setting) for index in indices]
            outcomes = task.run(model, items, plan.setting)
            seconds = time.perf_counter() - begun
            ledger.append(outcomes, seconds)
            todo[part] = todo[part][size:]
            if advance:
                left = sum(len(todo[each]) for other, each in plan.parts if other is task)
                advance(task.name, len(items), left, seconds)
    ledger.refresh()
    return sum(ledger.left(part, plan.n) for _, part in plan.parts)


def result(name: str, plan: Plan, ledger: Ledger) -> Result:
    """What follows from the records there are; ``name`` is what the model is called."""
    setting = plan.setting
    return Result(name, setting.split, setting.seed, add_up(plan, ledger), checker_scores(setting))


def add_up(plan: Plan, ledger: Ledger) -> dict[str, Score]:
    """The scores of all tasks from the records there are."""
    scores: dict[str, Score] = {}
    for task in dict.fromkeys(task for task, _ in plan.parts):
        records = {part: ledger.done(part, plan.n) for other, part in plan.parts if other is task}
        scores |= task.scores({part: found for part, found in records.items() if found})
    return scores


def checker_scores(setting: Setting) -> dict[str, Score]:
    """How far the judge can be trusted, measured now on films of the same split, blurred, noisy and compressed.

    "agreement": of statements true of a film, the share it accepts; "rejection": of false ones, the share it rejects.
    """
    tallies = agreement.measure(
        CHECKER_FILMS, setting.size, setting.seed, CHECKER_CORRUPTION, setting.split
    ).values()
    return {
        "agreement": _share(sum(t.accepted for t in tallies), sum(t.trues for t in tallies)),
        "rejection": _share(sum(t.rejected for t in tallies), sum(t.falses for t in tallies)),
    }


def _share(successes: int, n: int) -> Score:
    return rate([True] * successes + [False] * (n - successes))


def _check_same_world(task: Task, part: str, plan: Plan, ledger: Ledger) -> None:
    """The first item of every part shows whether the World still says what it said when the ledger was begun."""
    first: Mapping[str, Any] = next(iter(ledger.done(part, 1)), {})
    said = first.get("prompt", first.get("question"))
    if said is not None and said != task.item(part, 0, plan.setting).text:
        raise UserError(
            f"{ledger.folder} was begun with another version of the World; name a new folder with --out"
        )
