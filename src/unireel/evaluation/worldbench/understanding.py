"""Questions about films, with controls that take the film's evidence away, and captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unireel.clip import Clip
from unireel.evaluation.intervals import Score, drop, mean, rate
from unireel.evaluation.pictures import webp
from unireel.evaluation.worldbench.setting import Setting
from unireel.evaluation.worldbench.task import Exhibit, Model, Outcome, Record, Task
from unireel.world.checker import describe
from unireel.world.facts import holds_in
from unireel.world.language import (
    DYNAMIC_TYPES,
    STATIC_TYPES,
    Question,
    caption_facts,
    caption_score,
    parse,
    sample_question,
    words,
)
from unireel.world.render import render
from unireel.world.scene import Scene

CONTROL_EVERY = 4
"""Every fourth question is asked again about the control films."""

CONTROLS: dict[str, Callable[[Clip], Clip]] = {
    "reversed": lambda clip: clip[::-1],
    "frozen": lambda clip: Clip(np.repeat(clip.frames[:1], len(clip), axis=0), clip.fps),
    "blank": lambda clip: Clip(np.zeros_like(clip.frames), clip.fps),
}
"""Films without (part of) the evidence: played backwards; the first frame only; nothing but the question's words."""

OPPOSITES = {
    "left": "right",
    "right": "left",
    "up": "down",
    "down": "up",
    "clockwise": "counter-clockwise",
    "counter-clockwise": "clockwise",
}
_ARTICLES_AND_MARKS = ("the", "a", "an", ".", ",", "?")


@dataclass(frozen=True)
class QuestionItem:
    """A question about the rendered film of ``scene``."""

    part: str
    index: int
    scene: Scene
    question: Question

    @property
    def text(self) -> str:
        """The question's words."""
        return self.question.text


@dataclass(frozen=True)
class CaptionItem:
    """A film to describe."""

    part: str
    index: int
    scene: Scene

    @property
    def text(self) -> str:
        """Nothing: a caption is asked for without words."""
        return ""


class Questions(Task):
    """Questions of every type about films of the mixture, each about a film of its own.

    ``qa/<type>``: exact answers. ``qa/static``, ``qa/dynamic``: all types of the group, equally often.
    ``qa/control/<name>``: the same questions (a quarter of them) about control films, "intact" about the films
    themselves; ``qa/drop/<name>``: accuracy about the film minus that about the control film.
    ``qa/control/reversed/flips``: questions of direction about reversed films that get the opposite answer.
    """

    name = "qa"
    needs = "ask_many"
    parts = tuple(f"qa/{each}" for each in (*STATIC_TYPES, *DYNAMIC_TYPES))
    batch_factor = 2

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[tuple[Setting, str], tuple[list[QuestionItem], int]] = {}

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Also the static and the dynamic types."""
        return super().groups() | GROUPS

    def draw(self, part: str, index: int, setting: Setting) -> QuestionItem:
        """Question number ``index``: scenes that decide no question of the type are passed over."""
        found, next_scene = self._found.get((setting, part), ([], 0))
        kind = part.removeprefix("qa/")
        while len(found) <= index:
            scene = setting.scene(part, next_scene)
            question = sample_question(scene, kind, setting.item_seed(part, next_scene))
            next_scene += 1
            if question:
                found.append(QuestionItem(part, len(found), scene, question))
        self._found[setting, part] = found, next_scene
        return found[index]

    def run(self, model: Model, items: Sequence[QuestionItem], setting: Setting) -> list[Outcome]:
        """Ask about the films and, for every fourth question, about the control films."""
        films = [render(item.scene) for item in items]
        pairs = [(film, item.text) for film, item in zip(films, items, strict=True)]
        controlled = [number for number, item in enumerate(items) if item.index % CONTROL_EVERY == 0]
        again = [(change(films[i]), items[i].text) for i in controlled for change in CONTROLS.values()]
        said = list(model.ask_many([*pairs, *again], batch_size=self.batch_factor * setting.batch))
        records = [
            _answered(item, each.text, each.confidence) for item, each in zip(items, said, strict=False)
        ]
        for place, number in enumerate(controlled):
            start = len(items) + place * len(CONTROLS)
            answers = dict(zip(CONTROLS, (each.text for each in said[start:]), strict=False))
            records[number]["controls"] = answers
        return [Outcome(record) for record in records]

    def scores(self, records: Mapping[str, Sequence[Record]]) -> dict[str, Score]:
        """Accuracy by type, by group and under the controls."""
        found = {
            part: rate([each["right"] for each in records[part]]) for part in self.parts if part in records
        }
        whole = {name: parts for name, parts in GROUPS.items() if all(part in records for part in parts)}
        for name, parts in whole.items():
            found[name] = rate([each["right"] for part in parts for each in records[part]])
        if len(whole) == len(GROUPS):
            found |= control_scores([each for part in self.parts for each in records[part]], "")
        for name, parts in whole.items():
            suffix = name.removeprefix("qa")
            found |= control_scores([each for part in parts for each in records[part]], suffix)
        flips = [
            same_answer(each["controls"]["reversed"], OPPOSITES[each["answer"]])
            for each in records.get("qa/direction", ())
            if "controls" in each
        ]
        return found | ({"qa/control/reversed/flips": rate(flips)} if flips else {})

    def exhibits(self, part: str, records: Sequence[Record], setting: Setting, films: Path) -> list[Exhibit]:
        """The first two wrong answers and the first right one."""
        wrong = [each for each in records if not each["right"]][:2]
        right = [each for each in records if each["right"]][:1]
        found = []
        for each in [*wrong, *right]:
            item = self.item(part, each["index"], setting)
            lines: list[tuple[bool | None, str]] = [
                (each["right"], f"{each['said']} ({each['confidence']:.0%} sure)")
            ]
            if not each["right"]:
                lines.append((None, f"right would be: {each['answer']}"))
            found.append(
                Exhibit(part, each["right"], each["question"], tuple(lines), webp(render(item.scene)))
            )
        return found


GROUPS = {
    "qa/static": tuple(f"qa/{each}" for each in STATIC_TYPES),
    "qa/dynamic": tuple(f"qa/{each}" for each in DYNAMIC_TYPES),
}


class Captions(Task):
    """Descriptions of films of the mixture: mean precision, recall and F1 of their facts over films.

    ``caption/control/<name>``: F1 of what is said of the control films (of a quarter of the films), against the facts
    of the original; "intact" is the film itself. ``caption/drop/<name>``: what the control costs.
    """

    name = "caption"
    needs = "caption_many"
    parts = ("caption",)
    batch_factor = 2

    def draw(self, part: str, index: int, setting: Setting) -> CaptionItem:
        """A film of the mixture."""
        return CaptionItem(part, index, setting.scene(part, index))

    def run(self, model: Model, items: Sequence[CaptionItem], setting: Setting) -> list[Outcome]:
        """Describe the films and, of every fourth, the control films, and compare facts."""
        films = [render(item.scene) for item in items]
        controlled = [number for number, item in enumerate(items) if item.index % CONTROL_EVERY == 0]
        again = [change(films[number]) for number in controlled for change in CONTROLS.values()]
        said = list(model.caption_many([*films, *again], batch_size=self.batch_factor * setting.batch))
        records = [_captioned(item, each.text) for item, each in zip(items, said, strict=False)]
        for place, number in enumerate(controlled):
            own = said[len(items) + place * len(CONTROLS) :]
            scene = items[number].scene
            records[number]["controls"] = {
                name: caption_score(each.text, scene).f1 for name, each in zip(CONTROLS, own, strict=False)
            }
        return [Outcome(record) for record in records]

    def scores(self, records: Mapping[str, Sequence[Record]]) -> dict[str, Score]:
        """Means over films, and under the controls."""
        found = records.get("caption", ())
        names = ("precision", "recall", "f1") if found else ()
        scores = {f"caption/{name}": mean([each[name] for each in found]) for name in names}
        asked = [each for each in found if "controls" in each]
        if asked:
            scores["caption/control/intact"] = mean([each["f1"] for each in asked])
            for name in CONTROLS:
                values = [each["controls"][name] for each in asked]
                costs = [each["f1"] - value for each, value in zip(asked, values, strict=True)]
                scores[f"caption/control/{name}"], scores[f"caption/drop/{name}"] = mean(values), mean(costs)
        return scores

    def exhibits(self, part: str, records: Sequence[Record], setting: Setting, films: Path) -> list[Exhibit]:
        """The worst captions, and the first perfect ones."""
        worst = [each for each in sorted(records, key=lambda each: each["f1"]) if not each["right"]][:6]
        perfect = [each for each in records if each["right"]][:3]
        found = []
        for each in [*worst, *perfect]:
            item = self.item(part, each["index"], setting)
            lines = [
                (None, f"F1 {each['f1']:.2f}"),
                *((False, f"not so: {fact}") for fact in each["false"]),
                *((False, f"not said: {fact}") for fact in each["missing"]),
            ]
            found.append(
                Exhibit(part, each["right"], each["caption"], tuple(lines), webp(render(item.scene)))
            )
        return found


def same_answer(said: str, right: str) -> bool:
    """Whether two answers are the same words, not counting articles, marks, case and spelling variants."""

    def bare(text: str) -> list[str]:
        return [each for each in words(text) if each not in _ARTICLES_AND_MARKS]

    return bare(said) == bare(right)


def control_scores(records: Sequence[Record], suffix: str) -> dict[str, Score]:
    """Accuracy of the controlled questions among ``records`` about every kind of film, and what the controls cost."""
    asked = [each for each in records if "controls" in each]
    if not asked:
        return {}
    intact = [each["right"] for each in asked]
    found = {f"qa/control/intact{suffix}": rate(intact)}
    for name in CONTROLS:
        right = [same_answer(each["controls"][name], each["answer"]) for each in asked]
        found[f"qa/control/{name}{suffix}"] = rate(right)
        found[f"qa/drop/{name}{suffix}"] = drop(intact, right)
    return found


def _answered(item: QuestionItem, said: str, confidence: float) -> Record:
    return {
        "part": item.part,
        "index": item.index,
        "question": item.text,
        "answer": item.question.answer,
        "said": said,
        "confidence": round(float(confidence), 4),
        "right": same_answer(said, item.question.answer),
    }


def _captioned(item: CaptionItem, caption: str) -> Record:
    score = caption_score(caption, item.scene)
    stated, complete = dict.fromkeys(parse(caption)), caption_facts(item.scene)
    return {
        "part": item.part,
        "index": item.index,
        "caption": caption,
        "precision": score.precision,
        "recall": score.recall,
        "f1": score.f1,
        "right": score.f1 == 1.0,
        "false": [describe(each) for each in stated if not holds_in(item.scene, each)],
        "missing": [describe(each) for each in complete if each not in stated],
    }
