"""Questions about long stories whose evidence lies in a few frames, answered with and without Pyramid Reflection."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unireel.clip import Clip
from unireel.evaluation.intervals import Score, drop, mean, rate
from unireel.evaluation.pictures import webp
from unireel.evaluation.strips import rounds_of, strips
from unireel.evaluation.worldbench.setting import Setting
from unireel.evaluation.worldbench.task import Exhibit, Outcome, Record, Statement, Task
from unireel.evaluation.worldbench.understanding import CONTROL_EVERY, CONTROLS, control_scores, same_answer
from unireel.world.language import Question
from unireel.world.needles import needle_questions
from unireel.world.render import render
from unireel.world.scene import Scene, stable_hash
from unireel.world.stories import sample_story

FRAMES = 257
"""Length of the stories: 32 seconds."""

EVEN = 16
"""Frames, evenly spread, that the model is shown without reflection: as many as the last rounds of the paper's."""

FASTER = 4
"""Every fourth frame of a story is enough for a page."""

SHOWN = {False: 4, True: 3}
"""How many wrong and right answers a report shows with their traces."""


class Reflected(Protocol):
    """An answer with the frames that it rests on (numbers in the film) and the trace of how it was found."""

    @property
    def text(self) -> str: ...
    @property
    def confidence(self) -> float: ...
    @property
    def evidence(self) -> Sequence[Any]: ...
    @property
    def trace(self) -> Mapping[str, Any]: ...


class Reflection(Protocol):
    """Answers a question about a film of any length."""

    def ask(self, film: Clip, question: str) -> Reflected: ...


class Reflecting(Protocol):
    """The part of a model that needles need: Pyramid Reflection, and answers from a few frames (n, H, W, 3) uint8.

    What reflection keeps of films goes to the folder ``cache``.
    """

    def reflection(self, *, cache: Path) -> Reflection: ...

    def ask_view(self, frames: np.ndarray, question: str) -> Statement: ...


@dataclass(frozen=True)
class Needle:
    """A question about the rendered story ``scene``."""

    part: str
    index: int
    scene: Scene
    question: Question

    @property
    def text(self) -> str:
        """The question's words."""
        return self.question.text


class Needles(Task):
    """One question about each of ``n`` stories.

    ``qa/needle``: right with Pyramid Reflection; ``qa/needle/even``: right from 16 even frames; ``qa/needle/gain``: the
    first minus the second, paired. ``qa/needle/found``: answers that rest on a frame of the evidence, and
    ``qa/needle/rounds``: rounds that it took. Every fourth question is asked again, with reflection, about the control
    films of ``qa``: ``qa/control/<name>/needle``, ``qa/drop/<name>/needle``.
    """

    name = "needle"
    needs = "reflection"
    parts = ("qa/needle",)

    def __init__(self) -> None:
        super().__init__()
        self._loop: tuple[Reflecting, Reflection, tempfile.TemporaryDirectory] | None = None

    def draw(self, part: str, index: int, setting: Setting) -> Needle:
        """The first story from number 1000 ``index`` on that allows such a question."""
        stream = stable_hash(f"worldbench/{setting.seed}/{part}") % 2**31
        seed = setting.item_seed(part, index)
        for number in range(1000 * index, 1000 * index + 1000):
            story = sample_story(stream, number, setting.split, FRAMES, setting.size)
            asked = [each for each in needle_questions(story, seed) if each.evidence is not None]
            if asked:
                return Needle(part, index, story, asked[0])
        raise RuntimeError("a thousand stories without a moment to ask about")

    def run(self, model: Any, items: Sequence[Needle], setting: Setting) -> list[Outcome]:
        """Ask with reflection, from even frames, and about the control films."""
        loop = self._reflection(model)
        return [Outcome(self._asked(model, loop, item)) for item in items]

    def scores(self, records: Mapping[str, Sequence[Record]]) -> dict[str, Score]:
        """With reflection, without, and how far the evidence was found."""
        found = records.get(self.parts[0], ())
        if not found:
            return {}
        right, even = ([each[name] for each in found] for name in ("right", "even_right"))
        scores = {
            "qa/needle": rate(right),
            "qa/needle/even": rate(even),
            "qa/needle/gain": drop(right, even),
            "qa/needle/found": rate([each["found"] for each in found]),
            "qa/needle/rounds": mean([len(each["rounds"]) for each in found]),
        }
        return scores | control_scores(found, "/needle")

    def exhibits(self, part: str, records: Sequence[Record], setting: Setting, films: Path) -> list[Exhibit]:
        """Wrong and right answers with the frames of every round, of either those with the most rounds."""
        chosen = [
            each
            for right, most in SHOWN.items()
            for each in sorted(
                (each for each in records if each["right"] is right), key=lambda each: -len(each["rounds"])
            )[:most]
        ]
        return [_exhibit(each, self.item(part, each["index"], setting)) for each in chosen]

    def _asked(self, model: Reflecting, loop: Reflection, item: Needle) -> Record:
        film, right = render(item.scene), item.question.answer
        reflected = loop.ask(film, item.text)
        even = model.ask_view(film.frames[even_frames(len(film))], item.text).text
        first, last = item.question.evidence or (0, len(film) - 1)
        record: Record = {
            "part": item.part,
            "index": item.index,
            "question": item.text,
            "answer": right,
            "said": reflected.text,
            "confidence": round(float(reflected.confidence), 4),
            "right": same_answer(reflected.text, right),
            "even": even,
            "even_right": same_answer(even, right),
            "found": any(first <= each.frame <= last for each in reflected.evidence),
            "evidence": [first, last],
            "rounds": rounds_of(reflected.trace),
        }
        if item.index % CONTROL_EVERY == 0:
            record["controls"] = {
                name: loop.ask(change(film), item.text).text for name, change in CONTROLS.items()
            }
        return record

    def _reflection(self, model: Reflecting) -> Reflection:
        """The model's, made once: it may have to load a ranker."""
        if self._loop is None or self._loop[0] is not model:
            # Pools of stories are not asked for again: they do not belong into the person's own cache.
            folder = tempfile.TemporaryDirectory(prefix="unireel-needles-")
            self._loop = model, model.reflection(cache=Path(folder.name)), folder
        return self._loop[1]


def even_frames(count: int) -> np.ndarray:
    """Numbers of :data:`EVEN` frames spread evenly over ``count``, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, EVEN).round().astype(int))


def _exhibit(record: Record, item: Needle) -> Exhibit:
    lines: list[tuple[bool | None, str]] = [
        (record["right"], f"{record['said'] or 'no answer'} ({record['confidence']:.0%} sure)")
    ]
    if not record["right"]:
        lines.append((None, f"right would be: {record['answer']}"))
    first, last = record["evidence"]
    film = render(item.scene)
    fps = film.fps
    lines += [
        (record["even_right"], f"from {EVEN} even frames: {record['even'] or 'no answer'}"),
        (None, f"it shows from {first / fps:.2f} s to {last / fps:.2f} s: marked frames lie there"),
    ]
    shown = strips(record["rounds"], film.frame, (first, last))
    playing = webp(film[::FASTER])
    return Exhibit(
        item.part, record["right"], record["question"], tuple(lines), playing, strips=shown, faster=FASTER
    )
