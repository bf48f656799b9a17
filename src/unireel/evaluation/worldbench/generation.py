"""Films from words (T2V) and from a first frame and words (I2V), judged by the checker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.intervals import Score, rate
from unireel.evaluation.pictures import png
from unireel.evaluation.quality import psnr
from unireel.evaluation.worldbench.setting import Setting
from unireel.evaluation.worldbench.task import Exhibit, Model, Outcome, Record, Task
from unireel.world.checker import check, describe
from unireel.world.facts import DYNAMIC_KINDS, KINDS
from unireel.world.language import Prompt, prompt_for
from unireel.world.render import render_frames
from unireel.world.sampling import CATEGORIES, MIXTURE
from unireel.world.scene import CLIP_FRAMES, Scene

OVERALL = "overall"
KEPT_DB = 30.0
"""Least PSNR in dB between the given first frame and that of the film for the frame to be kept."""


@dataclass(frozen=True)
class FilmItem:
    """A film to make: ``prompt`` is a request that ``scene`` fulfils, ``seed`` that of the noise."""

    part: str
    index: int
    scene: Scene
    prompt: Prompt
    seed: int

    @property
    def text(self) -> str:
        """The prompt's words."""
        return self.prompt.text

    @cached_property
    def first_frame(self) -> np.ndarray:
        """Frame 0 of the scene: (S, S, 3) uint8."""
        return render_frames(self.scene)[0]


class TextToVideo(Task):
    """Films from words: all requested facts hold.

    ``t2v/overall`` is the World's mixture, ``t2v/<category>`` each category's own prompts, and
    ``t2v/facts/<kind>`` the share of the mixture's prompts requesting such facts in which all of them hold.
    """

    name = "t2v"
    needs = "generate_many"
    parts = tuple(f"t2v/{each}" for each in (OVERALL, *CATEGORIES))

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Also the bare names of the categories."""
        return super().groups() | {part.removeprefix("t2v/"): (part,) for part in self.parts}

    def draw(self, part: str, index: int, setting: Setting) -> FilmItem:
        """The request number ``index`` of the part's category."""
        name = part.partition("/")[2]
        category = MIXTURE if name == OVERALL else name
        scene, seed = setting.scene(part, index, category), setting.item_seed(part, index)
        return FilmItem(part, index, scene, prompt_for(scene, seed, category), seed)

    def run(self, model: Model, items: Sequence[FilmItem], setting: Setting) -> list[Outcome]:
        """Make the films and check them."""
        clips = make_films(model, items, setting, None)
        return [Outcome(judge(item, clip), clip) for item, clip in zip(items, clips, strict=True)]

    def scores(self, records: Mapping[str, Sequence[Record]]) -> dict[str, Score]:
        """All facts hold, per part; kinds of facts, of the mixture."""
        found = {
            part: rate([each["right"] for each in records[part]]) for part in self.parts if part in records
        }
        return found | by_kind("t2v/facts", records.get(f"t2v/{OVERALL}", ()))

    def exhibits(self, part: str, records: Sequence[Record], setting: Setting, films: Path) -> list[Exhibit]:
        """The films that were kept, with their facts."""
        return [
            Exhibit(
                part, each["right"], each["prompt"], fact_lines(each), (films / each["film"]).read_bytes()
            )
            for each in records
            if each.get("film")
        ]


class ImageToVideo(Task):
    """Films from a first frame and words: the frame is kept, and all requested facts hold.

    ``i2v/first_frame`` is the first alone, ``i2v/facts`` the second alone, ``i2v/motion`` the requested motions,
    orders and camera motions alone, of the prompts that request any.
    """

    name = "i2v"
    needs = "generate_many"
    parts = (f"i2v/{OVERALL}",)

    def draw(self, part: str, index: int, setting: Setting) -> FilmItem:
        """A prompt of the mixture; the first frame is that of its scene."""
        scene, seed = setting.scene(part, index), setting.item_seed(part, index)
        return FilmItem(part, index, scene, prompt_for(scene, seed), seed)

    def run(self, model: Model, items: Sequence[FilmItem], setting: Setting) -> list[Outcome]:
        """Make the films, compare first frames, and check the rest."""
        clips = make_films(model, items, setting, [item.first_frame for item in items])
        outcomes = []
        for item, clip in zip(items, clips, strict=True):
            record = judge(item, clip)
            quality = psnr(clip.frame(0), item.first_frame) or 0.0
            kept = quality >= KEPT_DB
            record |= {"psnr": round(quality, 2), "kept": kept, "facts_right": record["right"]}
            outcomes.append(Outcome(record | {"right": kept and record["right"]}, clip))
        return outcomes

    def scores(self, records: Mapping[str, Sequence[Record]]) -> dict[str, Score]:
        """The whole and its halves."""
        found = records.get(self.parts[0], ())
        if not found:
            return {}
        moving = [kinds for each in found if (kinds := _of_kinds(each, DYNAMIC_KINDS))]
        scores = {
            "i2v/overall": rate([each["right"] for each in found]),
            "i2v/first_frame": rate([each["kept"] for each in found]),
            "i2v/facts": rate([each["facts_right"] for each in found]),
        }
        return scores | ({"i2v/motion": rate([all(each) for each in moving])} if moving else {})

    def exhibits(self, part: str, records: Sequence[Record], setting: Setting, films: Path) -> list[Exhibit]:
        """The films that were kept, with their first frames and facts."""
        found = []
        for each in records:
            if not each.get("film"):
                continue
            lines = ((each["kept"], f"first frame at {each['psnr']:.1f} dB"), *fact_lines(each))
            content = (films / each["film"]).read_bytes()
            first = png(self.item(part, each["index"], setting).first_frame)
            found.append(Exhibit(part, each["right"], each["prompt"], lines, content, first))
        return found


def make_films(
    model: Model,
    items: Sequence[FilmItem],
    setting: Setting,
    images: list[np.ndarray] | None,
    frames: int = CLIP_FRAMES,
) -> list[Clip]:
    """One film of ``frames`` frames for each item.

    Raises:
        UserError: the model's films have another size than it says.
    """
    prompts = [item.text for item in items]
    options = {
        "images": images,
        "seeds": [item.seed for item in items],
        "frames": frames,
        "steps": setting.steps,
        "guidance": setting.guidance,
        "batch_size": setting.batch,
    }
    if setting.best_of > 1:
        clips = [each.clip for each in model.best_of_many(prompts, setting.best_of, **options)]  # type: ignore[attr-defined]
    else:
        clips = model.generate_many(prompts, **options)
    check_films(clips, setting, frames)
    return clips


def check_films(clips: Sequence[Clip], setting: Setting, frames: int = CLIP_FRAMES) -> None:
    """Raise a :class:`UserError` unless all films have that many frames and the setting's size."""
    wanted = (frames, setting.size, setting.size, 3)
    for clip in clips:
        if clip.frames.shape != wanted:
            raise UserError(f"the model made frames of shape {clip.frames.shape}; WorldBench needs {wanted}")


def judge(item: FilmItem, clip: Clip) -> Record:
    """The record of a film: every requested fact, whether it holds, and what the checker saw."""
    verdict = check(clip, item.prompt.facts)
    return {
        "part": item.part,
        "index": item.index,
        "seed": item.seed,
        "prompt": item.text,
        "right": all(bool(holds) for _, holds in verdict.outcomes),
        "facts": [[fact.kind, describe(fact), bool(holds)] for fact, holds in verdict.outcomes],
        "seen": str(verdict.observation),
    }


def by_kind(prefix: str, records: Sequence[Record]) -> dict[str, Score]:
    """For every kind of fact that is requested: in what share of these requests all facts of the kind hold."""
    outcomes = {kind: [all(o) for each in records if (o := _of_kinds(each, (kind,)))] for kind in KINDS}
    return {f"{prefix}/{kind}": rate(found) for kind, found in outcomes.items() if found}


def fact_lines(record: Record) -> tuple[tuple[bool | None, str], ...]:
    """The facts of a record for the report, failures first, and what was seen instead."""
    facts = sorted(((holds, text) for _, text, holds in record["facts"]), key=lambda each: each[0])
    seen = () if record["right"] else ((None, f"seen: {record['seen']}"),)
    return (*facts, *seen)


def _of_kinds(record: Record, kinds: tuple[str, ...]) -> list[bool]:
    return [holds for kind, _, holds in record["facts"] if kind in kinds]
