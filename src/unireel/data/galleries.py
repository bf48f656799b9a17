"""Galleries: frames of stories that a ranker has to tell apart by their descriptions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unireel.errors import UserError
from unireel.world.render import render_frames
from unireel.world.scene import STORY_FRAMES
from unireel.world.stories import describe_frame, sample_story


@dataclass(frozen=True)
class StoryGalleries:
    """Frames (N, S, S, 3) uint8 of stories with their texts, and which of them are ranked together.

    A gallery is how many frames are the story's own, which come first, and the numbers of its frames, all with
    different texts. A spread is the numbers of frames at equal distances of one story.
    """

    frames: np.ndarray
    texts: list[str]
    galleries: list[tuple[int, np.ndarray]]
    spreads: list[np.ndarray]


def story_galleries(split: str, stories: int, count: int, size: int, seed: int = 8) -> StoryGalleries:
    """A gallery and a spread of ``count`` frames for each of ``stories`` stories of 513 frames.

    No story has 64 different descriptions (5 to 30 are usual), so a gallery is one frame of each description of its
    story, drawn from all that have it, filled up with different ones from the other stories.

    Raises:
        UserError: all stories together have fewer than ``count`` different descriptions.
    """
    frames, texts, owners, spreads = [], [], [], []
    for number in range(stories):
        story = sample_story(seed, number, split, STORY_FRAMES, size)
        told = [describe_frame(story, frame) for frame in range(story.frames)]
        random = np.random.default_rng([seed, number])
        different = [
            int(random.choice(np.flatnonzero(np.array(told) == text))) for text in dict.fromkeys(told)
        ]
        spread = np.linspace(0, story.frames - 1, count).round().astype(int).tolist()
        chosen = [*different, *spread]
        frames.append(render_frames(story, chosen))
        texts += [told[frame] for frame in chosen]
        owners += [number] * len(different) + [-1] * len(spread)
        spreads.append(np.arange(len(texts) - count, len(texts)))
    galleries = [_gallery(number, np.array(owners), texts, count) for number in range(stories)]
    return StoryGalleries(np.concatenate(frames), texts, galleries, spreads)


def _gallery(number: int, owners: np.ndarray, texts: list[str], count: int) -> tuple[int, np.ndarray]:
    """The frames of story ``number``, one a description, filled up with those of other stories."""
    own = np.flatnonzero(owners == number)[:count]
    others = np.flatnonzero((owners >= 0) & (owners != number))
    others = np.random.default_rng([9, number]).permutation(others)
    first = {texts[i]: i for i in reversed([*own, *others])}
    entries = [i for i in [*own, *others] if first[texts[i]] == i][:count]
    if len(entries) < count:
        raise UserError(
            f"the stories have {len(entries)} different descriptions, a gallery needs {count}: take more stories"
        )
    return len(own), np.array(entries)


def recall_hits(similarity: np.ndarray, text_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether the best frame of each text is one that it describes, and the best text of each frame its own.

    Args:
        similarity: (N, M) of N frames and M texts.
        text_of: (N,) which text describes each frame.

    Returns:
        (M,) and (N,) bool.
    """
    texts = np.arange(similarity.shape[1])
    return text_of[similarity.argmax(0)] == texts, similarity.argmax(1) == text_of
