"""What the World's checker says of what was drawn for known scenes, as rewards in [0, 1]."""

from __future__ import annotations

import numpy as np

from unireel.clip import Clip
from unireel.world.checker import observe, scene_facts, untouched_facts
from unireel.world.edits import Edit
from unireel.world.facts import DYNAMIC_KINDS, Fact
from unireel.world.scene import FPS, Scene


def film_reward(frames: np.ndarray, scene: Scene, asked: tuple[Fact, ...]) -> tuple[float, bool]:
    """Half for everything that was asked for, half for the share of all that is true of the scene.

    Args:
        frames: uint8 (F, H, W, 3).
        asked: facts of a prompt of the scene.

    Returns:
        The reward in [0, 1], and whether all that was asked for holds.
    """
    seen = observe(Clip(frames, FPS))
    right = all(bool(seen.holds(fact)) for fact in asked)
    shares = [bool(seen.holds(fact)) for _, fact in scene_facts(scene)]
    return 0.5 * right + 0.5 * float(np.mean(shares)), right


def picture_reward(frame: np.ndarray, truth: np.ndarray, scene: Scene) -> tuple[float, bool]:
    """The same of a first frame, of what the checker sees in the true one ``truth``; both uint8 (H, W, 3).

    Objects that appear later are not asked for.
    """
    seen, true = observe(Clip(frame[None], FPS)), observe(Clip(truth[None], FPS))
    facts = [fact for _, fact in scene_facts(scene) if fact.kind not in DYNAMIC_KINDS and true.holds(fact)]
    held = [bool(seen.holds(fact)) for fact in facts]
    right = all(held) and len(seen.objects) == len(true.objects)
    return 0.5 * right + 0.5 * (float(np.mean(held)) if held else float(right)), right


def edit_reward(frames: np.ndarray, edit: Edit) -> tuple[float, bool]:
    """The same of an edited film, uint8 (F, H, W, 3): a quarter each for the shares of what was asked for, and of what
    was true before and should be still."""
    seen = observe(Clip(frames, FPS))
    untouched = untouched_facts(edit.source, edit.target)
    asked, kept = ([bool(seen.holds(fact)) for fact in facts] for facts in (edit.facts, untouched))
    right = all(asked) and all(kept)
    return 0.5 * right + 0.25 * float(np.mean(asked)) + 0.25 * float(np.mean(kept or [True])), right
