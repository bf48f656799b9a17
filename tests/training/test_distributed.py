"""Two processes: the same numbers as one with both batches, and exact resume."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from processes import environment, finish, kill_after_checkpoint, start, wait_for_checkpoint
from safetensors.torch import load_file

from conftest import assert_same, final
from unireel.config import to_dict
from unireel.errors import UserError
from unireel.training import run
from unireel.training.recipe import OptimizerConfig

QUIET = {"noise": 0.0, "dropout": 0.0}
"""A process draws its own noise; without it a pair must do what one process does with both batches."""


def test_two_processes_learn_what_one_learns_from_both_batches(recipe):
    settings = {"steps": 3, "optimizer": OptimizerConfig("muon"), "stage_config": QUIET}
    one = recipe("one", accumulate=2, **settings)
    assert run(one)
    expected = final(one)
    for parallel in ("fsdp", "replicate"):
        two = recipe(parallel, parallel=parallel, **settings)
        finish(two, 2)
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


@pytest.mark.parametrize(("accumulate", "processes"), [(1, 1), (3, 1), (1, 2)])
def test_what_only_some_batches_log_is_averaged_over_those(recipe, accumulate, processes):
    mixed = recipe("mixed", stage="stages:MixedStage", steps=6, log_every=6, accumulate=accumulate)
    if processes == 1:
        assert run(mixed)
    else:
        finish(mixed, processes)
    line = json.loads((mixed.output / "metrics.jsonl").read_text().splitlines()[-1])
    count = 6 * accumulate * processes
    thirds = list(range(0, count, 3))
    assert line["third"] == pytest.approx(sum(thirds) / len(thirds))
    if accumulate == 1:  # else a mean of the updates' means
        others = [each for each in range(count) if each % 3]
        assert line["other"] == pytest.approx(sum(others) / len(others))


def test_kill_9_of_two_sharded_processes_and_resume_is_bit_for_bit(recipe, tmp_path):
    # 15 is odd: the shards of the two processes differ in size.
    settings = {"steps": 16, "checkpoint_every": 4, "stage_config": {"pause": 0.05, "width": 15}}
    whole = recipe("whole", **settings, optimizer=OptimizerConfig("muon"), sample_every=8, evaluate_every=8)
    killed = dataclasses.replace(whole, output=tmp_path / "killed")
    kill_after_checkpoint(killed, start(killed, 2))
    assert final(killed).step < 16
    with pytest.raises(UserError, match="has 2 processes, this is 1"):
        run(killed)
    finish(killed, 2)
    finish(whole, 2)
    assert_same(final(whole), final(killed))
    assert len(final(whole).state["random"]) == 2
    assert (whole.output / "samples" / "step-00000016" / "predictions.png").is_file()


def test_torchrun_starts_a_sharded_run_and_a_signal_stops_it_resumably(recipe, tmp_path):
    settings = recipe("run", steps=1000, checkpoint_every=2, stage_config={"pause": 0.02})
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(to_dict(settings)))
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words += ["-m", "unireel.cli.main", "train", str(path)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(words, env=environment(), stdout=log, stderr=log, start_new_session=True)
    try:
        step = wait_for_checkpoint(settings)
        process.terminate()
        process.wait(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert final(settings).step >= step
    assert "stopped at step" in (tmp_path / "log").read_text()
