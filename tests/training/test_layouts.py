"""Two and four processes in every layout learn what one process learns: split weights, copies of them, split tokens."""

# Modules of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false

import dataclasses
import json

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from processes import finish, kill, logs, start

from conftest import final
from unireel.errors import UsageError
from unireel.training import Recipe, run
from unireel.training.recipe import ScheduleConfig

STEPS, BATCHES = 4, 4
LAYOUTS = {
    "4 shards": (4, {}),
    "2 copies of 2 shards": (4, {"shards": 2}),
    "2 copies of 2 shards, tokens of 2 batches split in 2": (4, {"shards": 2, "sequence": 2}),
    "tokens split in 2": (2, {"parallel": "replicate", "sequence": 2}),
}


def losses(settings: Recipe) -> list[float]:
    lines = (settings.output / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.fixture
def films(recipe):
    """``films(name, **settings)``: a run of the film stage that logs every step."""

    def make(name: str, **settings) -> Recipe:
        defaults = {"stage": "film_stage:FilmStage", "steps": STEPS, "log_every": 1, "precision": "fp32"}
        return recipe(name, **{**defaults, "schedule": ScheduleConfig(warmup=0), **settings})

    return make


@pytest.fixture
def alone(films) -> Recipe:
    """What one process does with all batches."""
    one = films("one", accumulate=BATCHES)
    assert run(one)
    assert len(set(losses(one))) == STEPS
    return one


def test_all_layouts_learn_what_one_process_learns(films, alone):
    expected = final(alone)
    for number, (name, (processes, settings)) in enumerate(LAYOUTS.items()):
        accumulate = BATCHES * settings.get("sequence", 1) // processes
        several = films(f"layout-{number}", accumulate=accumulate, checkpoint_format="sharded", **settings)
        finish(several, processes)
        np.testing.assert_allclose(losses(several), losses(alone), rtol=2e-5, err_msg=name)
        found = final(several)
        for key, tensor in expected.tensors["model"].items():
            torch.testing.assert_close(
                found.tensors["model"][key], tensor, rtol=1e-3, atol=1e-4, msg=f"{name}: {key}"
            )
        exported = WanTransformer3DModel.from_pretrained(several.output / "export" / "transformer")
        for key, tensor in exported.state_dict().items():
            assert torch.equal(tensor, found.tensors["ema"][f"transformer.{key}"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sequence": 2, "stage_config": {"heads": 3}}, "does not divide the 3 heads"),
        ({"sequence": 2, "stage_config": {"latents": (3, 2, 6)}}, "does not divide the 9 tokens"),
        ({"sequence": 3}, "'sequence' is 3, which does not divide the 2 processes"),
        ({"stage": "stages:RegressionStage", "sequence": 2}, "no model that diffusers can split"),
    ],
)
def test_what_cannot_be_split_is_said(films, settings, message):
    several = films("bad", **settings)
    started = start(several, 2)
    try:
        for process in started:
            process.join(120)
        assert all(process.exitcode for process in started)
    finally:
        kill(started)
    assert message in logs(several)


def test_one_process_splits_nothing(films):
    with pytest.raises(UsageError, match="there is one process"):
        run(films("one", sequence=2))
    assert run(dataclasses.replace(films("one"), shards=2))
