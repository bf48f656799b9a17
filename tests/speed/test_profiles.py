"""Profiles leave out what they say, undo it, and say so where they would not act."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from transformers import Qwen2VLForConditionalGeneration

from unireel.backbones.fast import PROFILES, Profile, speed_up
from unireel.backbones.text import pocket_text_encoder, word_tokenizer
from unireel.backbones.vae import pocket_autoencoder
from unireel.backbones.vlm import PatchLayout, pocket_vlm
from unireel.backbones.wan import pocket_transformer
from unireel.errors import UsageError
from unireel.flow.sampling import time_grid
from unireel.systems.base.pipeline import BasePipeline
from unireel.systems.omnivideo.pipeline import OmniVideo
from unireel.world.language import vocabulary

PROMPT = "a red star jumps"
STEPS = 6


def vlm(tokenizer) -> Qwen2VLForConditionalGeneration:
    return pocket_vlm(tokenizer, 32, 1, 2, 48, 16, 1, PatchLayout(4, 4, 4))


@pytest.fixture
def model() -> BasePipeline:
    torch.manual_seed(0)
    tokenizer = word_tokenizer(vocabulary())
    transformer = pocket_transformer(32, 3, 2, 48, 4, 2, 32)
    return BasePipeline(
        pocket_autoencoder(8, 8, 4, 1),
        pocket_text_encoder(len(tokenizer), 32, 1, 2),
        tokenizer,
        transformer,
        vlm(tokenizer),
        steps=STEPS,
        guidance=2.0,
        shift=2.0,
        prediction="data",
    )


def film(model: BasePipeline, frames: int = 5) -> np.ndarray:
    return model.generate(PROMPT, seed=3, frames=frames).frames.astype(int)


@contextmanager
def evaluations(model: BasePipeline) -> Iterator[list[int]]:
    """How many films each evaluation of the transformer gets, both branches of guidance counted."""
    seen: list[int] = []
    inner = model.transformer.forward

    def counting(*args, **kwargs):
        seen.append(len(kwargs["hidden_states"]))
        return inner(*args, **kwargs)

    model.transformer.forward = counting
    try:
        yield seen
    finally:
        del model.transformer.forward


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_profile_acts_and_can_be_taken_off(model, name):
    before = film(model)
    weights = {key: each.clone() for key, each in model.transformer.state_dict().items()}
    acceleration = speed_up(model, name)
    film(model)
    acceleration.remove()
    model.transformer.to(torch.float32).load_state_dict(weights)  # bfloat16 rounds them
    model.vae.to(torch.float32)
    assert model.config["steps"] == STEPS and model.guidance_interval == (0.0, 1.0)
    assert np.abs(film(model) - before).max() <= 1


def test_guidance_early_only(model):
    with evaluations(model) as seen:
        film(model)
    assert seen == [2] * STEPS
    speed_up(model, "early-guidance")
    with evaluations(model) as seen:
        film(model)
    late = time_grid(STEPS, 2.0)[:-1] < PROFILES["early-guidance"].guided_above
    assert seen == [1 if each else 2 for each in late] and 1 in seen and 2 in seen


def test_half_the_steps(model):
    speed_up(model, "half-steps")
    with evaluations(model) as seen:
        film(model)
    assert len(seen) == STEPS // 2


def test_few_steps_are_not_guided(model):
    speed_up(model, "few-steps")
    with evaluations(model) as seen:
        film(model)
    assert seen == [1] * (STEPS // 2)


def test_blocks_are_kept_within_a_film_and_never_beyond(model, monkeypatch):
    lossless = film(model)
    monkeypatch.setitem(PROFILES, "cached", Profile("every block is kept", cache=1e6))
    speed_up(model, "cached")
    computed: list[int] = []
    inner = model.transformer.blocks[1].attn1.to_out[0]
    inner.register_forward_hook(lambda *_: computed.append(1))
    kept = film(model)
    assert len(computed) == 1  # of the first step only
    assert np.abs(kept - lossless).mean() > 0.5
    film(model, frames=1)  # another shape starts anew
    assert np.array_equal(film(model), kept)
    assert len(computed) == 3


def test_cached_blocks_are_the_same_where_everything_changes(model, monkeypatch):
    monkeypatch.setitem(PROFILES, "cached", Profile("no block is ever kept", cache=1e-9))
    plain = speed_up(model)
    expected = film(model)
    plain.remove()
    speed_up(model, "cached")
    assert np.abs(film(model) - expected).max() <= 1


def test_what_would_not_act_is_an_error(model):
    with pytest.raises(UsageError, match="no profile 'warp'; accepted: lossless, early-guidance"):
        speed_up(model, "warp")
    model.register_to_config(guidance=1.0)
    with pytest.raises(
        UsageError, match="'draft' does not act on this model: it makes films without guidance"
    ):
        speed_up(model, "draft")
    assert type(model.transformer).__module__.startswith("diffusers")


@pytest.mark.parametrize("name", ["early-guidance", "cached", "draft", "few-steps"])
def test_other_samplers_are_an_error(model, name):
    with pytest.raises(UsageError, match=f"'{name}' does not act on OmniVideo, whose sampler is another"):
        speed_up(OmniVideo.from_base(model), name)
