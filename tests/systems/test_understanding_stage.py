"""The video-language model's stage: what batches hold, that losses reach what they should, starting from an export."""

from typing import Any

import numpy as np
import pytest
import torch

from unireel.backbones.vlm import visual_tokens
from unireel.data.cache import CacheConfig, build
from unireel.systems.base.stages import UnderstandingStage
from unireel.systems.base.stages.understanding import UnderstandingConfig
from unireel.world.scene import SHAPES

FILMS = 24
SMALL: dict[str, Any] = {
    "film_count": FILMS,
    "width": 64,
    "layers": 3,
    "heads": 2,
    "ffn": 64,
    "vision": 48,
    "depth": 1,
    "batch_size": 6,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    build(folder, CacheConfig(FILMS, size=48), progress=False)
    return folder


@pytest.fixture(scope="module")
def stage(folder) -> UnderstandingStage:
    torch.manual_seed(0)
    return UnderstandingStage(UnderstandingConfig(films=str(folder), captions=1.0, **SMALL))


@pytest.fixture(scope="module")
def batch(stage):
    return stage.batch(0)


def _words(stage, batch, row: int, start: int, end: int) -> list[str]:
    return [stage.tokenizer.convert_ids_to_tokens(int(each)) for each in batch["input_ids"][row, start:end]]


def test_a_batch_depends_on_its_number_alone(stage, batch):
    again = stage.batch(0)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert not torch.equal(batch["patches"], stage.batch(1)["patches"])


def test_copied_words_are_those_of_the_question(stage, batch):
    copied = torch.cat([stage.batch(each)["copied"] for each in range(20)])
    assert len(copied)
    for index in range(20):
        batch = stage.batch(index)
        for row, place, target in batch["copied"].tolist():
            assert batch["input_ids"][row, place + 1] == batch["input_ids"][row, target]
            assert target < place and bool(batch["attention_mask"][row, 0, place, target])
            assert batch["weights"][row, place + 1] == 1


def test_names_mean_objects_of_their_film(stage, batch):
    assert (batch["asked"][:, 4] == 1).any() and (batch["asked"][:, 4] == 0).any()
    for row, place, _, mask, caption, _ in batch["asked"].tolist():
        said = _words(stage, batch, row, place, place + 1)[0]
        assert caption or said == "<answer>"
        for number in range(4):
            if mask >> number & 0x111:
                assert batch["shapes"][row, number] >= 0
    shown = {SHAPES[each] for each in batch["shapes"][0].tolist() if each >= 0}
    caption = " ".join(_words(stage, batch, 0, 46, batch["input_ids"].shape[1]))
    assert all(shape in caption for shape in shown)


def test_of_two_names_the_answer_chooses_one(stage):
    chosen: dict[tuple[int, int, int], list[int]] = {}
    for index in range(20):
        batch = stage.batch(index)
        for row, place, _, _, _, choice in batch["asked"].tolist():
            if choice:
                chosen.setdefault((index, row, place), []).append(choice)
                assert any((row, place) == (r, p) for r, p, _ in batch["copied"].tolist())
    assert chosen and all(sorted(each) == [-1, 1] for each in chosen.values())


def test_every_weight_learns_and_the_vit_from_two_tubes_of_a_film(stage, batch):
    stage.module.zero_grad()
    torch.manual_seed(0)
    loss, logs = stage.loss(batch)
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in stage.module.parameters())
    assert all(np.isfinite(float(value)) for value in logs.values())
    tokens, states, learnt = stage._see(batch["patches"], batch["grid"])
    whole, _ = visual_tokens(stage.module["vlm"], batch["patches"], batch["grid"])
    assert torch.allclose(tokens, whole, atol=1e-5)
    assert len(learnt) == 2 and len(states) == 2 * len(tokens)


def test_the_first_batches_show_one_tube(folder):
    torch.manual_seed(0)
    stage = UnderstandingStage(
        UnderstandingConfig(films=str(folder), vision_batches=1, vision_batch=8, **SMALL)
    )
    first, second = stage.batch(0), stage.batch(1)
    assert first["grid"].tolist() == [[1, 12, 12]] * 8 and "input_ids" not in first
    assert second["grid"].tolist() == [[5, 12, 12]] * 6
    loss, logs = stage.loss(first)
    loss.backward()
    modules: Any = stage.module
    assert "shape" in logs and modules["vlm"].model.language_model.layers[0].mlp.up_proj.weight.grad is None


def test_training_goes_on_from_an_export(stage, folder, tmp_path):
    stage.export(tmp_path)
    again = UnderstandingStage(UnderstandingConfig(films=str(folder), start_from=str(tmp_path), **SMALL))
    own = stage.module.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in again.module.state_dict().items())


def test_places_are_in_the_order_of_the_vit(stage):
    centres = stage.grounding._patches_at
    assert centres[:6].tolist() == [[1.5, 1.5], [5.5, 1.5], [9.5, 1.5], [13.5, 1.5], [1.5, 5.5], [5.5, 5.5]]
    assert centres[16].tolist() == [17.5, 1.5] and centres[-1].tolist() == [45.5, 45.5]
    assert stage.grounding._tokens_at.tolist()[4] == [23.5, 23.5]
