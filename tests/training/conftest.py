"""Recipes of small runs, and what two runs have in common."""

from pathlib import Path

import pytest
import torch

from unireel.training import Recipe
from unireel.training import checkpoint as checkpoints


@pytest.fixture(autouse=True)
def _stages_are_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture
def recipe(tmp_path):
    """``recipe(name, **settings)``: a run of the small stage into a folder of its own."""

    def make(name: str = "run", **settings) -> Recipe:
        defaults = {"steps": 8, "log_every": 4, "checkpoint_minutes": 0.0, "tensorboard": False, "threads": 1}
        defaults["stage"] = "stages:RegressionStage"
        return Recipe(output=tmp_path / name, **{**defaults, **settings})

    return make


def final(recipe: Recipe) -> checkpoints.Checkpoint:
    """The newest checkpoint of a run."""
    path = checkpoints.newest(recipe.output / "checkpoints")
    assert path is not None
    return checkpoints.load(path)


def assert_same(one: checkpoints.Checkpoint, two: checkpoints.Checkpoint) -> None:
    """Equal bit for bit: step, every tensor, every random state."""
    assert one.step == two.step
    assert one.state["random"] == two.state["random"]
    assert one.tensors.keys() == two.tensors.keys()
    for stem, tensors in one.tensors.items():
        assert tensors.keys() == two.tensors[stem].keys()
        different = [name for name, t in tensors.items() if not torch.equal(t, two.tensors[stem][name])]
        assert not different, f"{stem}: {different}"
