"""What WorldBench measures of UniVid alone: prompts that need a picture, films verified by the model, and controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unireel.clip import Clip
from unireel.evaluation.intervals import Score, rate
from unireel.evaluation.pictures import png
from unireel.evaluation.worldbench.generation import FilmItem, TextToVideo, fact_lines, judge
from unireel.evaluation.worldbench.setting import Setting
from unireel.evaluation.worldbench.task import Exhibit, Outcome, Record, Task
from unireel.systems.univid.pipeline import Control
from unireel.systems.univid.references import SHOWN, Referring, referring
from unireel.world.checker import check
from unireel.world.language import prompt_for
from unireel.world.scene import CLIP_FRAMES

BEST_OF = 4
ALL = "t2v/overall"
"""The part of WorldBench whose prompts controls and self-verification share: their runs can be compared in pairs."""

_TEXT = TextToVideo()


@dataclass(frozen=True)
class ReferringItem(FilmItem):
    """A film to make from a prompt and the picture that it speaks of."""

    referring: Referring

    @property
    def text(self) -> str:
        """The prompt's words, which do not say what the picture shows."""
        return self.referring.text


class ReferringToVideo(Task):
    """Prompts that need a picture to be understood: all facts hold of what the prompt means.

    ``ref/overall`` takes all parts together.
    """

    name = "ref"
    parts = tuple(f"ref/{each}" for each in SHOWN)

    def draw(self, part: str, index: int, setting: Setting) -> ReferringItem:
        """The first scene from number 1000 ``index`` on whose prompt can be said by a picture."""
        seed, shown = setting.item_seed(part, index), part.partition("/")[2]
        for number in range(1000 * index, 1000 * index + 1000):
            scene = setting.scene(part, number)
            made = referring(prompt_for(scene, seed), scene, seed, shown)  # type: ignore[arg-type]
            if made is not None:
                return ReferringItem(part, index, scene, made.direct, seed, made)
        raise RuntimeError("a thousand scenes without a prompt that could refer to a picture")

    def run(self, model: Any, items: Sequence[ReferringItem], setting: Setting) -> list[Outcome]:
        """Make the films and check them."""
        clips = made(model, items, setting, references=[item.referring.picture for item in items])
        return [Outcome(judge(item, clip), clip) for item, clip in zip(items, clips, strict=True)]

    def scores(self, records: Mapping[str, Sequence[Record]]) -> dict[str, Score]:
        """Each kind of prompt, and all together."""
        found = {
            part: rate([each["right"] for each in records[part]]) for part in self.parts if records.get(part)
        }
        every = [each["right"] for part in self.parts for each in records.get(part, ())]
        return {**found, "ref/overall": rate(every)} if every else {}

    def exhibits(self, part: str, records: Sequence[Record], setting: Setting, films: Path) -> list[Exhibit]:
        """The films that were kept, with the pictures that were shown."""
        return [
            Exhibit(
                *(part, each["right"], each["prompt"], fact_lines(each), (films / each["film"]).read_bytes()),
                png(self.item(part, each["index"], setting).referring.picture),
            )
            for each in records
            if each.get("film")
        ]


class Controlled(TextToVideo):
    """WorldBench's mixture of prompts with something taken away, see ``UniVid.generate_many``."""

    def __init__(self, name: str, control: Control = "none") -> None:
        super().__init__()
        self.control: Control = control
        self.name, self.parts = name, (f"{name}/overall",)  # type: ignore[misc]

    def groups(self) -> dict[str, tuple[str, ...]]:
        """The control's own name."""
        return Task.groups(self)

    def draw(self, part: str, index: int, setting: Setting) -> FilmItem:
        """The same prompt and noise as in ``t2v/overall``."""
        return same_item(part, index, setting)

    def run(self, model: Any, items: Sequence[FilmItem], setting: Setting) -> list[Outcome]:
        """Make the films and check them."""
        clips = made(model, items, setting, control=self.control)
        return [Outcome(judge(item, clip), clip) for item, clip in zip(items, clips, strict=True)]

    def scores(self, records: Mapping[str, Sequence[Record]]) -> dict[str, Score]:
        """All facts hold."""
        found = records.get(self.parts[0], ())
        return {self.parts[0]: rate([each["right"] for each in found])} if found else {}


class Shuffled(Controlled):
    """Each film with what the understanding model makes of the next prompt."""

    def run(self, model: Any, items: Sequence[FilmItem], setting: Setting) -> list[Outcome]:
        """Make the films and check them."""
        heard = [self.item(item.part, item.index + 1, setting).text for item in items]
        clips = made(model, items, setting, heard=heard)
        return [Outcome(judge(item, clip), clip) for item, clip in zip(items, clips, strict=True)]


class SelfVerified(Controlled):
    """Of :data:`BEST_OF` films of each prompt the one that the model itself believes in.

    ``best/one`` is a single film, ``best/chosen`` the one kept, ``best/any`` whether any of those it was kept from is
    right, and ``best/removed`` the share of the single films' failures that are right after choosing.
    """

    def __init__(self) -> None:
        super().__init__("best")

    def run(self, model: Any, items: Sequence[FilmItem], setting: Setting) -> list[Outcome]:
        """Make, choose and check."""
        outcomes = []
        ones = made(model, items, setting)
        found = model.best_of_many(
            [item.text for item in items],
            BEST_OF,
            seeds=[item.seed for item in items],
            steps=setting.steps,
            guidance=setting.guidance,
            batch_size=setting.batch,
        )
        for item, one, chosen in zip(items, ones, found, strict=True):
            rights = [check(clip, item.prompt.facts).all_hold for clip in chosen.clips]
            record = judge(item, chosen.clip) | {"rights": rights, "chosen": chosen.number}
            record["one"] = check(one, item.prompt.facts).all_hold
            record["beliefs"] = [round(each.score, 4) for each in chosen.verifications]
            outcomes.append(Outcome(record, chosen.clip))
        return outcomes

    def scores(self, records: Mapping[str, Sequence[Record]]) -> dict[str, Score]:
        """See the class."""
        found = records.get(self.parts[0], ())
        if not found:
            return {}
        failed = [each for each in found if not each["one"]]
        scores = {
            "best/one": rate([each["one"] for each in found]),
            "best/chosen": rate([each["right"] for each in found]),
            "best/any": rate([any(each["rights"]) for each in found]),
        }
        return scores | ({"best/removed": rate([each["right"] for each in failed])} if failed else {})


def all_measures() -> tuple[Task, ...]:
    """Every task: pictures, text alone, text under each control, and self-verification."""
    controls = Shuffled("shuffled"), Controlled("deaf", "deaf"), Controlled("unread", "unread")
    return ReferringToVideo(), TextToVideo(), *controls, SelfVerified()


def same_item(part: str, index: int, setting: Setting) -> FilmItem:
    """Item ``index`` of ``t2v/overall`` under another part's name."""
    item = _TEXT.item(ALL, index, setting)
    return FilmItem(part, index, item.scene, item.prompt, item.seed)


def made(model: Any, items: Sequence[FilmItem], setting: Setting, **options: Any) -> list[Clip]:
    """One film for each item."""
    return model.generate_many(
        [item.text for item in items],
        seeds=[item.seed for item in items],
        frames=CLIP_FRAMES,
        steps=setting.steps,
        guidance=setting.guidance,
        batch_size=setting.batch,
        **options,
    )
