"""Recipes: what is refused before anything is built."""

import pytest

from unireel.config import from_dict
from unireel.errors import UsageError
from unireel.training import Recipe, load_recipe
from unireel.training.recipe import build_stage, plain, stage_class

LEAST = {"stage": "stages:RegressionStage", "output": "runs/x", "steps": 5}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "'steps' is 0: it must be 1 or more"),
        ({"seed": -1}, "'seed'"),
        ({"optimizer": {"lr": 0.0}}, "optimizer: 'lr' is 0.0: it must be above 0"),
        ({"optimizer": {"name": "sgd"}}, "'optimizer.name' is 'sgd': it must be one of adamw, muon"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "optimizer: 'betas'"),
        ({"schedule": {"final": 2}}, "schedule: 'final'"),
        ({"ema": {"decay": 1.0}}, "ema: 'decay'"),
        ({"learning_rate": 1e-3}, "unknown key 'learning_rate'"),
        ({"precision": "fp16"}, "one of auto, fp32, bf16"),
        ({"log_every": 0}, "'log_every'"),
        ({"max_minutes": -1}, "'max_minutes'"),
    ],
)
def test_settings_that_cannot_be(change, words):
    with pytest.raises(UsageError) as caught:
        from_dict(Recipe, {**LEAST, **change})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("stages", "of the form package.module:Class"),
        ("nowhere.at_all:Stage", "there is no module nowhere"),
        ("stages:Nothing", "has no Stage named Nothing"),
        ("stages:Network", "has no Stage named Network"),
    ],
)
def test_stages_that_are_not_there(stage, words):
    with pytest.raises(UsageError, match=words):
        stage_class(from_dict(Recipe, {**LEAST, "stage": stage}))


def test_the_stages_own_settings_are_strict_too():
    recipe = from_dict(Recipe, {**LEAST, "stage_config": {"widht": 3}})
    with pytest.raises(UsageError, match=r"'stage_config\.widht': did you mean 'stage_config\.width'"):
        build_stage(recipe)


def test_plain_writes_every_default_out(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("stage: stages:RegressionStage\noutput: out\nsteps: 3\nstage_config: {width: 8}\n")
    data = plain(load_recipe(path, ["optimizer.lr=2e-4"]))
    assert data["stage_config"]["width"] == 8 and data["stage_config"]["batch_size"] == 8
    assert data["optimizer"]["lr"] == 2e-4 and data["ema"]["decay"] == 0.999


def test_the_same_seed_builds_the_same_weights():
    def weight(seed):
        return build_stage(from_dict(Recipe, {**LEAST, "seed": seed})).module.state_dict()["head.weight"]

    assert weight(3).equal(weight(3)) and not weight(3).equal(weight(4))
