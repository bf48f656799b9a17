"""Films edited as an instruction says, judged by the checker: what was asked for holds, and the rest is as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from unireel.clip import Clip
from unireel.evaluation.intervals import Score, mean, rate
from unireel.evaluation.pictures import webp
from unireel.evaluation.quality import psnr
from unireel.evaluation.worldbench.generation import check_films, fact_lines
from unireel.evaluation.worldbench.setting import Setting
from unireel.evaluation.worldbench.task import Exhibit, Model, Outcome, Record, Task
from unireel.world.checker import check, describe, untouched_facts
from unireel.world.edits import OPERATIONS, Edit, edit_for
from unireel.world.facts import Fact
from unireel.world.render import render
from unireel.world.scene import Scene

LEAST_SHARE = 0.05
"""Share of the film's pixels that an edit has to leave alone for their preservation to be measured."""


@dataclass(frozen=True)
class EditItem:
    """A film to edit: ``edit`` holds it as a scene, the instruction, and the film that is asked for."""

    part: str
    index: int
    edit: Edit
    seed: int

    @property
    def scene(self) -> Scene:
        """The scene of the film before the edit."""
        return self.edit.source

    @property
    def text(self) -> str:
        """The instruction."""
        return self.edit.instruction

    @cached_property
    def source(self) -> Clip:
        """The film before the edit."""
        return render(self.edit.source)

    @property
    def untouched(self) -> tuple[Fact, ...]:
        """What is true of the film before the edit and of the one that is asked for."""
        return untouched_facts(self.edit.source, self.edit.target)


class Edits(Task):
    """Edited films: what the instruction asks for holds, and what it does not touch still holds.

    ``edit/compliance`` is the first alone, ``edit/kept`` the second alone, ``edit/overall`` and ``edit/<operation>``
    both. ``edit/preserve_psnr`` is the mean PSNR in dB, against the source, of the pixels that the right edit leaves
    alone. ``edit/control/unchanged`` is what the sources themselves would get: the score of doing nothing.
    """

    name = "edit"
    parts = tuple(f"edit/{each}" for each in OPERATIONS)
    needs = "edit"

    def draw(self, part: str, index: int, setting: Setting) -> EditItem:
        """An edit of the part's operation: of the first scene of a sequence of its own that allows one."""
        operation, seed = part.partition("/")[2], setting.item_seed(part, index)
        edit, tries = None, 0
        while edit is None:
            edit = edit_for(setting.scene(f"{part}/{tries}" if tries else part, index), operation, seed)
            tries += 1
        return EditItem(part, index, edit, seed)

    def run(self, model: Model, items: Sequence[EditItem], setting: Setting) -> list[Outcome]:
        """Have the films edited, and check them."""
        clips = edited_films(model, items, setting)
        return [Outcome(judge(item, clip), clip) for item, clip in zip(items, clips, strict=True)]

    def scores(self, records: Mapping[str, Sequence[Record]]) -> dict[str, Score]:
        """The whole, its halves, preservation, the operations."""
        found = [each for part in self.parts for each in records.get(part, ())]
        if not found:
            return {}
        scores = {
            "edit/overall": rate([each["right"] for each in found]),
            "edit/compliance": rate([each["complied"] for each in found]),
            "edit/kept": rate([each["kept"] for each in found]),
        }
        measured = [each["psnr"] for each in found if each["psnr"] is not None]
        if measured:
            scores["edit/preserve_psnr"] = mean(measured)
        scores |= {
            part: rate([each["right"] for each in records[part]]) for part in self.parts if part in records
        }
        return scores | {"edit/control/unchanged": rate([each["unchanged"] for each in found])}

    def exhibits(self, part: str, records: Sequence[Record], setting: Setting, films: Path) -> list[Exhibit]:
        """The edited films that were kept, beside their sources."""
        found = []
        for each in records:
            if not each.get("film"):
                continue
            lines = [*fact_lines(each), *((False, f"no more: {fact}") for fact in each["lost"])]
            if each["psnr"] is not None:
                lines.append((None, f"what should stay: {each['psnr']:.1f} dB"))
            content = (films / each["film"]).read_bytes()
            source = webp(self.item(part, each["index"], setting).source)
            found.append(Exhibit(part, each["right"], each["prompt"], tuple(lines), content, source=source))
        return found


def edited_films(model: Model, items: Sequence[EditItem], setting: Setting) -> list[Clip]:
    """The edited film of each item, from ``model.edit_many`` if there is one, else from ``model.edit``.

    Raises:
        UserError: the model's films have another size or length than their sources.
    """
    sampling = {"steps": setting.steps, "guidance": setting.guidance}
    editor = getattr(model, "edit_many", None)
    if editor is None:
        one = model.edit  # type: ignore[attr-defined]
        clips = [one(item.source, item.text, seed=item.seed, **sampling) for item in items]
    else:
        pairs = [(item.source, item.text) for item in items]
        seeds = [item.seed for item in items]
        clips = editor(pairs, seeds=seeds, batch_size=setting.batch, **sampling)
    check_films(clips, setting)
    return clips


def judge(item: EditItem, clip: Clip) -> Record:
    """The record of an edited film."""
    asked, untouched = item.edit.facts, item.untouched
    verdict = check(clip, (*asked, *untouched))
    held = [bool(holds) for _, holds in verdict.outcomes]
    complied, kept = all(held[: len(asked)]), all(held[len(asked) :])
    return {
        "part": item.part,
        "index": item.index,
        "seed": item.seed,
        "prompt": item.text,
        "right": complied and kept,
        "complied": complied,
        "kept": kept,
        "unchanged": check(item.source, asked).all_hold,
        "psnr": preserved(item, clip),
        "facts": [
            [fact.kind, describe(fact), holds] for fact, holds in zip(asked, held[: len(asked)], strict=True)
        ],
        "lost": [
            describe(fact) for fact, holds in zip(untouched, held[len(asked) :], strict=True) if not holds
        ],
        "seen": str(verdict.observation),
    }


def preserved(item: EditItem, clip: Clip) -> float | None:
    """PSNR in dB of the pixels that source and right film have alike; None if they are too few."""
    source, target = item.source.frames, render(item.edit.target).frames
    alike = (source == target).all(-1)
    if alike.mean() < LEAST_SHARE:
        return None
    # All frames as one tall picture, so that every pixel that should stay counts alike.
    tall, wide = (-1, *source.shape[2:]), (-1, source.shape[2])
    quality = psnr(np.ascontiguousarray(clip.frames).reshape(tall), source.reshape(tall), alike.reshape(wide))
    return None if quality is None else round(quality, 2)
