"""The ranker's training: batches, loss and what is exported."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from unireel.backbones.ranker import frame_embeddings, frame_pixels, rank
from unireel.systems.base.stages import RankerStage
from unireel.systems.base.stages.ranker import RankerConfig, choose_different, eventful_frames, said
from unireel.training.optimizers import Optimizers
from unireel.training.recipe import OptimizerConfig
from unireel.training.stage import evaluation_mode
from unireel.world.scene import COLOURS, SHAPES, SIZES
from unireel.world.stories import describe_frame, sample_story
from unireel.world.tracks import COLOUR_NAMES, tracks

TINY = RankerConfig(
    size=32, width=32, layers=1, heads=2, text_width=32, text_layers=1, stories=4, clips=4, story_frames=8,
    batch_stories=2, per_story=4, batch_clips=2, per_clip=2, noise=0.0, vision_batches=0, test_stories=2, gallery=8,
)  # fmt: skip


@pytest.fixture
def stage() -> RankerStage:
    torch.manual_seed(0)
    return RankerStage(TINY)


def test_batches_are_a_pure_function_of_their_number(stage: RankerStage):
    config = replace(TINY, noise=4.0)
    one, two = RankerStage(config), RankerStage(config)
    two.batch(0)
    first, again, other = one.batch(3), two.batch(3), one.batch(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["pixels"], other["pixels"])


def test_each_frame_has_its_own_text_and_texts_differ(stage: RankerStage):
    batch = stage.batch(0)
    ids = batch["ids"]
    assert len(batch["pixels"]) == len(batch["text"]) == len(batch["cells"]) == stage.samples_per_batch == 12
    assert len(torch.unique(ids, dim=0)) == len(ids) == len(batch["said"])
    assert set(batch["text"].tolist()) == set(range(len(ids)))
    shown = batch["cells"].unflatten(-1, (len(SHAPES), len(COLOURS))).amax((1, 3))
    told = batch["said"].unflatten(-1, (len(SHAPES), -1)).amax(-1)[batch["text"]]
    assert torch.equal(shown, told)  # a shape lies in some patch if and only if the text names it


def test_targets_of_texts_are_what_the_tracks_say():
    for index in range(3):
        story = sample_story(3, index, size=48)
        for frame in range(0, story.frames, 40):
            found = said(describe_frame(story, frame)).reshape(len(SHAPES), -1)
            for figure, track in zip(story.objects, tracks(story), strict=True):
                colours, sizes, places = np.split(found[SHAPES.index(figure.shape)], [len(COLOURS), -9])
                visible = bool(track.visible[frame])
                assert colours.sum() == sizes.sum() == places.sum() == visible
                if visible:
                    assert colours[list(COLOURS).index(COLOUR_NAMES[track.colour[frame]])]
                    assert sizes[SIZES.index("large" if track.screen_radius[frame] > 6.5 else "small")]
                    x, y = ((each[frame] + 0.5) // 16 for each in (track.screen_x, track.screen_y))
                    assert places[int(3 * y + x)]


def test_loss_on_pairs_is_siglips_own(stage: RankerStage):
    batch = stage.batch(1)
    first = [batch["text"].tolist().index(text) for text in range(len(batch["ids"]))]  # one frame a text
    single = {**batch, "pixels": batch["pixels"][first], "cells": batch["cells"][first]}
    single["text"] = torch.arange(len(first))
    with torch.no_grad():
        _, logs = stage.loss(single)
        output = stage.ranker(input_ids=batch["ids"], pixel_values=single["pixels"], return_loss=True)
    torch.testing.assert_close(logs["pairs"], output.loss)


def test_the_vision_tower_is_trained_first_and_alone():
    stage = RankerStage(replace(TINY, vision_batches=2))
    assert ["ids" in stage.batch(index) for index in range(4)] == [False, False, True, True]
    loss, logs = stage.loss(stage.batch(1))
    loss.backward()
    assert "pairs" not in logs
    assert all(each.grad is None for each in stage.ranker.text_model.parameters())
    assert all(each.grad is not None for each in stage.ranker.vision_model.parameters())


def test_a_batch_can_be_learnt(stage: RankerStage):
    batch = stage.batch(0)
    config = OptimizerConfig("muon", lr=3e-3, muon_lr=0.02)
    optimizers = Optimizers(stage.module, config, stage.parameter_groups())
    for _ in range(200):
        loss, logs = stage.loss(batch)
        loss.backward()
        optimizers.step(1.0)
    assert logs["frames_right"] == 1


def test_evaluation_names_recalls_of_both_splits(stage: RankerStage):
    with evaluation_mode(stage.module):
        scores = stage.evaluate()
    kinds = ("gallery/{}", "gallery/own_{}", "spread/{}")
    names = {kind.format(way) for kind in kinds for way in ("text_to_frame", "frame_to_text")}
    assert set(scores) == {f"{split}/{name}" for split in ("test", "compositional") for name in names}
    assert all(0 <= value <= 1 for value in scores.values())


def test_the_exported_folder_is_an_ordinary_one(stage: RankerStage, tmp_path: Path):
    stage.export(tmp_path)
    folder = tmp_path / "ranker"
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    own = stage.ranker.eval()
    assert torch.equal(frame_embeddings(model, frames), frame_embeddings(own, frames))
    text = "a small red star on the left"
    assert rank(model, tokenizer, frames, text) == rank(own, stage.tokenizer, frames, text)
    given = tokenizer([text], padding="max_length", max_length=64)
    assert list(given) == ["input_ids"]
    assert given["input_ids"] == stage.tokenizer([text], padding="max_length", max_length=64)["input_ids"]
    pixels = AutoImageProcessor.from_pretrained(folder)(list(frames), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels, frame_pixels(frames))


def test_short_phases_are_drawn_as_often_as_long_ones():
    story = sample_story(3, 0, size=32)
    start, end = (event.end for event in story.objects[-1].events)  # the visitor's
    random = np.random.default_rng(0)
    drawn = [frame for _ in range(60) for frame in eventful_frames(story, 8, random)]
    assert all(0 <= frame < story.frames for frame in drawn)
    share = np.mean([start <= frame < end for frame in drawn])
    assert share > 1.5 * (end - start) / story.frames
    assert eventful_frames(story, 600, random) == list(range(story.frames))


def test_different_texts_are_chosen_first():
    texts = ["a", "b", "a", "c", "a"]
    random = np.random.default_rng(0)
    for count in range(1, 6):
        chosen = choose_different(texts, count, random)
        assert len(set(chosen)) == count
        assert len({texts[number] for number in chosen}) == min(count, 3)
