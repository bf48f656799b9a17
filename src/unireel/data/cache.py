"""A cache of rendered films on disk, so that training reads pixels instead of drawing them again every epoch.

A cache is a folder: ``frames.npy`` (N, F, S, S, 3) uint8, memory-mapped; ``scenes.jsonl``, one scene a line, in that
order; ``cache.json``, what it was made from, written last: a folder without it is an unfinished cache and is made anew.

    python -m unireel.data.cache --count 40000 --size 48 cache/films-48
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from unireel.errors import UserError
from unireel.world.language import rounded
from unireel.world.render import render_frames
from unireel.world.sampling import CATEGORIES, MIXTURE, sample_scene
from unireel.world.scene import CLIP_FRAMES, Scene


@dataclass(frozen=True)
class CacheConfig:
    """``count`` films of the train split on a canvas of side ``size``; ``special`` is the share of films drawn from the
    categories in turn instead of the mixture, so that rare kinds (groups of two, relations, order) are learned too.
    ``rounded`` films move and act by the numbers of their plans, and in every other one objects begin where the plan
    says (:func:`~unireel.world.language.rounded`): a generator has nothing to guess then."""

    count: int = 40_000
    size: int = 48
    seed: int = 1
    special: float = 0.4
    rounded: bool = False


def scene_of(config: CacheConfig, index: int) -> Scene:
    """Scene number ``index`` of the cache: the mixture and the categories are spread evenly through it."""
    turn = int((index + 1) * config.special) - int(index * config.special)
    number = int(index * config.special)
    category = CATEGORIES[number % len(CATEGORIES)] if turn else MIXTURE
    scene = sample_scene(config.seed, index, "train", category, config.size)
    return rounded(scene, places=index % 2 == 0) if config.rounded else scene


def build(folder: Path, config: CacheConfig, progress: bool = True) -> None:
    """Make the cache in ``folder`` (a few milliseconds a film), or do nothing if it is there.

    Raises:
        UserError: the folder holds a cache made from another configuration.
    """
    if (folder / "cache.json").exists():
        found = asdict(CacheConfig(**json.loads((folder / "cache.json").read_text())))
        if found != asdict(config):
            raise UserError(
                f"{folder} is a cache made with {found}; wanted {asdict(config)}: choose another folder"
            )
        return
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    shape = (config.count, CLIP_FRAMES, config.size, config.size, 3)
    frames = np.lib.format.open_memmap(folder / "frames.npy", "w+", np.uint8, shape)
    with open(folder / "scenes.jsonl", "w", encoding="utf-8") as lines:
        for index in tqdm(range(config.count), desc="films", disable=None if progress else True):
            scene = scene_of(config, index)
            frames[index] = render_frames(scene)
            lines.write(scene.to_json() + "\n")
    frames.flush()
    (folder / "cache.json").write_text(json.dumps(asdict(config)))


class FilmCache:
    """Films and scenes of a finished cache, by number."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "cache.json").exists():
            raise UserError(
                f"{folder} is not a finished cache of films; make it: python -m unireel.data.cache {folder}"
            )
        self.frames = np.load(self.folder / "frames.npy", mmap_mode="r")
        self._lines = (self.folder / "scenes.jsonl").read_text(encoding="utf-8").splitlines()

    def __len__(self) -> int:
        return len(self._lines)

    @lru_cache(maxsize=100_000)  # noqa: B019 - a cache of films lives as long as the training
    def scene(self, index: int) -> Scene:
        """The scene of film ``index``."""
        return Scene.from_json(self._lines[index])


def epoch_order(seed: int, count: int, position: int) -> int:
    """Which of ``count`` items comes at ``position`` of an endless sequence of shuffled epochs: a pure function."""
    epoch, place = divmod(position, count)
    return int(_permutation(seed, count, epoch)[place])


@lru_cache(maxsize=4)
def _permutation(seed: int, count: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def main() -> None:
    """Make a cache from the command line."""
    parser = argparse.ArgumentParser(description="Render films of the train split into a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=CacheConfig.count)
    parser.add_argument("--size", type=int, default=CacheConfig.size)
    parser.add_argument("--seed", type=int, default=CacheConfig.seed)
    parser.add_argument(
        "--rounded", action="store_true", help="films with exactly the numbers of their plans"
    )
    args = parser.parse_args()
    build(args.folder, CacheConfig(count=args.count, size=args.size, seed=args.seed, rounded=args.rounded))


if __name__ == "__main__":
    main()
