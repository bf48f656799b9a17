"""Edits of cached films: the edited films on disk, with their instructions.

A folder beside the films: that of a film cache (``frames.npy``, ``scenes.jsonl``, ``cache.json``) for the edited ones,
and ``edits.jsonl`` with source, instruction and operation of each. Operations take turns, as far as films allow.

    python -m unireel.data.edit_pairs cache/films-48 --count 40000
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unireel.data.cache import FilmCache
from unireel.errors import UserError
from unireel.world.edits import OPERATIONS, Edit, edit_for
from unireel.world.render import render_frames
from unireel.world.scene import FPS, Object, Scene


@dataclass(frozen=True)
class EditPair:
    """``source`` is the number of a film in the cache, ``operation`` one of the World's."""

    source: int
    instruction: str
    operation: str


def retimed(scene: Scene, fps: int) -> Scene:
    """The same film at another frame rate: as long in seconds, with each event at its time.

    Raises:
        UserError: the film would not have 4 k + 1 frames.
    """
    if fps == FPS:
        return scene
    factor = fps / FPS
    frames = (scene.frames - 1) * factor + 1
    if frames % 4 != 1:
        raise UserError(
            f"{scene.frames} frames at {FPS} a second are {frames:g} at {fps}; films have 4 k + 1"
        )

    def moved(figure: Object) -> Object:
        events = tuple(
            dataclasses.replace(each, start=round(each.start * factor), end=round(each.end * factor))
            for each in figure.events
        )
        return dataclasses.replace(figure, events=events)

    return dataclasses.replace(scene, frames=int(frames), objects=tuple(map(moved, scene.objects)))


class EditPairs(FilmCache):
    """The edited films of a cache, made where they are missing (some 8 ms each).

    Args:
        films: the sources.
        count: of the edits; films are edited one after the other, and again from the first.
        sources: how many of the films, from the first on, are edited; all by default.
        fps: frame rate of the edited films, see :func:`retimed`.
        seed: of the edits.
    """

    def __init__(
        self,
        films: FilmCache,
        count: int,
        sources: int | None = None,
        fps: int = FPS,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        sources = min(sources or len(films), len(films))
        self._drawn = films, sources, seed
        folder = films.folder / f"edits-{count}-of-{sources}-fps-{fps}-{seed}"
        if not (folder / "cache.json").exists():
            _make(folder, films, count, sources, fps, seed, progress)
        super().__init__(folder)
        lines = (folder / "edits.jsonl").read_text(encoding="utf-8").splitlines()
        self.pairs = [EditPair(**json.loads(line)) for line in lines]

    def edit(self, number: int) -> Edit:
        """Edit ``number`` with the facts that it asks for, its target at the World's frame rate."""
        films, sources, seed = self._drawn
        return draw(films, sources, number, seed)[1]


def draw(films: FilmCache, sources: int, number: int, seed: int) -> tuple[int, Edit]:
    """The film that edit ``number`` is of, and the edit: the first film from ``number`` on that allows any."""
    for step in range(sources):
        source = (number + step) % sources
        scene = films.scene(source)
        wanted = OPERATIONS[number % len(OPERATIONS)]
        edit = edit_for(scene, wanted, seed + number) or edit_for(scene, None, seed + number)
        if edit:
            return source, edit
    raise UserError("no film of the cache can be edited")


def _make(
    folder: Path, films: FilmCache, count: int, sources: int, fps: int, seed: int, progress: bool
) -> None:
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    shape = (count, retimed(films.scene(0), fps).frames, *films.frames.shape[2:])
    frames = np.lib.format.open_memmap(folder / "frames.npy", "w+", np.uint8, shape)
    with (
        open(folder / "scenes.jsonl", "w", encoding="utf-8") as scenes,
        open(folder / "edits.jsonl", "w", encoding="utf-8") as edits,
    ):
        for number in tqdm(range(count), desc="edits", disable=None if progress else True):
            source, edit = draw(films, sources, number, seed)
            target = retimed(edit.target, fps)
            frames[number] = render_frames(target)
            scenes.write(target.to_json() + "\n")
            pair = EditPair(source, edit.instruction, edit.operation)
            edits.write(json.dumps(dataclasses.asdict(pair)) + "\n")
    frames.flush()
    (folder / "cache.json").write_text(
        json.dumps({"edits": count, "sources": sources, "fps": fps, "seed": seed})
    )


def retimed_cache(films: FilmCache, fps: int, count: int, progress: bool = True) -> FilmCache:
    """The first ``count`` films of a cache at another frame rate, made where they are missing."""
    from tqdm import tqdm

    if fps == FPS:
        return films
    folder = films.folder / f"fps-{fps}-{count}"
    if not (folder / "cache.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        scenes = [retimed(films.scene(number), fps) for number in range(count)]
        shape = (count, scenes[0].frames, *films.frames.shape[2:])
        frames = np.lib.format.open_memmap(folder / "frames.npy", "w+", np.uint8, shape)
        for number in tqdm(range(count), desc=f"films at {fps} fps", disable=None if progress else True):
            frames[number] = render_frames(scenes[number])
        frames.flush()
        (folder / "scenes.jsonl").write_text("".join(s.to_json() + "\n" for s in scenes), encoding="utf-8")
        (folder / "cache.json").write_text(json.dumps({"fps": fps, "count": count}))
    return FilmCache(folder)


def main() -> None:
    """Make the edits of a cache from the command line."""
    parser = argparse.ArgumentParser(description="Render edits of cached films.")
    parser.add_argument("films", type=Path, help="folder of the film cache")
    parser.add_argument("--count", type=int, default=40_000)
    parser.add_argument(
        "--sources", type=int, default=40_000, help="films that are edited, from the first on"
    )
    args = parser.parse_args()
    print(f"{len(EditPairs(FilmCache(args.films), args.count, args.sources))} edits")


if __name__ == "__main__":
    main()
