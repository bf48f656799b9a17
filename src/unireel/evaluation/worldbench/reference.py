"""Models without weights that prove the benchmark: one that knows everything, and one that does another item's work."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.worldbench.editing import EditItem
from unireel.evaluation.worldbench.generation import FilmItem, ImageToVideo
from unireel.evaluation.worldbench.needles import EVEN, Needle, even_frames
from unireel.evaluation.worldbench.runner import Plan
from unireel.evaluation.worldbench.task import Item
from unireel.evaluation.worldbench.understanding import QuestionItem
from unireel.world.language import caption_for
from unireel.world.render import render
from unireel.world.scene import Scene

NAMES = {"world:oracle": 0, "world:shuffled": 1}
"""Models by name, and how many items further the item lies whose work they do."""

SIZE = 48
"""Side of their films in pixels, as of the pocket models."""


@dataclass(frozen=True)
class Said:
    """An answer or a caption."""

    text: str
    confidence: float


@dataclass(frozen=True)
class Seen:
    """A frame that an answer rests on."""

    frame: int


@dataclass(frozen=True)
class Found(Said):
    """An answer to a question about a story, and how it was found: the frames where it shows, looked at once."""

    evidence: tuple[Seen, ...]
    trace: dict[str, Any]


@dataclass(frozen=True)
class Imagined:
    """A film with its description."""

    clip: Clip
    caption: Said


class Reference:
    """Renders and answers what it knows of a plan's items; of films it does not know it says nothing.

    With ``shift`` 0 it does what it is asked to. With ``shift`` 1 it does what the *next* item of the part asks for:
    that has the right distribution and nothing to do with the request, so its scores are those of chance.
    """

    size = SIZE

    def __init__(self, plan: Plan, shift: int) -> None:
        self._films: dict[str, Scene] = {}
        self._edits: dict[str, Scene] = {}
        self._answers: dict[str, str] = {}
        self._captions: dict[str, str] = {}
        self._stories: dict[str, str] = {}
        self._shows: dict[str, tuple[int, int]] = {}
        for task, part in plan.parts:
            items = [task.item(part, index, plan.setting) for index in range(plan.n + shift)]
            for item, done in zip(items, items[shift:], strict=False):
                self._learn(item, done, isinstance(task, ImageToVideo))

    def generate_many(
        self,
        prompts: Sequence[str],
        images: Sequence[np.ndarray] | None = None,
        seeds: Sequence[int] | None = None,
        frames: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        batch_size: int = 16,
    ) -> list[Clip]:
        """The films of the scenes from which the prompts (and images) were made.

        Raises:
            UserError: a prompt is not one of the plan's.
        """
        keys = [_key(text, None if images is None else images[i]) for i, text in enumerate(prompts)]
        unknown = [text for text, key in zip(prompts, keys, strict=True) if key not in self._films]
        if unknown:
            raise UserError(
                f"the reference model only knows the benchmark's own requests, not '{unknown[0]}'"
            )
        return [render(self._films[key])[:frames] for key in keys]

    def imagine_many(self, prompts: Sequence[str], **options: Any) -> list[Imagined]:
        """The films of :meth:`generate_many` with their true descriptions."""
        clips = self.generate_many(prompts, **options)
        return [
            Imagined(clip, _said(self._stories[_key(text, None)]))
            for clip, text in zip(clips, prompts, strict=True)
        ]

    def edit(
        self,
        clip: Clip,
        instruction: str,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> Clip:
        """The film that the instruction asks for; the film itself if the instruction is not the plan's."""
        scene = self._edits.get(_key(instruction, clip.frames))
        return clip if scene is None else render(scene)

    def ask_many(self, pairs: Sequence[tuple[Clip, str]], batch_size: int = 32) -> list[Said]:
        """The answers; nothing about films that are not the plan's."""
        return [_said(self._answers.get(_key(text, clip.frames))) for clip, text in pairs]

    def ask_view(self, frames: np.ndarray, question: str) -> Said:
        """The answer from a few frames of a film of the plan."""
        return _said(self._answers.get(_key(question, frames)))

    def reflection(self, *, cache: Path | None = None) -> Reference:
        """Itself: it knows where to look. Nothing is kept in ``cache``."""
        return self

    def ask(self, film: Clip, question: str) -> Found:
        """The answer about a story, from the frames in which it shows; nothing about films that are not the plan's."""
        key = _key(question, film.frames)
        said, shows = _said(self._answers.get(key)), self._shows.get(key)
        if shows is None:
            return Found(said.text, said.confidence, (), {"settings": {"threshold": 1.0}, "rounds": []})
        first, last = shows
        frames = np.unique(np.linspace(first, last, min(EVEN, last - first + 1)).round().astype(int)).tolist()
        selected = {"query": question, "frames": frames, "times": [each / film.fps for each in frames]}
        looked = {
            "select": {**selected, "scores": None},
            "actor": {"text": said.text},
            "evaluator": {"score": said.confidence, "reason": "it knows"},
        }
        trace = {"settings": {"threshold": 1.0}, "rounds": [looked]}
        return Found(said.text, said.confidence, tuple(map(Seen, frames)), trace)

    def caption_many(self, clips: Sequence[Clip], batch_size: int = 32) -> list[Said]:
        """The captions; nothing about films that are not the plan's."""
        return [_said(self._captions.get(_key("", clip.frames))) for clip in clips]

    def _learn(self, item: Item, done: Item, with_image: bool) -> None:
        if isinstance(item, FilmItem):
            key = _key(item.text, item.first_frame if with_image else None)
            self._films[key], self._stories[key] = done.scene, caption_for(done.scene)
        elif isinstance(item, EditItem) and isinstance(done, EditItem):
            self._edits[_key(item.text, item.source.frames)] = done.edit.target
        elif isinstance(item, QuestionItem) and isinstance(done, QuestionItem):
            self._answers[_key(item.text, render(item.scene).frames)] = done.question.answer
        elif isinstance(item, Needle) and isinstance(done, Needle):
            film = render(item.scene).frames
            keys = _key(item.text, film), _key(item.text, film[even_frames(len(film))])
            self._answers |= dict.fromkeys(keys, done.question.answer)
            self._shows[keys[0]] = done.question.evidence or (0, len(film) - 1)
        else:
            self._captions[_key("", render(item.scene).frames)] = caption_for(done.scene)


def _said(text: str | None) -> Said:
    return Said("", 0.0) if text is None else Said(text, 1.0)


def _key(text: str, pixels: np.ndarray | None) -> str:
    content = b"" if pixels is None else np.ascontiguousarray(pixels).tobytes()
    return hashlib.sha256(text.encode() + b"\0" + content).hexdigest()
