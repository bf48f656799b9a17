"""What WorldBench measures of Omni-Video alone: routing, foreseen plans, think mode, and chains of edits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unireel.clip import Clip
from unireel.data.indirect import Indirect, indirect_for
from unireel.errors import UserError
from unireel.evaluation.intervals import Score, mean, rate
from unireel.evaluation.quality import psnr
from unireel.evaluation.worldbench.editing import LEAST_SHARE, EditItem, Edits
from unireel.evaluation.worldbench.generation import FilmItem, TextToVideo
from unireel.evaluation.worldbench.setting import Setting
from unireel.evaluation.worldbench.task import Exhibit, Outcome, Record, Task
from unireel.systems.omnivideo.speech import Kind, Thought, as_heard
from unireel.world.checker import check
from unireel.world.edits import OPERATIONS, Edit, edit_for
from unireel.world.facts import holds_in, motion_value
from unireel.world.language import prompt_for, questions_for, read_plan
from unireel.world.render import render
from unireel.world.scene import Scene

CHAIN = 5
"""Edits of a chain."""

TRIES = 1000


@dataclass(frozen=True)
class Turn:
    """Something that is said, about a film or without; ``wanted`` is what the model should make, None for words."""

    part: str
    index: int
    scene: Scene
    text: str
    clip: Clip | None
    wanted: Kind | None


class Routing(Task):
    """Whether the model answers what is asked and makes what is to be made.

    Questions are about a film or a picture, prompts come without, edits with a film or a picture.
    """

    name = "route"
    parts = ("route/question", "route/film", "route/picture", "route/edit")
    needs = "reply"

    def draw(self, part: str, index: int, setting: Setting) -> Turn:
        """A turn of the part's kind."""
        seed = setting.item_seed(part, index)
        for number in range(TRIES * index, TRIES * (index + 1)):
            scene = setting.scene(part, number)
            film = render(scene)
            shown = Clip(film.frames[:1], film.fps) if seed % 2 else film
            if part == "route/question":
                asked = questions_for(scene, seed)
                return Turn(part, index, scene, asked[seed % len(asked)].text, shown, None)
            if part != "route/edit":
                kind: Kind = "image" if part == "route/picture" else "video"
                text = as_heard(prompt_for(scene, seed).text, kind, False)
                return Turn(part, index, scene, text, None, kind)
            edit = edit_for(scene, None, seed)
            if edit:
                wanted: Kind = "image" if len(shown) == 1 else "video"
                return Turn(part, index, scene, edit.instruction, shown, wanted)
        raise RuntimeError("a thousand scenes without an edit")

    def run(self, model: Any, items: Sequence[Turn], setting: Setting) -> list[Outcome]:
        """Have the model reply."""
        outcomes = []
        for item in items:
            makes = model.reply(item.text, item.clip).makes
            right = (makes is None) == (item.wanted is None)
            record = {"part": item.part, "index": item.index, "prompt": item.text, "makes": makes}
            outcomes.append(Outcome(record | {"right": right, "kind_right": makes == item.wanted}))
        return outcomes

    def scores(self, records: Mapping[str, Sequence[Record]]) -> dict[str, Score]:
        """Answer or make, by kind of turn and in all; ``route/kind`` also film or picture."""
        every = [each for part in self.parts for each in records.get(part, ())]
        if not every:
            return {}
        found = {
            part: rate([each["right"] for each in records[part]]) for part in self.parts if records.get(part)
        }
        return {
            **found,
            "route/overall": rate([each["right"] for each in every]),
            "route/kind": rate([each["kind_right"] for each in every]),
        }

    def exhibits(self, part: str, records: Sequence[Record], setting: Setting, films: Path) -> list[Exhibit]:
        """There are no films."""
        return []


class Foreseeing(Edits):
    """Plans of edited films, before anything is drawn: the edits of :class:`Edits`, judged by what is said.

    ``plan/fulfils``: the instruction's facts hold in the plan. ``plan/objects``: it has the edited film's objects, each
    with size, colour and shape; ``plan/motions``: with what they do. ``plan/overall`` and ``plan/<operation>``: all of
    it, with background, style and camera. Places and times are not judged; of a film in grayscale, colours are not.
    """

    name = "plan"
    parts = tuple(f"plan/{each}" for each in OPERATIONS)
    needs = "foresee"

    def run(self, model: Any, items: Sequence[EditItem], setting: Setting) -> list[Outcome]:
        """Have the plans foreseen, and compare them with the edited films' scenes."""
        outcomes = []
        for item in items:
            plan = model.foresee(item.text, item.source)
            record = {"part": item.part, "index": item.index, "prompt": item.text, "plan": plan}
            outcomes.append(Outcome(record | _compared(read_plan(plan, item.edit.target.size), item.edit)))
        return outcomes

    def scores(self, records: Mapping[str, Sequence[Record]]) -> dict[str, Score]:
        """See the class."""
        found = [each for part in self.parts for each in records.get(part, ())]
        if not found:
            return {}
        names = {"overall": "right", "fulfils": "fulfils", "objects": "objects", "motions": "motions"}
        return {f"plan/{name}": rate([each[key] for each in found]) for name, key in names.items()} | {
            part: rate([each["right"] for each in records[part]]) for part in self.parts if records.get(part)
        }

    def exhibits(self, part: str, records: Sequence[Record], setting: Setting, films: Path) -> list[Exhibit]:
        """There are no films."""
        return []


def _compared(plan: Scene | None, edit: Edit) -> dict[str, bool]:
    """What is right of a plan."""
    if plan is None:
        return dict.fromkeys(("right", "fulfils", "objects", "motions"), False)
    colours = edit.source.style != "grayscale"

    def figures(scene: Scene, moving: bool) -> Counter:
        return Counter(
            (
                each.size,
                each.colour if colours else "",
                each.shape,
                tuple(motion_value(event) for event in each.events) if moving else (),
            )
            for each in scene.objects
        )

    target = edit.target
    fulfils = all(holds_in(plan, fact) for fact in edit.facts)
    objects, motions = (figures(plan, moving) == figures(target, moving) for moving in (False, True))
    film = all(
        one == two
        for one, two in (
            (plan.background, target.background),
            (plan.style, target.style),
            (plan.camera.motion, target.camera.motion),
        )
    )
    return {"right": fulfils and motions and film, "fulfils": fulfils, "objects": objects, "motions": motions}


class Indirectly:
    """Of an item that is asked for by an indirect request."""

    indirect: Indirect

    @property
    def text(self) -> str:
        """What is said."""
        return self.indirect.text


@dataclass(frozen=True)
class IndirectFilm(Indirectly, FilmItem):
    """A film to make from an indirect prompt."""

    indirect: Indirect


@dataclass(frozen=True)
class IndirectEdit(Indirectly, EditItem):
    """A film to edit by an indirect instruction."""

    indirect: Indirect


class Thinking(Task):
    """Indirect prompts and instructions, with think mode and without, from the same noise.

    ``think/on`` and ``think/off`` are the shares in which all that was asked for holds; ``think/understood`` is the
    share of thoughts that say the request as it was meant.
    """

    name = "think"
    parts = ("think/film", "think/edit")
    needs = "think"

    def draw(self, part: str, index: int, setting: Setting) -> FilmItem | EditItem:
        """The first scene from number 1000 ``index`` on about which something can be asked for indirectly."""
        seed = setting.item_seed(part, index)
        for number in range(TRIES * index, TRIES * (index + 1)):
            scene = setting.scene(part, number)
            if part == "think/film":
                prompt = prompt_for(scene, seed)
                found = indirect_for(prompt.text, scene, seed)
                if found:
                    return IndirectFilm(part, index, scene, prompt, seed, found)
                continue
            edit = edit_for(scene, "motion" if seed % 2 else None, seed)
            found = edit and indirect_for(edit.instruction, scene, seed)
            if edit and found:
                return IndirectEdit(part, index, edit, seed, found)
        raise RuntimeError("a thousand scenes about which nothing can be said indirectly")

    def run(self, model: Any, items: Sequence[Any], setting: Setting) -> list[Outcome]:
        """Make or edit the films both ways, and check them."""
        thoughts = [_thought(model, item) for item in items]
        options = {
            "seeds": [item.seed for item in items],
            "steps": setting.steps,
            "guidance": setting.guidance,
            "batch_size": setting.batch,
        }
        made = []
        for chosen in ([None] * len(items), thoughts):
            if isinstance(items[0], IndirectFilm):
                made.append(model.generate_many([item.text for item in items], thoughts=chosen, **options))
            else:
                pairs = [(item.source, item.text) for item in items]
                made.append(model.edit_many(pairs, thoughts=chosen, **options))
        outcomes = []
        for item, thought, plain, clip in zip(items, thoughts, *made, strict=True):
            facts = item.edit.facts if isinstance(item, IndirectEdit) else item.prompt.facts
            record = {"part": item.part, "index": item.index, "prompt": item.text}
            record |= {"meant": item.indirect.direct, "thought": thought and thought.prompt}
            record["understood"] = record["meant"] == record["thought"]
            record["off"] = check(plain, facts).all_hold
            record["right"] = check(clip, facts).all_hold
            outcomes.append(Outcome(record, clip))
        return outcomes

    def scores(self, records: Mapping[str, Sequence[Record]]) -> dict[str, Score]:
        """See the class; also for each part."""
        found = {part: list(records[part]) for part in self.parts if records.get(part)}
        if not found:
            return {}
        every = {"think": [each for part in found.values() for each in part], **found}
        names = {"off": "off", "on": "right", "understood": "understood"}
        return {
            f"{part}/{name}": rate([each[key] for each in own])
            for part, own in every.items()
            for name, key in names.items()
        }

    def exhibits(self, part: str, records: Sequence[Record], setting: Setting, films: Path) -> list[Exhibit]:
        """The films that were kept, with what was thought."""
        return [
            Exhibit(
                part,
                each["right"],
                each["prompt"],
                ((each["understood"], f"thought: {each['thought']}"), (each["off"], "without thinking")),
                (films / each["film"]).read_bytes(),
            )
            for each in records
            if each.get("film")
        ]


@dataclass(frozen=True)
class ChainItem:
    """A film and edits of it, each of what the one before leaves."""

    part: str
    index: int
    edits: tuple[Edit, ...]
    seed: int

    @property
    def scene(self) -> Scene:
        """Of the film before any edit."""
        return self.edits[0].source

    @property
    def text(self) -> str:
        """All instructions."""
        return ", then ".join(each.instruction for each in self.edits)

    @cached_property
    def untouched(self) -> np.ndarray:
        """Which pixels are the same in all films of the chain: (F, S, S) bool."""
        films = [render(self.scene).frames, *(render(each.target).frames for each in self.edits)]
        return np.logical_and.reduce([(each == films[0]).all(-1) for each in films])


class Chains(Task):
    """Five edits one after the other: ``chain/preserve_psnr`` is the mean PSNR in dB of what none of them touches,
    ``chain/last`` whether what the last one asked for holds."""

    name = "chain"
    parts = ("chain/overall",)
    needs = "edit_many"

    def draw(self, part: str, index: int, setting: Setting) -> ChainItem:
        """The first scene from number 1000 ``index`` on that allows so many edits and keeps enough untouched."""
        seed = setting.item_seed(part, index)
        for number in range(TRIES * index, TRIES * (index + 1)):
            scene, edits = setting.scene(part, number), []
            while len(edits) < CHAIN:
                edit = edit_for(scene, None, seed + len(edits))
                if edit is None:
                    break
                edits.append(edit)
                scene = edit.target
            if len(edits) == CHAIN:
                item = ChainItem(part, index, tuple(edits), seed)
                if item.untouched.mean() >= LEAST_SHARE:
                    return item
        raise RuntimeError("a thousand scenes without a chain of edits")

    def run(self, model: Any, items: Sequence[ChainItem], setting: Setting) -> list[Outcome]:
        """Edit the films again and again."""
        clips = [render(item.scene) for item in items]
        for step in range(CHAIN):
            pairs = [(clip, item.edits[step].instruction) for clip, item in zip(clips, items, strict=True)]
            clips = model.edit_many(
                pairs,
                seeds=[item.seed + step for item in items],
                steps=setting.steps,
                guidance=setting.guidance,
                batch_size=setting.batch,
            )
        outcomes = []
        for item, clip in zip(items, clips, strict=True):
            tall, wide = (-1, *clip.frames.shape[2:]), (-1, clip.frames.shape[2])
            source = render(item.scene).frames.reshape(tall)
            quality = psnr(
                np.ascontiguousarray(clip.frames).reshape(tall), source, item.untouched.reshape(wide)
            )
            right = check(clip, item.edits[-1].facts).all_hold
            record = {"part": item.part, "index": item.index, "prompt": item.text, "right": right}
            outcomes.append(Outcome(record | {"psnr": None if quality is None else round(quality, 2)}, clip))
        return outcomes

    def scores(self, records: Mapping[str, Sequence[Record]]) -> dict[str, Score]:
        """See the class."""
        found = records.get(self.parts[0], ())
        measured = [each["psnr"] for each in found if each["psnr"] is not None]
        if not measured:
            return {}
        return {"chain/preserve_psnr": mean(measured), "chain/last": rate([each["right"] for each in found])}

    def exhibits(self, part: str, records: Sequence[Record], setting: Setting, films: Path) -> list[Exhibit]:
        """The films after the last edit that were kept."""
        return [
            Exhibit(
                part,
                each["right"],
                each["prompt"],
                ((None, f"what should stay: {each['psnr']} dB"),),
                (films / each["film"]).read_bytes(),
            )
            for each in records
            if each.get("film")
        ]


def all_measures() -> tuple[Task, ...]:
    """Every task: films from words, edits, their plans, routing, think mode, chains of edits."""
    return TextToVideo(), Edits(), Foreseeing(), Routing(), Thinking(), Chains()


def _thought(model: Any, item: IndirectFilm | IndirectEdit) -> Thought | None:
    """What the model thinks of a request, None if it does not finish."""
    try:
        return model.think(item.text, None if isinstance(item, IndirectFilm) else item.source)
    except UserError:
        return None
