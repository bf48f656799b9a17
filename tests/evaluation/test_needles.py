"""Questions about a moment in a long story: what is counted, and how a report shows what was looked at."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from unireel.clip import Clip
from unireel.errors import UsageError
from unireel.evaluation.page import Case, figure
from unireel.evaluation.strips import rounds_of, strips
from unireel.evaluation.worldbench import Ledger, Plan, all_tasks, chosen_parts
from unireel.evaluation.worldbench.needles import FRAMES, Needle, even_frames
from unireel.evaluation.worldbench.reference import Reference, Said
from unireel.evaluation.worldbench.report import _case
from unireel.evaluation.worldbench.runner import add_up
from unireel.systems.univid.reflection.cache import FilmCache
from unireel.systems.univid.reflection.loop import PyramidReflection, ReflectionConfig
from unireel.systems.univid.reflection.roles import Roles
from unireel.world.render import render

MakePlan = Callable[..., Plan]


@dataclass(frozen=True)
class Heard(Said):
    """An answer of a model."""

    reliable: bool = True
    note: str | None = None


class Witness(Reference):
    """Knows the answer if it is shown a frame that only the evidence has, and is unsure else; it looks evenly."""

    def __init__(self, plan: Plan, items: list[Needle]) -> None:
        super().__init__(Plan((), 0, plan.setting), 0)
        self.known: dict[tuple[str, bytes], str] = {}
        for item in items:
            assert item.question.evidence is not None
            first, last = item.question.evidence
            frames = [each.tobytes() for each in render(item.scene).frames]
            for frame in {*frames[first : last + 1]} - {*frames[:first], *frames[last + 1 :]}:
                self.known[item.text, frame] = item.question.answer

    def ask_view(self, frames: np.ndarray, question: str) -> Heard:
        seen = [
            self.known[question, each.tobytes()]
            for each in frames
            if (question, each.tobytes()) in self.known
        ]
        return Heard(seen[0], 0.9) if seen else Heard("nothing", 0.2)

    def reflection(self, *, cache: Path) -> PyramidReflection:  # type: ignore[override]
        # The whole pool comes last, so that whatever lasts for four frames is found in the end.
        config = ReflectionConfig(policy="even", mode="static", expand=(4, 16, 64))
        return PyramidReflection(Roles.of_model(self), None, config, FilmCache(cache))


def test_who_finds_the_moment_is_right_and_who_looks_evenly_is_not(plan: MakePlan, tmp_path: Path) -> None:
    some = plan("needle", 6)
    ((task, part),) = some.parts
    items = [task.item(part, index, some.setting) for index in range(6)]
    assert {len(render(item.scene)) for item in items} == {FRAMES}
    outcomes = task.run(Witness(some, items), items, some.setting)
    records = [each.record for each in outcomes]
    for item, record in zip(items, records, strict=True):
        first, last = record["evidence"]
        assert [(each["score"], each["accepted"]) for each in record["rounds"][:-1]] == [(0.2, False)] * (
            len(record["rounds"]) - 1
        )
        shown = even_frames(FRAMES)
        assert not record["even_right"] or ((first <= shown) & (shown <= last)).any()
        looked = record["rounds"][-1]
        assert record["right"] == looked["accepted"] <= record["found"]
        assert looked["times"] == [round(each / 8, 3) for each in looked["frames"]]
        assert ("controls" in record) == (item.index % 4 == 0)
    ledger = Ledger(tmp_path / "run", {})
    ledger.append(outcomes, 1.0)
    scores = add_up(some, ledger)
    assert scores["qa/needle"].value > scores["qa/needle/even"].value
    assert scores["qa/needle/gain"].value == pytest.approx(
        scores["qa/needle"].value - scores["qa/needle/even"].value
    )
    assert scores["qa/needle/rounds"].value == np.mean([len(each["rounds"]) for each in records])
    assert scores["qa/control/blank/needle"].value == 0
    assert scores["qa/drop/blank/needle"].n == 2


def test_the_reference_brackets_it(plan: MakePlan, tmp_path: Path) -> None:
    some = plan("qa/needle", 5)
    ((task, part),) = some.parts
    items = [task.item(part, index, some.setting) for index in range(5)]
    found = []
    for shift in (0, 1):
        ledger = Ledger(tmp_path / str(shift), {})
        ledger.append(task.run(Reference(some, shift), items, some.setting), 1.0)
        found.append(add_up(some, ledger))
    knows, chance = found
    for key in ("qa/needle", "qa/needle/even", "qa/needle/found", "qa/control/intact/needle"):
        assert knows[key].value == 1, key
    assert knows["qa/control/reversed/needle"].value == 0
    assert chance["qa/needle"].value <= 0.4


def test_a_report_shows_the_frames_of_every_round(plan: MakePlan, tmp_path: Path) -> None:
    some = plan("needle", 3)
    ((task, part),) = some.parts
    items = [task.item(part, index, some.setting) for index in range(3)]
    records = [each.record for each in task.run(Witness(some, items), items, some.setting)]
    for exhibit in task.exhibits(part, records, some.setting, tmp_path):
        record = next(each for each in records if each["question"] == exhibit.heading)
        page = figure(_case(exhibit))
        frames = [each for found in record["rounds"] for each in found["frames"]]
        assert page.count("<ol class=strip>") == len(record["rounds"])
        assert page.count("data:image/png") == len(frames)
        assert page.count("data:image/webp") == 1
        first, last = record["evidence"]
        assert page.count("<li class=marked>") == sum(first <= each <= last for each in frames)
        assert f"{record['rounds'][0]['times'][1]:.2f} s" in page
        assert "Round 1: 4 frames, sought “" in page
        assert ("nothing: rejected with a score of 0.20 (its own probability)" in page) == (
            record["rounds"][0]["said"] == "nothing"
        )
        assert "the film plays 4 times as fast as it is" in page
    drawn = [each["heading"] for each in map(vars, task.exhibits(part, records, some.setting, tmp_path))]
    assert len(drawn) == 3


def test_large_frames_become_photographs_and_words_stay_words() -> None:
    trace = {
        "settings": {"threshold": 0.7},
        "rounds": [
            {
                "select": {"query": "<b>a</b>", "frames": [3], "times": [0.1], "scores": [0.25]},
                "actor": {"text": "<i>"},
                "evaluator": {"score": 0.7, "reason": "a & b"},
            },
            {"select": {"query": "broken off", "frames": [1], "times": [0.0], "scores": None}},
        ],
    }
    rounds = rounds_of(trace)
    assert len(rounds) == 1 and rounds[0]["accepted"]
    clip = Clip(np.full((4, 90, 160, 3), 7, np.uint8), 30)
    (strip,) = strips(rounds, clip.frame)
    (frame,) = strip.frames
    assert (frame.picture.look, frame.picture.kind, frame.label) == ("photo", "image/webp", "0.10 s · 0.25")
    assert not frame.marked
    page = figure(Case(True, "q", strips=(strip,)))
    assert re.search(r"<i>|<b>", page) is None
    assert "&lt;i&gt;: accepted with a score of 0.70 (a &amp; b)" in page


def test_names() -> None:
    assert [part for _, part in chosen_parts(["needle", "qa/needle"], all_tasks())] == ["qa/needle"]
    with pytest.raises(UsageError, match="needle"):
        chosen_parts(["qa/needles"], all_tasks())
