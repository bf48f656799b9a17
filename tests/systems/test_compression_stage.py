"""A model as another one plus differences of low rank: it starts nearest, learns, and is what was asked for."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportIndexIssue=false, reportAttributeAccessIssue=false, reportCallIssue=false

import shutil

import numpy as np
import pytest
import torch
from transformers import Qwen2VLForConditionalGeneration

from unireel.data.cache import CacheConfig, build
from unireel.errors import UsageError
from unireel.systems.base.stages.compression import CompressionConfig, CompressionStage

MATRIX = "model.language_model.layers.0.mlp.up_proj"
RANKS = {"model.language_model.layers.*": 4, "model.visual.*": 4}


@pytest.fixture(scope="module")
def settings(untrained, tmp_path_factory):
    """A teacher whose every weight differs from the student's."""
    folder = tmp_path_factory.mktemp("compression")
    shutil.copytree(untrained, folder / "teacher")
    vlm = Qwen2VLForConditionalGeneration.from_pretrained(untrained / "vlm").float()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in vlm.parameters():
            parameter += 0.3 * parameter.abs().mean() * torch.randn_like(parameter)
    vlm.save_pretrained(folder / "teacher" / "vlm")
    build(folder / "films", CacheConfig(6), progress=False)
    return {
        "teacher": str(folder / "teacher"),
        "student": str(untrained),
        "films": str(folder / "films"),
        "film_count": 6,
        "batch_size": 2,
        "prompts": 4,
        "layers": 1,
        "low_rank": RANKS,
    }


def stage_of(settings, **changes) -> CompressionStage:
    torch.manual_seed(0)
    return CompressionStage(CompressionConfig(**(settings | changes)))


def matrix(model, name: str = MATRIX) -> np.ndarray:
    return model.get_submodule(name).weight.detach().double().numpy()


def test_it_starts_as_the_nearest_of_its_rank(settings):
    stage = stage_of(settings)
    base = Qwen2VLForConditionalGeneration.from_pretrained(f"{settings['student']}/vlm").float()
    layer = stage.student.get_submodule(MATRIX)
    wanted, known = matrix(stage.teacher), matrix(base)
    np.testing.assert_array_equal(layer.weight.detach().double().numpy(), known)
    left = wanted - layer.whole().detach().double().numpy()
    # Eckart and Young: what is left has the singular values that the rank had no room for.
    expected = np.linalg.svd(wanted - known, compute_uv=False)[4:]
    np.testing.assert_allclose(np.linalg.svd(left, compute_uv=False)[: len(expected)], expected, rtol=1e-3)
    own, other = stage.student.state_dict(), stage.teacher.state_dict()
    for name in ("model.language_model.norm.weight", "model.language_model.embed_tokens.weight"):
        assert torch.equal(own[name], other[name])


def test_full_rank_is_the_teacher_itself(settings):
    stage = stage_of(settings, low_rank={"model.language_model.layers.*": 64, "model.visual.*": 1024})
    loss, logs = stage.loss(stage.batch(0))
    assert loss.item() < 1e-6 and set(logs) == {"seen", "states", "prompts", "divergence"}


def test_it_learns_and_writes_whole_matrices_of_that_rank(settings, tmp_path):
    stage = stage_of(settings)
    trained = [each for each in stage.module.parameters() if each.requires_grad]
    assert all(4 in each.shape for each in trained)
    optimizer = torch.optim.AdamW(trained, 3e-3, weight_decay=0.0)
    losses = []
    for _ in range(12):
        loss, _ = stage.loss(stage.batch(0))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    stage.export(tmp_path)
    written = Qwen2VLForConditionalGeneration.from_pretrained(tmp_path / "vlm").float()
    base = Qwen2VLForConditionalGeneration.from_pretrained(f"{settings['student']}/vlm").float()
    assert np.linalg.matrix_rank(matrix(written) - matrix(base), tol=1e-4) == 4


def test_ranks_that_fit_nothing_are_one_line(settings):
    with pytest.raises(UsageError, match=r"low_rank: model\.eyes\.\*: 4 is no rank"):
        stage_of(settings, low_rank={"model.eyes.*": 4})
