"""The reinforcement stage: verdicts are the checker's, batches are pure, and the policy follows what is trained."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportIndexIssue=false

import json
import shutil

import numpy as np
import pytest
import torch

import unireel
from unireel.data.cache import CacheConfig, build
from unireel.data.world import films, scenes
from unireel.errors import UserError
from unireel.systems.base.stages.reinforcement import ReinforcementConfig, ReinforcementStage
from unireel.systems.base.stages.verdicts import film_reward, picture_reward
from unireel.world.language import prompt_for

SMALL = {"film_count": 12, "used_films": 12, "groups": 2, "drawn": 2, "picture_groups": 2, "steps": 2}


@pytest.fixture(scope="module")
def model(untrained, tmp_path_factory):
    """The untrained model, taken as one that predicts data."""
    folder = tmp_path_factory.mktemp("reinforced") / "model"
    shutil.copytree(untrained, folder)
    card = json.loads((folder / "unireel.json").read_text())
    card["settings"] |= {"prediction": "data", "restart": 0.5}
    (folder / "unireel.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    build(folder, CacheConfig(12, 48), progress=False)
    return folder


def stage_of(model, cache, **settings) -> ReinforcementStage:
    torch.manual_seed(0)
    config = ReinforcementConfig(films=str(cache), start_from=str(model), **(SMALL | settings))
    return ReinforcementStage(config)


def test_a_true_film_gets_all_and_the_film_of_another_scene_less():
    some = scenes(3, 0, 12, 48, "train")
    frames = films(some)
    own = [
        film_reward(film, scene, prompt_for(scene, 1).facts) for film, scene in zip(frames, some, strict=True)
    ]
    assert np.mean([reward for reward, _ in own]) > 0.99
    other = zip(np.roll(frames, 1, axis=0), some, strict=True)
    rewards = [film_reward(film, scene, prompt_for(scene, 1).facts) for film, scene in other]
    assert max(reward for reward, _ in rewards) < 0.9
    assert not any(right for _, right in rewards)


def test_first_frames_are_judged_by_what_they_can_show():
    some = scenes(3, 0, 12, 48, "train")
    frames = films(some)
    for film, scene in zip(frames, some, strict=True):
        assert picture_reward(film[0], film[0], scene) == (1.0, True)
    wrong = [
        picture_reward(other[0], film[0], scene)
        for other, film, scene in zip(np.roll(frames, 1, axis=0), frames, some, strict=True)
    ]
    assert (
        sum(right for _, right in wrong) <= 1
    )  # two black backgrounds with nothing on them yet would be alike
    assert np.mean([reward for reward, _ in wrong]) < 0.6


def test_batches_are_a_pure_function_of_their_number(model, cache):
    stage = stage_of(model, cache)
    first = stage.batch(4)
    stage.batch(1)
    assert all(torch.equal(first[name], each) for name, each in stage.batch(4).items())
    assert first["latents"].shape[:1] == (2,)
    assert stage.batch(2)["latents"].shape[2] == 1, "every third batch are first frames"


@pytest.mark.parametrize("index", [0, 2])
def test_it_draws_judges_and_learns(model, cache, index):
    stage = stage_of(model, cache, given=1.0)
    loss, logs = stage.loss(stage.batch(index))
    loss.backward()
    trained = stage.module["transformer"]
    assert torch.isfinite(loss)
    assert logs["moved"] < 1e-2  # what draws may compute in bfloat16
    assert any(each.grad is not None and each.grad.any() for each in trained.parameters())
    assert all(each.grad is None for each in stage.module["policy"].parameters())


def test_given_first_frames_are_kept(model, cache):
    stage = stage_of(model, cache, given=1.0)
    batch = stage.batch(0)
    text = torch.zeros(2, 74, 32)
    with torch.no_grad():
        drawn = stage._draw(batch, text)
    assert drawn.shape[:2] == (2, 2)
    assert torch.equal(drawn[:, :, :, :1], batch["latents"][:, None, :, :1].expand_as(drawn[:, :, :, :1]))


def test_the_policy_goes_after_the_trained_weights_and_draws(model, cache):
    stage = stage_of(model, cache, policy_decay=0.75)
    name = "blocks.0.ffn.net.2.bias"
    trained = stage.module["transformer"].get_parameter(name)
    before = trained.detach().clone()
    trained.data += 4.0
    stage._follow()
    assert torch.allclose(stage.module["policy"].get_parameter(name), before + 1.0)
    drawer = stage._drawer.transformer.get_parameter(name)
    assert torch.allclose(drawer.float(), before + 1.0, atol=1e-2)


def test_its_export_is_a_whole_model(model, cache, tmp_path):
    stage = stage_of(model, cache)
    stage.module["transformer"].get_parameter("proj_out.bias").data += 1.0
    stage.export(tmp_path / "export")
    one, two = unireel.load(model, fast=False), unireel.load(tmp_path / "export", fast=False)
    assert torch.allclose(two.transformer.proj_out.bias, one.transformer.proj_out.bias + 1.0, atol=1e-2)
    assert two.film_settings == one.film_settings


def test_a_model_that_predicts_velocities_is_refused(untrained, cache):
    with pytest.raises(UserError, match="does not predict data"):
        stage_of(untrained, cache)
