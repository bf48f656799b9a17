"""A run that was interrupted, in whatever way, ends as if it had not been."""

import dataclasses
import json
import os
import signal
import threading

import pytest
import torch
from processes import kill, kill_after_checkpoint, logs, start, wait_for_checkpoint

from conftest import assert_same, final
from unireel.errors import UserError
from unireel.training import checkpoint as checkpoints
from unireel.training import export_only, run
from unireel.training.recipe import EmaConfig, OptimizerConfig, ScheduleConfig

VARIANTS = [
    {"optimizer": OptimizerConfig("adamw")},
    {"optimizer": OptimizerConfig("muon"), "accumulate": 2, "workers": 2},
    {"optimizer": OptimizerConfig("muon"), "precision": "bf16", "prefetch": 0, "ema": EmaConfig(0.0)},
]


def _stopped_at(recipe, step):
    """The same run, stopped at ``step`` by the wish to stop; its schedule is that of the whole run."""
    stop_time = dataclasses.replace(recipe, max_minutes=1e-9, checkpoint_every=1)
    while True:
        assert not run(stop_time)
        if final(recipe).step == step:
            return


@pytest.mark.parametrize("settings", VARIANTS)
def test_one_run_is_two_halves_bit_for_bit(recipe, settings):
    settings = {**settings, "schedule": ScheduleConfig("cosine", warmup=2)}
    whole, halves = recipe("whole", **settings), recipe("halves", **settings)
    assert run(whole)
    _stopped_at(halves, 2)
    torch.manual_seed(99)
    assert run(halves, "always")
    assert_same(final(whole), final(halves))
    one, two = ((r.output / "export" / "weights.safetensors").read_bytes() for r in (whole, halves))
    assert one == two


def test_looking_logging_and_fetching_change_nothing(recipe):
    plain = recipe("plain", log_every=8)
    watched = recipe("watched", log_every=1, sample_every=1, evaluate_every=2, checkpoint_every=3, workers=1)
    assert run(plain) and run(watched)
    assert_same(final(plain), final(watched))
    assert (watched.output / "samples" / "step-00000008" / "predictions.png").is_file()


def test_kill_9_and_resume_is_bit_for_bit(recipe, tmp_path):
    settings = {"steps": 40, "checkpoint_every": 10, "stage_config": {"pause": 0.02}, "workers": 1}
    whole = recipe("whole", **settings)
    killed = dataclasses.replace(whole, output=tmp_path / "killed")
    # Killed within the next steps, of which nothing must remain.
    step = kill_after_checkpoint(killed, start(killed), seconds=0.05)
    assert step < 40 and final(killed).step < 40
    assert run(killed) and run(whole)
    assert_same(final(whole), final(killed))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_finish_the_step_and_leave_a_resumable_run(recipe, capfd, number):
    interrupted = recipe("run", steps=400, stage_config={"pause": 0.01})
    threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
    before = signal.getsignal(number)
    assert not run(interrupted)
    assert signal.getsignal(number) is before
    step = final(interrupted).step
    assert 0 < step < 400
    assert f"stopped at step {step} of 400: the same command goes on" in capfd.readouterr().err
    shorter = dataclasses.replace(interrupted, steps=step + 2)
    assert run(shorter)
    assert final(shorter).step == step + 2


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(recipe):
    whole, damaged = recipe("whole", checkpoint_every=4), recipe("damaged", checkpoint_every=4)
    assert run(whole) and run(damaged)
    victim = damaged.output / "checkpoints" / "step-00000008" / "model.safetensors"
    victim.write_bytes(victim.read_bytes()[:-3])
    with pytest.warns(UserWarning, match="damaged"):
        assert run(damaged)
    assert_same(final(whole), final(damaged))


def test_a_changed_recipe_is_refused_by_key_and_allowed_by_name(recipe):
    first = recipe(steps=4)
    assert run(first)
    changed = dataclasses.replace(
        first, steps=6, optimizer=OptimizerConfig(lr=5e-4), stage_config={"noise": 0.2}
    )
    with pytest.raises(
        UserError, match=r"optimizer.lr: was 0.001, is 0.0005; .*--allow|stage_config.noise: was 0.1"
    ):
        run(changed)
    with pytest.raises(UserError, match=r"recipe: optimizer.lr: was") as caught:
        run(changed, allow=["stage_config"])
    assert "noise" not in str(caught.value)
    assert run(changed, allow=["stage_config.noise", "optimizer"])
    watching = dataclasses.replace(
        changed, steps=7, log_every=1, workers=1, keep_last=1, checkpoint_minutes=3.0
    )
    assert run(watching)


def test_a_recipe_from_older_code_has_todays_defaults(recipe):
    first = recipe(steps=2)
    assert run(first)
    path = checkpoints.newest(first.output / "checkpoints")
    assert path is not None
    saved = checkpoints.load(path)
    del saved.state["recipe"]["clip_grad"], saved.state["recipe"]["stage_config"]["noise"]
    checkpoints.save(path.parent, saved, 1)
    assert run(dataclasses.replace(first, steps=3))
    checkpoints.save(path.parent, saved, 1)
    with pytest.raises(UserError, match=r"clip_grad: was 1\.0, is 2\.0"):
        run(dataclasses.replace(first, steps=3, clip_grad=2.0))


def test_resume_insists_and_fresh_puts_aside(recipe):
    settings = recipe(steps=2)
    with pytest.raises(UserError, match="no checkpoint to resume"):
        run(settings, "always")
    assert run(settings)
    first = final(settings)
    assert run(settings, "never")
    assert_same(final(settings), first)
    assert (settings.output / "before-1" / "checkpoints" / "step-00000002").is_dir()


def test_two_runs_do_not_share_a_folder(recipe):
    held = recipe("held", steps=1000, stage_config={"pause": 0.05}, checkpoint_every=2)
    started = start(held)
    try:
        wait_for_checkpoint(held, started)
        with pytest.raises(UserError, match="another run is writing"):
            run(held)
        assert started[0].pid is not None
        os.kill(started[0].pid, signal.SIGINT)
        started[0].join(60)
        assert started[0].exitcode == 0 and "stopped at step" in logs(held)
    finally:
        kill(started)


def test_metrics_grow_and_export_is_of_the_averaged_weights(recipe):
    from safetensors.torch import load_file

    settings = recipe(steps=6, log_every=2)
    assert run(settings)
    assert run(dataclasses.replace(settings, steps=8))
    lines = [json.loads(line) for line in (settings.output / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    assert all(line["loss"] > 0 and line["samples_per_second"] > 0 for line in lines)
    saved = final(settings)
    weights = load_file(settings.output / "export" / "weights.safetensors")
    for name, average in saved.tensors["ema"].items():
        assert torch.equal(weights[name], average)
        assert not torch.equal(average, saved.tensors["model"][name])
    assert int(weights["calls"]) == 8
    again = export_only(settings, settings.output / "again")
    assert (again / "weights.safetensors").read_bytes() == (
        settings.output / "export" / "weights.safetensors"
    ).read_bytes()


def test_a_loss_that_is_not_finite_ends_the_run_and_is_not_saved(recipe):
    settings = recipe(steps=400, log_every=1, stage_config={"noise": 1e30}, checkpoint_every=1)
    with pytest.raises(UserError, match="not finite at step"):
        run(settings)
    assert checkpoints.newest(settings.output / "checkpoints") is None


def test_an_unwritable_output_is_named(recipe, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to 'output'"):
        run(recipe("file/below"))
