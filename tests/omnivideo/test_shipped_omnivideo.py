"""The weights that ship as pocket/omnivideo: edits do as asked and keep the rest, films from words are the base's."""

import numpy as np
import pytest

import unireel
from unireel.evaluation.worldbench.editing import Edits
from unireel.evaluation.worldbench.setting import Setting
from unireel.systems.omnivideo.measures import Foreseeing, Routing
from unireel.systems.omnivideo.pipeline import OmniVideo

SETTING = Setting("test", 0, 48, None, None, 8)


@pytest.fixture(scope="module")
def model() -> OmniVideo:
    loaded = unireel.load("pocket/omnivideo")
    assert isinstance(loaded, OmniVideo)
    return loaded


def test_films_from_words_are_those_of_the_base_model(model: OmniVideo) -> None:
    prompt = "a red star jumps"
    base = unireel.load("pocket/base").generate(prompt, seed=3, steps=2)
    np.testing.assert_array_equal(model.generate(prompt, seed=3, steps=2).frames, base.frames)


def test_edits_are_carried_out_and_keep_the_rest(model: OmniVideo) -> None:
    task = Edits()
    parts = ("edit/recolour", "edit/background", "edit/replace", "edit/add")
    items = [task.item(part, 500 + number, SETTING) for part in parts for number in range(2)]
    outcomes = [each.record for each in task.run(model, items, SETTING)]
    assert np.mean([each["complied"] for each in outcomes]) > np.mean(
        [each["unchanged"] for each in outcomes]
    )
    kept = [each["psnr"] for each in outcomes if each["psnr"] is not None]
    assert np.median(kept) > 25, "a film made anew has 15 dB"


def test_plans_of_edits_say_what_is_asked_for(model: OmniVideo) -> None:
    task = Foreseeing()
    items = [task.item(part, 500, SETTING) for part in task.parts]
    outcomes = [each.record for each in task.run(model, items, SETTING)]
    assert np.mean([each["fulfils"] for each in outcomes]) >= 0.5


def test_it_knows_questions_from_requests(model: OmniVideo) -> None:
    task = Routing()
    items = [task.item(part, 500 + number, SETTING) for part in task.parts for number in range(3)]
    outcomes = [each.record for each in task.run(model, items, SETTING)]
    assert np.mean([each["right"] for each in outcomes]) >= 0.75
