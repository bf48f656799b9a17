"""Recipes of small runs, runs in processes of their own, and what two runs have in common."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from unireel.training import Recipe
from unireel.training import checkpoint as checkpoints

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent / "src"


@pytest.fixture(autouse=True)
def _stages_are_importable(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture
def recipe(tmp_path):
    """``recipe(name, **settings)``: a run of the small stage into a folder of its own."""

    def make(name: str = "run", **settings) -> Recipe:
        defaults = {"steps": 8, "log_every": 4, "checkpoint_minutes": 0.0, "tensorboard": False}
        return Recipe(stage="stages:RegressionStage", output=tmp_path / name, **{**defaults, **settings})

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


def write(recipe_path: Path, **settings) -> Path:
    """A recipe file."""
    recipe_path.write_text(yaml.safe_dump(settings))
    return recipe_path


def command(path: Path, *overrides: str) -> list[str]:
    """The words that start a run from a recipe file in a process of its own."""
    return [sys.executable, "-m", "unireel.cli.main", "train", str(path), *overrides]


def environment(**more: str) -> dict[str, str]:
    """The environment in which a process of its own finds the package and the stages."""
    path = os.pathsep.join([str(SOURCE), str(HERE), os.environ.get("PYTHONPATH", "")])
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MKL_NUM_THREADS": "1"}
    return {**os.environ, **quiet, "PYTHONPATH": path, **more}


def start(words: list[str], log: Path, **more: str) -> subprocess.Popen:
    """A process with its output in ``log``, at the head of a process group."""
    with log.open("ab") as file:
        return subprocess.Popen(
            words, stdout=file, stderr=file, env=environment(**more), start_new_session=True
        )


def wait_for_checkpoint(folder: Path, processes: list[subprocess.Popen], seconds: float = 300) -> int:
    """Wait until a run has written a checkpoint; its step."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = checkpoints.found(folder / "checkpoints")
        if found:
            return found[-1][0]
        assert all(process.poll() is None for process in processes), (
            "the run ended before its first checkpoint"
        )
        time.sleep(0.01)
    raise AssertionError("no checkpoint in time")
