"""The weights that ship as pocket/base: films from given first frames go on with what these show."""

import numpy as np
import pytest

import unireel
from unireel.systems.base.pipeline import BasePipeline
from unireel.world.render import render
from unireel.world.scene import Object, Scene

PROMPT = "a red star stays still"


@pytest.fixture(scope="module")
def model() -> BasePipeline:
    loaded = unireel.load("pocket/base", device="cpu")
    assert isinstance(loaded, BasePipeline)
    return loaded


@pytest.mark.parametrize(("background", "style"), [("black", "plain"), ("sand", "plain"), ("navy", "night")])
def test_a_background_that_the_prompt_does_not_say_is_that_of_the_first_frame(model, background, style):
    """The planner has not seen it, and guesses."""
    star = Object("star", "red", "large", 24.0, 24.0, ())
    given = render(Scene((star,), background, style=style, size=48)).frame(0)
    for seed in (1, 2):
        film = model.generate(PROMPT, given, seed=seed, steps=4).frames.astype(int)
        assert np.array_equal(film[0], given)
        assert np.abs(film[-1, :6].mean((0, 1)) - given[:6].mean((0, 1))).max() < 12
