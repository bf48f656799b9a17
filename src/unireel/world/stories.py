"""Stories: long films of up to 513 frames with many events, some of which show in a few frames only.

Every object keeps to a part of the screen of its own, so that nothing ever meets. One of the objects, the
visitor, is there for a moment only; questions about it, and about what happens once, are *needles*
(:mod:`unireel.world.needles`).
"""

from __future__ import annotations

from random import Random

from unireel.errors import UsageError
from unireel.world.language.names import nearest_place
from unireel.world.language.order import cached_track
from unireel.world.language.phrases import called, noun_phrase, place_phrase
from unireel.world.parts import Box, Part, Setting
from unireel.world.sampling import is_placed
from unireel.world.scene import BACKGROUNDS, RADII, SIZES, STORY_FRAMES, Camera, Object, Scene
from unireel.world.splits import SPLITS, split_of
from unireel.world.tracks import COLOUR_NAMES

MIN_FRAMES = 65
"""Shortest story, in frames: a visit and a few events must fit."""

STYLES = ("plain", "plain", "plain", "plain", "outline", "night")
"""Styles as often as they are drawn; grayscale would hide what many needles are about."""


def sample_story(
    seed: int, index: int, split: str = "train", frames: int = STORY_FRAMES, size: int = 64
) -> Scene:
    """Story number ``index`` of the endless sequence that belongs to the other arguments.

    Two to four objects of different shapes; the last is the visitor. The camera stands still.

    Args:
        frames: 4 k + 1, from :data:`MIN_FRAMES` to :data:`unireel.world.scene.STORY_FRAMES`.

    Raises:
        UsageError: unknown split or size, impossible number of frames.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split '{split}'; accepted: {', '.join(SPLITS)}")
    if size not in RADII:
        raise UsageError(f"unknown size {size}; accepted: {', '.join(map(str, RADII))}")
    if frames % 4 != 1 or not MIN_FRAMES <= frames <= STORY_FRAMES:
        raise UsageError(f"frames={frames}: a story has {MIN_FRAMES} to {STORY_FRAMES} frames, 4 k + 1")
    random = Random(f"story/{seed}/{index}/{split}/{frames}/{size}")
    while True:
        story = _draw(random, split, frames, size)
        if split_of(story) == split and is_placed(story):
            return story


def describe_frame(scene: Scene, frame: int) -> str:
    """What one frame shows: "a small red star on the left, a large blue ring in the middle".

    Size and colour are those at ``frame`` (the nearest named ones); places are cells of a 3 x 3 grid; objects
    are named from the top left to the bottom right.
    """
    if not 0 <= frame < scene.frames:
        raise UsageError(f"frame {frame} is not in the film; accepted: 0 to {scene.frames - 1}")
    shown = []
    for index, figure in enumerate(scene.objects):
        track = cached_track(scene, index)
        if not track.visible[frame]:
            continue
        x, y = float(track.screen_x[frame]), float(track.screen_y[frame])
        small, large = RADII[scene.size].values()
        size = SIZES[int(track.screen_radius[frame] > (small + large) / 2)]
        now = called(Object(figure.shape, COLOUR_NAMES[track.colour[frame]], size, x, y), scene)
        text = f"{noun_phrase(now, size)} {place_phrase(nearest_place(x, y, scene.size))}"
        shown.append((y // (scene.size / 3), x, text))
    return ", ".join(text for _, _, text in sorted(shown)) or "there is nothing"


def _draw(random: Random, split: str, frames: int, size: int) -> Scene:
    """A story that may still be in the wrong split."""
    setting = Setting(random.choice(tuple(BACKGROUNDS)), random.choice(STYLES), frames, size, split)
    boxes = _boxes(random, 2 if size == 32 else random.choice((2, 3, 3, 4)), size)
    figures: list[Object] = []
    for number, box in enumerate(boxes):
        taken = {each.shape for each in figures}
        part = Part(random, setting, box, taken, visiting=number == len(boxes) - 1)
        figures.append(part.play())
    return Scene(tuple(figures), setting.background, Camera(), setting.style, frames, size)


def _boxes(random: Random, count: int, size: int) -> list[Box]:
    """Cut the screen into 2 to 4 parts, in random order: halves, of which some are cut again."""
    middle, end = (size - 1) / 2, float(size - 1)
    upright = random.random() < 0.5
    halves = [(0.0, middle), (middle, end)]
    cut = {2: (), 3: (random.randrange(2),), 4: (0, 1)}[count]
    boxes = []
    for number, (low, high) in enumerate(halves):
        for start, stop in halves if number in cut else [(0.0, end)]:
            boxes.append(Box(low, start, high, stop) if upright else Box(start, low, stop, high))
    random.shuffle(boxes)
    return boxes
