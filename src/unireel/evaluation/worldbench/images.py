"""Pictures from words (T2I): what GenEval asks of pictures, asked of the World's and judged by its checker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unireel.evaluation.intervals import Score, averaged, rate
from unireel.evaluation.worldbench.generation import FilmItem, TextToVideo, judge, make_films
from unireel.evaluation.worldbench.setting import Setting
from unireel.evaluation.worldbench.task import Model, Outcome, Record, Task
from unireel.world.language import prompt_for

TAGS = {
    "single object": "single_object",
    "two objects": "two_object",
    "counting": "counting",
    "colour": "colors",
    "position": "position",
    "attribute binding": "color_attr",
}
"""GenEval's tags by the World's categories that ask for the same."""


class TextToImage(TextToVideo):
    """Films of one frame from words: all requested facts hold.

    Scenes and prompts are those of T2V's categories without motion, and prompts do not speak of any. ``t2i/overall`` is
    the unweighted mean of the six categories, as GenEval's is of its six tags.
    """

    name = "t2i"
    parts = tuple(f"t2i/{each}" for each in TAGS)

    def groups(self) -> dict[str, tuple[str, ...]]:
        """All, and each; the categories' bare names mean films."""
        return Task.groups(self)

    def draw(self, part: str, index: int, setting: Setting) -> FilmItem:
        """The request number ``index`` of the part's category."""
        category = part.partition("/")[2]
        scene, seed = setting.scene(part, index, category, still=True), setting.item_seed(part, index)
        return FilmItem(part, index, scene, prompt_for(scene, seed, category, picture=True), seed)

    def run(self, model: Model, items: Sequence[FilmItem], setting: Setting) -> list[Outcome]:
        """Make the pictures and check them."""
        clips = make_films(model, items, setting, None, frames=1)
        return [Outcome(judge(item, clip), clip) for item, clip in zip(items, clips, strict=True)]

    def scores(self, records: Mapping[str, Sequence[Record]]) -> dict[str, Score]:
        """Each category, and their mean if all are there."""
        rights = {part: [each["right"] for each in records[part]] for part in self.parts if records.get(part)}
        found = {part: rate(values) for part, values in rights.items()}
        if len(rights) < len(self.parts):
            return found
        groups = [(values, [str(number) for number in range(len(values))]) for values in rights.values()]
        return {"t2i/overall": averaged(groups), **found}
