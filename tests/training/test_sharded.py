"""Checkpoints in shards: whole or absent, exact, written while training goes on, read by any number of processes."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
import yaml
from processes import environment, finish, kill_after_checkpoint, start, wait_for_checkpoint
from safetensors.torch import load_file

from conftest import assert_same, final
from unireel.config import to_dict
from unireel.errors import UserError
from unireel.training import checkpoint as checkpoints
from unireel.training import run
from unireel.training.distributed import Parallel
from unireel.training.recipe import OptimizerConfig
from unireel.training.sharded import Writer

ALONE = Parallel(0, 1, torch.device("cpu"), sharded=False)


def test_what_is_written_is_the_state_at_the_start(tmp_path):
    weights = {"a": torch.arange(2_000_000.0), "number": torch.tensor(3.0)}
    writer = Writer(tmp_path, ALONE, keep_last=1)
    writer.start(7, {"model": weights}, {"recipe": {}})
    for tensor in weights.values():
        tensor.fill_(-1)  # training goes on at once
    writer.finish()
    read = checkpoints.load(tmp_path / "step-00000007", ("model",))
    assert read.step == 7 and checkpoints.check(tmp_path / "step-00000007") is None
    assert torch.equal(read.tensors["model"]["a"], torch.arange(2_000_000.0))
    assert read.tensors["model"]["number"].item() == 3.0
    writer.start(8, {"model": weights}, {})
    writer.finish()
    assert [step for step, _ in checkpoints.found(tmp_path)] == [8], "keep_last=1"


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the checkpoint"):
        Writer(tmp_path / "file", ALONE, 1).start(1, {"model": {"a": torch.ones(1)}}, {})


def test_one_process_resumes_exactly_in_either_format(recipe):
    whole = recipe("whole", optimizer=OptimizerConfig("muon"))
    assert run(whole)
    halves = recipe(
        "halves", optimizer=OptimizerConfig("muon"), checkpoint_format="sharded", checkpoint_every=4
    )
    assert run(dataclasses.replace(halves, steps=8))
    last = checkpoints.newest(halves.output / "checkpoints")
    assert last is not None and checkpoints.is_sharded(last)
    assert_same(final(whole), final(halves))
    for path in last.glob("shard-*"):  # a damaged one: the one before is taken
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.warns(UserWarning, match="is damaged"):
        assert run(dataclasses.replace(halves, checkpoint_format="whole"))
    assert_same(final(whole), final(halves))


def test_kill_9_and_resume_is_bit_for_bit_and_other_numbers_of_processes_go_on(recipe, tmp_path):
    # 15 is odd: the shards of the two processes differ in size.
    settings = {"steps": 12, "checkpoint_every": 3, "stage_config": {"pause": 0.05, "width": 15}}
    whole = recipe("whole", **settings, optimizer=OptimizerConfig("muon"))
    killed = dataclasses.replace(whole, output=tmp_path / "killed", checkpoint_format="sharded")
    kill_after_checkpoint(killed, start(killed, 2))
    assert final(killed).step < 12
    with pytest.raises(UserError, match="has 2 processes, this is 1"):
        run(killed)
    finish(killed, 2)
    finish(whole, 2)
    assert_same(final(whole), final(killed))
    weights = load_file(killed.output / "export" / "weights.safetensors")
    assert all(torch.equal(weights[key], each) for key, each in final(killed).tensors["ema"].items())
    longer = dataclasses.replace(killed, steps=13)
    assert run(longer, allow=["processes"])
    after = final(longer)
    assert after.state["processes"] == 1
    assert after.state["seen"] == 12 * 2 + 1, "batches go on where they were"


def test_torchrun_starts_again_after_a_worker_is_killed_with_the_same_losses(recipe, tmp_path):
    settings = recipe("killed", steps=14, log_every=1, checkpoint_every=4, checkpoint_format="sharded",
                      stage_config={"pause": 0.1})  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(to_dict(settings)))
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words += ["--max-restarts", "1", "-m", "unireel.cli.main", "train", str(path)]
    variables = {**environment(), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(words, env=variables, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for_checkpoint(settings)
        time.sleep(0.1)
        workers = psutil.Process(process.pid).children()
        next(each for each in workers if each.environ().get("RANK") == "1").kill()
        assert process.wait(timeout=120) == 0, (tmp_path / "log").read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert "resumed at step" in (tmp_path / "log").read_text()
    undisturbed = dataclasses.replace(settings, output=tmp_path / "undisturbed")
    finish(undisturbed, 2)
    assert_same(final(undisturbed), final(settings))
    curves = [
        {record["step"]: record["loss"] for record in map(json.loads, lines.read_text().splitlines())}
        for lines in (each.output / "metrics.jsonl" for each in (settings, undisturbed))
    ]
    assert curves[0] == curves[1] and len(curves[0]) == 14
