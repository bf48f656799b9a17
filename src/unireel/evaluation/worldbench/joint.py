"""Films made together with a description of them: whether the two agree, and whether the film is what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unireel.evaluation.intervals import Score, rate
from unireel.evaluation.worldbench.generation import (
    FilmItem,
    TextToVideo,
    by_kind,
    check_films,
    fact_lines,
    judge,
)
from unireel.evaluation.worldbench.setting import Setting
from unireel.evaluation.worldbench.task import Exhibit, Outcome, Record, Task
from unireel.world.checker import check, describe
from unireel.world.language.parser import read

DETAILED = {"count", "object", "motion", "background", "camera", "style"}
"""Kinds of facts that a detailed description states, whatever the film."""


class Joint(TextToVideo):
    """Films with descriptions, both from noise, of the mixture's prompts.

    ``joint/agreement``: the description is detailed (:data:`DETAILED`), all of it is in the World's language, and all
    that it states holds in the film. ``joint/prompt``: all that the prompt requests holds in the film, of which
    ``joint/facts/<kind>`` are the kinds. ``joint/both``: both.
    """

    name = "joint"
    needs = "imagine_many"
    parts = ("joint",)

    def groups(self) -> dict[str, tuple[str, ...]]:
        """The whole."""
        return Task.groups(self)

    def draw(self, part: str, index: int, setting: Setting) -> FilmItem:
        """The request number ``index`` of ``t2v/overall``: films with and without a description can be compared."""
        return super().draw("t2v/overall", index, setting)

    def run(self, model: Any, items: Sequence[FilmItem], setting: Setting) -> list[Outcome]:
        """Make films and descriptions, and check each film against the prompt and against its description."""
        made = model.imagine_many(
            [item.text for item in items],
            seeds=[item.seed for item in items],
            steps=setting.steps,
            guidance=setting.guidance,
            batch_size=setting.batch,
        )
        check_films([each.clip for each in made], setting)
        outcomes = []
        for item, each in zip(items, made, strict=True):
            record = judge(item, each.clip) | {"part": self.name}
            reading = read(each.caption.text)
            held = check(each.clip, tuple(reading.facts)).outcomes
            detailed = {fact.kind for fact in reading.facts} >= DETAILED and not reading.skipped
            agrees = detailed and all(bool(holds) for _, holds in held)
            record |= {
                "obeys": record["right"],
                "caption": each.caption.text,
                "detailed": detailed,
                "agrees": agrees,
                "false": [describe(fact) for fact, holds in held if not holds],
                "right": agrees and record["right"],
            }
            outcomes.append(Outcome(record, each.clip))
        return outcomes

    def scores(self, records: Mapping[str, Sequence[Record]]) -> dict[str, Score]:
        """Agreement, obedience, both, and obedience by kind of fact."""
        found = records.get(self.name, ())
        if not found:
            return {}
        keys = {"agreement": "agrees", "prompt": "obeys", "both": "right"}
        scores = {f"joint/{name}": rate([each[key] for each in found]) for name, key in keys.items()}
        return scores | by_kind("joint/facts", found)

    def exhibits(self, part: str, records: Sequence[Record], setting: Setting, films: Path) -> list[Exhibit]:
        """The films that were kept, with their descriptions and facts."""
        found = []
        for each in records:
            if not each.get("film"):
                continue
            lines: list[tuple[bool | None, str]] = [(each["agrees"], f"described as: {each['caption']}")]
            lines += [(False, f"not so: {fact}") for fact in each["false"]]
            lines += fact_lines(each)
            content = (films / each["film"]).read_bytes()
            found.append(Exhibit(part, each["right"], each["prompt"], tuple(lines), content))
        return found
