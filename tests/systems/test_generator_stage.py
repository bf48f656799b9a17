"""The generator's stage: what its loss is zero for, what it does not ask for, and that it learns."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportIndexIssue=false

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import UMT5EncoderModel

from unireel.backbones.vae import pocket_autoencoder
from unireel.data.cache import CacheConfig, build
from unireel.systems.base.stages import generator
from unireel.systems.base.stages.generator import GeneratorConfig, GeneratorStage

SMALL = {
    "film_count": 12,
    "used_films": 12,
    "size": 32,
    "width": 32,
    "layers": 2,
    "heads": 2,
    "ffn": 48,
    "text_width": 32,
    "text_layers": 1,
    "batch_size": 4,
    "picture_batch": 8,
    "picture_batches": 2,
    "attention_blocks": (0,),
    "drawing_block": 0,
    "masks_block": 1,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    folder: Path = tmp_path_factory.mktemp("generator")
    torch.manual_seed(0)
    pocket_autoencoder(8, 8, 4, 1).save_pretrained(folder / "vae")
    build(folder / "films", CacheConfig(12, 32), progress=False)
    return {"films": str(folder / "films"), "vae": str(folder / "vae")}


def stage_of(folders, **settings) -> GeneratorStage:
    torch.manual_seed(0)
    return GeneratorStage(GeneratorConfig(**(SMALL | folders | settings)))


def owner_in(stage, batch):
    return stage.module["binding"].owner(batch)


@pytest.mark.parametrize("index", [0, 3])
@pytest.mark.parametrize("prediction", ["velocity", "data"])
def test_the_truth_has_no_loss(folders, monkeypatch, prediction, index):
    stage = stage_of(folders, prediction=prediction)
    batch = stage.batch(index)
    seen = {}

    def interpolate(data, noise, time):
        seen["truth"] = data if prediction == "data" else noise - data
        return (1 - time) * data + time * noise

    monkeypatch.setattr(generator, "interpolate", interpolate)
    monkeypatch.setattr(generator, "predict", lambda *args: seen["truth"])
    assert float(stage.flow(batch, None, owner_in(stage, batch))[1]) == 0.0
    monkeypatch.setattr(generator, "predict", lambda *args: seen["truth"] + 0.5)
    assert float(stage.flow(batch, None, owner_in(stage, batch))[1]) == pytest.approx(0.25)


def test_given_first_frames_are_not_asked_for(folders, monkeypatch):
    stage = stage_of(folders)
    batch = stage.batch(3)
    batch["clean"] = torch.ones(4, dtype=torch.bool)

    def wrong_in_the_first_frame(model, latents, time, text):
        tokens = latents.shape[3] * latents.shape[4] // 4
        assert (time[:, :tokens] == 0).all() and (time[:, tokens:] > 0).all()
        assert torch.equal(latents[:, :, 0], batch["latents"][:, :, 0])
        output = batch["latents"].clone()
        output[:, :, 0] += 100.0
        return output

    monkeypatch.setattr(generator, "predict", wrong_in_the_first_frame)
    assert float(stage.flow(batch, None, owner_in(stage, batch))[1]) == 0.0


def test_errors_where_objects_change_weigh_more(folders, monkeypatch):
    """Still objects change nothing; where half of a frame's tokens move, their errors weigh 1 + moving."""
    stage = stage_of(folders, moving=4.0, prediction="data", clean_first=0.0)
    stage.module["uncertainty"].forward = lambda error, time, kind: error
    batch = stage.batch(3)
    batch["states"][:] = batch["states"][:, :, :1, :1]
    owner = torch.full((4, 5, 4, 4), -1)  # 4 x 4 tokens
    owner[..., :2] = 0
    owner = owner.flatten(2)
    wrong = torch.zeros(4, 1, 5, 8, 8)
    wrong[..., :4] = 1.0  # in the left half, whose tokens object 0 owns
    monkeypatch.setattr(generator, "predict", lambda *args: batch["latents"] + wrong)
    still, plain = stage.flow(batch, None, owner)
    assert float(still) == pytest.approx(0.5) and float(plain) == pytest.approx(0.5)
    batch["states"][:, 0, :, :, 0] += torch.arange(4)  # object 0 moves right, a pixel a frame
    moved, plain = stage.flow(batch, None, owner)
    assert float(moved) == pytest.approx(5 / 6) and float(plain) == pytest.approx(0.5)


def test_pictures_come_first_and_every_so_often(folders):
    stage = stage_of(folders, picture_every=4)
    lengths = [stage.batch(index)["latents"].shape[2] for index in range(9)]
    assert lengths == [1, 1, 5, 5, 1, 5, 5, 5, 1]
    first, again = stage.batch(3), stage.batch(3)
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_pictures_of_a_rounded_stage_lie_where_their_plans_say(folders, tmp_path):
    settings = {"films": str(tmp_path / "films"), "size": 48, "rounded": True, "plans": 1.0, "empty": 0.0}
    stage = stage_of(folders, **settings)
    picture, film = stage.batch(0), stage.batch(3)
    there = picture["shapes"] >= 0
    numbers = picture["numbers"][..., :2][there]
    assert torch.allclose(numbers, numbers.round(), atol=1e-4)
    shown = picture["states"][:, :, 0, 0][there]
    assert torch.allclose(shown[:, :2], numbers * 4.7, atol=0.02)
    others = film["numbers"][..., :2][film["shapes"] >= 0]
    assert not torch.allclose(others, others.round(), atol=1e-2)  # films begin anywhere


def test_it_learns_and_starts_from_what_it_exported(folders, tmp_path):
    stage = stage_of(folders, picture_batches=100)
    optimizer = torch.optim.AdamW(stage.module.parameters(), lr=3e-3)
    losses = []
    for index in range(30):
        loss, _ = stage.loss(stage.batch(index))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5]), losses
    stage.export(tmp_path)
    UMT5EncoderModel.from_pretrained(tmp_path / "text_encoder").bfloat16().save_pretrained(
        tmp_path / "text_encoder"
    )
    again = stage_of(folders, start_from=str(tmp_path))
    for name, parameter in again.module.named_parameters():
        assert parameter.dtype == torch.float32, name
    for name in ("binding", "uncertainty"):
        for key, value in stage.module[name].state_dict().items():
            assert torch.equal(value, again.module[name].state_dict()[key]), key
    weights = dict(stage.module["transformer"].named_parameters())
    for name, parameter in again.module["transformer"].named_parameters():
        assert torch.equal(parameter, weights[name]), name


def test_it_widens_what_it_starts_from(folders, tmp_path):
    stage = stage_of(folders)
    stage.export(tmp_path)
    wide = stage_of(folders, start_from=str(tmp_path), heads=4, ffn=64)
    assert wide.module["binding"].sight.in_features == 64
    batch = stage.batch(3)
    errors = []
    for each in (stage, wide):
        torch.manual_seed(1)
        text = torch.randn(4, 7, 32)
        errors.append(float(each.flow(batch, text, owner_in(each, batch))[1]))
    assert errors[1] == pytest.approx(errors[0], rel=1e-4)


def test_new_heads_learn_alone_at_first(folders):
    gradients = {}
    for name, settings in {
        "warm": {"warm_heads": 4},
        "without": {"drawing": 0.0, "masks": 0.0},
        "with": {},
    }.items():
        stage = stage_of(folders, **settings)
        torch.manual_seed(2)
        stage.loss(stage.batch(3))[0].backward()
        gradients[name] = stage.module["transformer"].blocks[0].ffn.net[2].weight.grad
        if name == "warm":
            assert stage.module["binding"].sight.weight.grad.abs().max() > 0
    assert torch.allclose(gradients["warm"], gradients["without"], rtol=1e-4, atol=1e-7)
    assert (gradients["with"] - gradients["without"]).norm() > 0.1 * gradients["without"].norm()
    stage = stage_of(folders, warm_heads=3)
    assert not stage.batch(3)["warming"]


def test_the_text_encoder_can_stay_as_it_is(folders):
    stage = stage_of(folders, train_text=False)
    stage.loss(stage.batch(3))[0].backward()
    assert all(each.grad is None for each in stage.module["text_encoder"].parameters())
    assert all(each.grad is not None for each in stage.module["transformer"].parameters())


def test_samples_show_both_kinds_of_films(folders):
    picture = stage_of(folders).samples()["films"]
    assert picture.shape == (6 * 32, 2 * 5 * 32, 3) and picture.dtype == np.uint8
