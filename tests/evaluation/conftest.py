"""Plans and models without weights."""

from collections.abc import Callable

import pytest

from unireel.evaluation.worldbench import Plan, Setting, all_tasks, chosen_parts

MakePlan = Callable[..., Plan]


@pytest.fixture
def plan() -> MakePlan:
    """``plan("t2v/motion,qa/style", n=4)``: a small plan."""

    def make(names: str, n: int, split: str = "test", batch: int = 8) -> Plan:
        parts = tuple(chosen_parts(names.split(","), all_tasks()))
        return Plan(parts, n, Setting(split, seed=3, size=48, batch=batch))

    return make
