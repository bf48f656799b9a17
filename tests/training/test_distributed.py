"""Two processes: the same numbers as one with both batches, and exact resume."""

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from conftest import assert_same, command, environment, final, start, wait_for_checkpoint, write
from unireel.config import to_dict
from unireel.errors import UserError
from unireel.training import run
from unireel.training.recipe import OptimizerConfig, Recipe

QUIET = {"noise": 0.0, "dropout": 0.0}
"""A process draws its own noise; without it a pair must do what one process does with both batches."""


def _pair(path: Path, log: Path) -> list[subprocess.Popen]:
    """Two processes that know of each other as torchrun's would, without its start-up time."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        start(command(path), log.with_suffix(f".{rank}"), RANK=str(rank), LOCAL_RANK=str(rank), **together)
        for rank in (0, 1)
    ]


def _finish(recipe: Recipe, folder: Path) -> None:
    path = write(folder / f"{recipe.output.name}.yaml", **to_dict(recipe))
    log = folder / f"{recipe.output.name}.log"
    codes = [process.wait(timeout=240) for process in _pair(path, log)]
    assert codes == [0, 0], log.with_suffix(".0").read_text() + log.with_suffix(".1").read_text()


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_two_processes_learn_what_one_learns_from_both_batches(recipe, tmp_path, name):
    # Dropout draws differently in each process; the stage below has none.
    settings = {
        "steps": 3,
        "optimizer": OptimizerConfig(name, lr=1e-3),
        "stage_config": {"dropout": 0.0, **QUIET},
    }
    one = recipe("one", accumulate=2, **settings)
    assert run(one)
    expected = final(one)
    for parallel in ("fsdp", "replicate"):
        two = recipe(parallel, parallel=parallel, **settings)
        _finish(two, tmp_path)
        found = final(two)
        for stem, tensors in expected.tensors.items():
            assert tensors.keys() == found.tensors[stem].keys()
            for key, tensor in tensors.items():
                if key != "calls":  # counts forward passes: two here, one there
                    torch.testing.assert_close(
                        found.tensors[stem][key], tensor, rtol=1e-3, atol=2e-5, msg=key
                    )
        weights = load_file(two.output / "export" / "weights.safetensors")
        for key, tensor in found.tensors["ema"].items():
            assert torch.equal(weights[key], tensor)


def test_kill_9_of_two_sharded_processes_and_resume_is_bit_for_bit(recipe, tmp_path):
    settings = {"steps": 16, "checkpoint_every": 4, "stage_config": {"pause": 0.05, "width": 15}}
    whole = recipe("whole", **settings, optimizer=OptimizerConfig("muon"), sample_every=8, evaluate_every=8)
    killed = dataclasses.replace(whole, output=tmp_path / "killed")
    path = write(tmp_path / "killed.yaml", **to_dict(killed))
    pair = _pair(path, tmp_path / "killed.log")
    wait_for_checkpoint(killed.output, pair)
    time.sleep(0.1)
    for process in pair:
        os.kill(process.pid, signal.SIGKILL)
    for process in pair:
        process.wait()
    assert final(killed).step < 16
    with pytest.raises(UserError, match="has 2 processes, this is 1"):
        run(killed)
    _finish(killed, tmp_path)
    _finish(whole, tmp_path)
    assert_same(final(whole), final(killed))
    assert len(final(whole).state["random"]) == 2
    assert (whole.output / "samples" / "step-00000016" / "predictions.png").is_file()


def test_torchrun_starts_a_sharded_run_and_a_signal_stops_it_resumably(recipe, tmp_path):
    settings = recipe("run", steps=1000, checkpoint_every=2, stage_config={"pause": 0.02})
    path = write(tmp_path / "r.yaml", **to_dict(settings))
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words += ["-m", *command(path)[2:]]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(words, env=environment(), stdout=log, stderr=log, start_new_session=True)
    try:
        step = wait_for_checkpoint(settings.output, [process])
        process.terminate()
        process.wait(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert final(settings).step >= step
    assert "stopped at step" in (tmp_path / "log").read_text()
