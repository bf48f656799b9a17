"""Stories as Pyramid Reflection sees them: pools of frames, needle questions about them, and where the evidence is.

A cache beside the films: pools are rendered once (some 15 ms each), trainings draw *views* of them, whole pools or
working sets, as the actor is shown (:func:`unireel.backbones.vlm.view_slots`).

    python -m unireel.data.stories cache/films-48 --count 6000
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from unireel.data.lessons import STATES
from unireel.data.targets import film_targets
from unireel.world.needles import needle_questions
from unireel.world.render import render_frames
from unireel.world.scene import MAX_OBJECTS, SHAPES
from unireel.world.stories import sample_story
from unireel.world.tracks import tracks

POOL = 64
"""Frames of a story that are kept, evenly spread: as many as Pyramid Reflection takes."""

LENGTHS = (257, 129, 257, 193, 257, 385)
"""Lengths of stories, in frames, in turn."""

ViewKind = Literal["pool", "even", "shrunk", "few"]
VIEWS: dict[ViewKind, float] = {"pool": 0.7, "even": 0.1, "shrunk": 0.05, "few": 0.15}
"""How often each kind of view is drawn: the whole pool, 16 even frames, 32 of the pool, 4 to 16 of it."""


@dataclass(frozen=True)
class Needle:
    """A question with its answer, whom it is about, and the frames of the pool that tell, first and last."""

    question: str
    answer: str
    subject: int
    first: int
    last: int


class StoryPools:
    """Pools of ``count`` stories of the train split, N, made where they are missing.

    Attributes:
        frames: (N, POOL, S, S, 3) uint8, memory-mapped.
        states: (N, O, POOL, 5) float16 and shapes: (N, O) int8, as :class:`~unireel.data.lessons.Lessons` has them.
        films: (N, K) bool, see :func:`~unireel.data.targets.film_targets`.
        needles: of each story.
    """

    def __init__(self, films: Path, count: int, size: int = 48, seed: int = 1, progress: bool = True) -> None:
        folder = films / f"stories-{count}-{seed}"
        if not (folder / "needles.json").exists():
            _make(folder, count, size, seed, progress)
        self.frames = np.load(folder / "frames.npy", mmap_mode="r")
        self.states, self.shapes, self.films = (
            np.load(folder / f"{name}.npy") for name in ("states", "shapes", "films")
        )
        found = json.loads((folder / "needles.json").read_text(encoding="utf-8"))
        self.needles = [[Needle(**each) for each in story] for story in found]

    def __len__(self) -> int:
        return len(self.needles)


def draw_view(kind: ViewKind, needles: list[Needle], count: int, random: np.random.Generator) -> np.ndarray:
    """Frames of a pool, rising: (n,) int64; n depends on ``kind`` and ``count`` alone.

    Working sets ("shrunk", "few") rather hold what one of the questions is about, as a search for it would find.

    Args:
        count: frames of a view of kind "few".
    """
    if kind == "pool":
        return np.arange(POOL)
    if kind == "even":
        return np.linspace(0, POOL - 1, 16).round().astype(np.int64)
    liking = np.ones(POOL)
    if needles and random.random() < 0.8:
        needle = needles[random.integers(len(needles))]
        liking[needle.first : needle.last + 1] = 12.0
    size = 32 if kind == "shrunk" else count
    return np.sort(random.choice(POOL, size, replace=False, p=liking / liking.sum()))


def _make(folder: Path, count: int, size: int, seed: int, progress: bool) -> None:
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    frames = np.lib.format.open_memmap(folder / "frames.npy", "w+", np.uint8, (count, POOL, size, size, 3))
    states = np.zeros((count, MAX_OBJECTS, POOL, len(STATES)), dtype=np.float16)
    shapes = np.full((count, MAX_OBJECTS), -1, dtype=np.int8)
    of_film, needles = [], []
    for index in tqdm(range(count), desc="stories", disable=None if progress else True):
        story = sample_story(seed, index, "train", LENGTHS[index % len(LENGTHS)], size)
        shift = np.random.default_rng([seed, index]).random()
        numbers = ((np.arange(POOL) + shift) * story.frames / POOL).astype(np.int64)
        frames[index] = render_frames(story, numbers.tolist())
        for number, (figure, track) in enumerate(zip(story.objects, tracks(story), strict=True)):
            columns = (track.screen_x, track.screen_y, track.screen_radius, track.visible, track.colour)
            states[index, number] = np.stack(columns, axis=-1)[numbers]
            shapes[index, number] = SHAPES.index(figure.shape)
        of_film.append(film_targets(story))
        found = []
        for each in needle_questions(story, index):
            assert each.evidence is not None and each.subject is not None
            first, last = (
                np.searchsorted(numbers, each.evidence[0]),
                np.searchsorted(numbers, each.evidence[1], "right"),
            )
            first = min(int(first), POOL - 1)
            found.append(vars(Needle(each.text, each.answer, each.subject, first, max(int(last) - 1, first))))
        needles.append(found)
    frames.flush()
    for name, array in (("states", states), ("shapes", shapes), ("films", np.stack(of_film))):
        np.save(folder / f"{name}.npy", array)
    (folder / "needles.json").write_text(json.dumps(needles), encoding="utf-8")


def main() -> None:
    """Make the pools beside a cache from the command line."""
    parser = argparse.ArgumentParser(
        description="Render pools of stories and write needle questions about them."
    )
    parser.add_argument("films", type=Path, help="folder of the film cache")
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--size", type=int, default=48)
    args = parser.parse_args()
    pools = StoryPools(args.films, args.count, args.size)
    print(f"{len(pools)} stories, {sum(map(len, pools.needles))} questions")


if __name__ == "__main__":
    main()
