"""The weights that ship as pocket/omnivideo: edits do as asked and keep the rest; the base's decoder draws words."""

# What tasks draw is typed by its base classes.
# pyright: reportAttributeAccessIssue=false

import numpy as np
import pytest
import torch

import unireel
from unireel.evaluation.worldbench.editing import Edits
from unireel.evaluation.worldbench.setting import Setting
from unireel.systems.omnivideo.guidance import FULL
from unireel.systems.omnivideo.measures import Foreseeing, IndirectEdit, Routing, Thinking
from unireel.systems.omnivideo.pipeline import OmniVideo
from unireel.systems.omnivideo.speech import Request

SETTING = Setting("test", 0, 48, None, None, 8)


@pytest.fixture(scope="module")
def model() -> OmniVideo:
    loaded = unireel.load("pocket/omnivideo")
    assert isinstance(loaded, OmniVideo)
    return loaded


def test_films_from_words_are_drawn_by_the_base_s_decoder(model: OmniVideo) -> None:
    base = unireel.load("pocket/base")
    own, other = model.transformer.state_dict(), base.transformer.state_dict()
    assert own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)
    prompt = "a red star jumps"
    context = model.contexts([Request(prompt)], ["video"], [""], None, "", [FULL])[FULL]
    states, _ = base.encode_prompt([prompt])
    assert context.mask is None, "the base sees the padding of its prompts"
    torch.testing.assert_close(context.tokens, states)


def test_edits_are_carried_out_and_keep_the_rest(model: OmniVideo) -> None:
    task = Edits()
    parts = ("edit/recolour", "edit/background", "edit/replace", "edit/add")
    items = [task.item(part, 500 + number, SETTING) for part in parts for number in range(2)]
    outcomes = [each.record for each in task.run(model, items, SETTING)]
    assert np.mean([each["complied"] for each in outcomes]) > np.mean(
        [each["unchanged"] for each in outcomes]
    )
    kept = [each["psnr"] for each in outcomes if each["psnr"] is not None]
    assert np.median(kept) > 20, "a film made anew has 15 dB"


def test_plans_of_edits_say_what_is_asked_for(model: OmniVideo) -> None:
    task = Foreseeing()
    items = [task.item(part, 500, SETTING) for part in task.parts]
    outcomes = [each.record for each in task.run(model, items, SETTING)]
    assert np.mean([each["fulfils"] for each in outcomes]) >= 0.5


def test_thoughts_say_what_was_meant(model: OmniVideo) -> None:
    task = Thinking()
    items = [task.draw(part, 500 + number, SETTING) for part in task.parts for number in range(5)]
    thoughts = [
        model.mllm.think(Request(item.text, item.source.frames if isinstance(item, IndirectEdit) else None))
        for item in items
    ]
    meant = [thought.prompt == item.indirect.direct for thought, item in zip(thoughts, items, strict=True)]
    assert np.mean(meant) >= 0.6


def test_it_knows_questions_from_requests(model: OmniVideo) -> None:
    task = Routing()
    items = [task.item(part, 500 + number, SETTING) for part in task.parts for number in range(3)]
    outcomes = [each.record for each in task.run(model, items, SETTING)]
    assert np.mean([each["right"] for each in outcomes]) >= 0.75
