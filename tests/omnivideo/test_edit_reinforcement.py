"""Learning from verdicts on edits: rewards are the checker's, the editor alone learns, and the policy goes after it."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false

import json

import pytest
import torch

from unireel.config import from_dict
from unireel.data.cache import CacheConfig, build
from unireel.errors import UsageError
from unireel.systems.base.stages.verdicts import edit_reward
from unireel.systems.omnivideo.stages import EditReinforcementStage
from unireel.world.edits import OPERATIONS, edit_for
from unireel.world.render import render_frames
from unireel.world.sampling import sample_scene

EDITOR = {"route": "channels", "copies": True, "editor": True, "words_only": True}
SHORT = {"steps": 2, "shift": 2.0, "text": 1.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("verdicts")
    model.save_pretrained(folder / "model", dtype=torch.float32)
    card = json.loads((folder / "model" / "unireel.json").read_text())
    card["settings"]["prediction"] = "data"
    (folder / "model" / "unireel.json").write_text(json.dumps(card))
    build(folder / "films", CacheConfig(8, 48), progress=False)
    return folder


def stage_of(folders, mixture=None, **settings) -> EditReinforcementStage:
    data = {
        "films": str(folders / "films"),
        "film_count": 8,
        "edit_count": 8,
        "batch_size": 2,
        "picture_batch": 2,
    }
    shares = {"shares": {"v2v": 1.0, "i2i": 1.0}, "captions": 1.0}
    config = {
        "start_from": str(folders / "model"),
        "settings": EDITOR | {"v2v": SHORT, "i2i": SHORT},
        "train": ["editor"],
        "looking_blocks": [0],
        "drawn": 2,
        "drop_source": 0.0,
        "drop_text": 0.0,
        "drop_visual": 0.0,
        "mixture": data | shares | (mixture or {}),
    }
    torch.manual_seed(0)
    return EditReinforcementStage(from_dict(EditReinforcementStage.config_class, config | settings))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_right_edit_gets_all_and_the_source_less(operation):
    found = (edit_for(sample_scene(2, index, "train", size=48), operation, index) for index in range(40))
    edit = next(each for each in found if each)
    reward, right = edit_reward(render_frames(edit.target), edit)
    assert (reward, right) == (1.0, True)
    reward, right = edit_reward(render_frames(edit.source), edit)
    assert not right and reward < 0.5


@pytest.mark.parametrize("index", [0, 1])
def test_the_editor_learns_from_films_and_from_pictures(folders, index):
    stage = stage_of(folders)
    batch = stage.batch(index)
    assert batch["latents"].shape[2] == (5 if index == 0 else 1)
    loss, logs = stage.loss(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert set(logs) == ({"film_reward", "film_right"} if index == 0 else {"picture_reward", "picture_right"})
    assert any(each.grad is not None and each.grad.any() for each in stage.module["editor"].parameters())
    assert all(each.grad is None for each in stage.module["policy"].parameters())
    assert all(each.grad is None for each in stage.model.transformer.parameters())


def test_the_policy_goes_after_what_low_rank_factors_make(folders):
    stage = stage_of(folders, low_rank={"editor.blocks.*": 2}, policy_decay=0.75)
    name = "blocks.0.ffn.net.2"
    layer, policy = stage.module["editor"].get_submodule(name), stage.module["policy"].get_submodule(name)
    before = policy.weight.clone()
    with torch.no_grad():
        layer.up += 0.1
    stage.loss(stage.batch(0))
    torch.testing.assert_close(policy.weight, before + 0.25 * (layer.up @ layer.down).detach())


def test_what_it_cannot_teach_is_refused(folders):
    with pytest.raises(UsageError, match="verdicts are on edits"):
        stage_of(folders, {"shares": {"v2v": 1.0, "t2v": 1.0}})
    with pytest.raises(UsageError, match="verdicts teach a decoder of edits"):
        stage_of(folders, settings={"route": "channels"}, train=["transformer"])
