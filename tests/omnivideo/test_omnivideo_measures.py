"""What is measured of Omni-Video alone, on models that do all right or all wrong."""

from types import SimpleNamespace

import numpy as np
import pytest

from unireel.clip import Clip
from unireel.data.indirect import indirect_for
from unireel.errors import UserError
from unireel.evaluation.worldbench.setting import Setting
from unireel.systems.omnivideo.measures import CHAIN, Chains, Foreseeing, Routing, Thinking
from unireel.systems.omnivideo.speech import Reply, Thought
from unireel.world.language import plan_after, plan_for
from unireel.world.render import render

SETTING = Setting("test", 0, 48, None, None, 4)


def items_of(task, part, count=6):
    return [task.item(part, index, SETTING) for index in range(count)]


def test_turns_are_what_their_part_says():
    task = Routing()
    questions, films, pictures, edits = (items_of(task, part) for part in task.parts)
    assert all(
        each.text.endswith("?") and each.clip is not None and each.wanted is None for each in questions
    )
    assert all(each.clip is None and each.wanted == "video" for each in films)
    assert all(each.text.startswith("draw a picture,") and each.wanted == "image" for each in pictures)
    assert all(each.wanted == ("image" if len(each.clip) == 1 else "video") for each in edits)
    assert {each.wanted for each in edits} == {"image", "video"}


class Router:
    def __init__(self, rule):
        self.rule = rule

    def reply(self, text, clip):
        return Reply("", self.rule(text, clip), 1.0)


@pytest.mark.parametrize(
    ("rule", "overall", "kind"),
    [
        (
            lambda text, clip: None if text.endswith("?") else ("image" if "picture" in text else "video"),
            1.0,
            None,
        ),
        (lambda text, clip: None, 0.25, 0.25),
        (lambda text, clip: "image", 0.75, None),
    ],
)
def test_routing_counts_who_answers_and_who_makes(rule, overall, kind):
    task = Routing()
    records = {
        part: [each.record for each in task.run(Router(rule), items_of(task, part), SETTING)]
        for part in task.parts
    }
    scores = task.scores(records)
    assert scores["route/overall"].value == overall and scores["route/overall"].n == 24
    assert scores["route/kind"].value <= overall and (kind is None or scores["route/kind"].value == kind)


class Thinker:
    """Makes what is meant if it is given the thought, else a black film."""

    def __init__(self, items, unfinished=()):
        self.items = {item.text: item for item in items}
        self.unfinished = set(unfinished)

    def think(self, text, clip):
        if text in self.unfinished:
            raise UserError("unfinished")
        return Thought("why.", self.items[text].indirect.direct)

    def _made(self, texts, thoughts):
        films = []
        for text, thought in zip(texts, thoughts, strict=True):
            item = self.items[text]
            right = render(item.edit.target if hasattr(item, "edit") else item.scene)
            films.append(right if thought else Clip(np.zeros_like(right.frames), right.fps))
        return films

    def generate_many(self, prompts, thoughts, **options):
        return self._made(prompts, thoughts)

    def edit_many(self, pairs, thoughts, **options):
        for clip, text in pairs:
            np.testing.assert_array_equal(clip.frames, render(self.items[text].scene).frames)
        return self._made([text for _, text in pairs], thoughts)


@pytest.mark.parametrize("part", Thinking.parts)
def test_thinking_is_measured_against_not_thinking(part):
    task = Thinking()
    items = items_of(task, part)
    for item in items:
        direct = item.prompt.text if part == "think/film" else item.edit.instruction
        assert item.text != direct == item.indirect.direct
        assert indirect_for(direct, item.scene, item.seed) == item.indirect
    outcomes = task.run(Thinker(items, [items[0].text]), items, SETTING)
    scores = task.scores({part: [each.record for each in outcomes]})
    assert scores["think/off"].value == 0
    assert scores["think/on"].value == scores["think/understood"].value == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("rule", "right", "fulfils"),
    [
        (lambda edit: plan_after(edit.source, edit.target), 1.0, 1.0),
        (lambda edit: plan_for(edit.source), 0.0, 0.0),
        (lambda edit: "", 0.0, 0.0),
        (lambda edit: f"{plan_for(edit.target).split('.')[0]}. {clause_of(edit)}.", None, None),
    ],
)
def test_plans_are_judged_by_what_they_say(rule, right, fulfils):
    task = Foreseeing()
    items = [item for part in task.parts for item in items_of(task, part, 5)]
    edits = {(item.text, item.source.frames.tobytes()): item.edit for item in items}
    model = SimpleNamespace(foresee=lambda text, clip: rule(edits[text, clip.frames.tobytes()]))
    records = {}
    for outcome in task.run(model, items, SETTING):
        records.setdefault(outcome.record["part"], []).append(outcome.record)
    scores = task.scores(records)
    assert set(scores) == {
        *task.parts,
        *(f"plan/{each}" for each in ("overall", "fulfils", "objects", "motions")),
    }
    if right is None:  # one object of each film: enough only where there is one
        single = [len(item.edit.target.objects) == 1 for item in items]
        assert 0 < scores["plan/objects"].value <= sum(single) / len(items)
        return
    assert scores["plan/overall"].value == right
    assert scores["plan/fulfils"].value == pytest.approx(fulfils, abs=0.1)


def clause_of(edit) -> str:
    return plan_after(edit.source, edit.target).rstrip(".").split(". ")[1]


class Painter:
    """Edits as the chain asks, with ``noise`` grey levels too much everywhere."""

    def __init__(self, items, noise):
        self.items, self.noise, self.step = items, noise, 0

    def edit_many(self, pairs, **options):
        edits = [item.edits[self.step] for item in self.items]
        assert [text for _, text in pairs] == [each.instruction for each in edits]
        self.step += 1
        frames = [render(each.target).frames.astype(int) + self.noise for each in edits]
        return [Clip(each.clip(0, 255).astype(np.uint8), 8) for each in frames]


@pytest.mark.parametrize("noise", [4, 16])
def test_chains_measure_what_no_edit_touches(noise):
    task = Chains()
    items = items_of(task, "chain/overall", 4)
    for item in items:
        assert len(item.edits) == CHAIN
        assert all(a.target == b.source for a, b in zip(item.edits, item.edits[1:], strict=False))
    outcomes = task.run(Painter(items, noise), items, SETTING)
    scores = task.scores({"chain/overall": [each.record for each in outcomes]})
    expected = 20 * np.log10(255 / noise)
    assert scores["chain/preserve_psnr"].value == pytest.approx(expected, abs=0.5)
    assert scores["chain/last"].value >= 0.75
