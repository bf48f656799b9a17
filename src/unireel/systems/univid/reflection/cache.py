"""What is kept of films on disk: their pools, the vectors of their frames and their captions."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.media.atomic import replacing_file
from unireel.systems.univid.reflection.pool import LONGEST_SIDE, POOL_FRAMES, Pool, pool_key, read_pool
from unireel.systems.univid.reflection.rankers import Ranker

MOST_BYTES = 4 * 2**30
"""Room for all films together; the one that was not used for the longest time goes first."""


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/unireel/reflection``, by default in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unireel" / "reflection"


class FilmCache:
    """A folder with one folder for each pool: everything in it can be made again, and is when it is damaged.

    Attributes:
        hits: what was found here instead of made, by name; ``misses`` likewise.
    """

    def __init__(self, folder: Path | None = None, most_bytes: int = MOST_BYTES) -> None:
        """Use ``folder`` (made with its parents if needed), by default :func:`default_folder`.

        Raises:
            UserError: it cannot be made.
        """
        self.folder = folder or default_folder()
        self.most_bytes = most_bytes
        self.hits: list[str] = []
        self.misses: list[str] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {self.folder}: {error.strerror or error}") from None

    def pool(self, film: Path | Clip, count: int = POOL_FRAMES, side: int = LONGEST_SIDE) -> Pool:
        """The film's pool, see :func:`~unireel.systems.univid.reflection.pool.read_pool`.

        Raises:
            UserError: the film cannot be read.
        """
        key = pool_key(film, count, side)
        path = self._path(key, "pool.safetensors")
        stored = self._tensors(path, ("frames", "numbers", "times", "duration"))
        if stored is not None:
            name = "a clip" if isinstance(film, Clip) else str(film)
            frames, numbers, times = (stored[each] for each in ("frames", "numbers", "times"))
            return Pool(name, key, frames, numbers, times, float(stored["duration"][0]))
        pool = read_pool(film, count, side)
        self._save(
            path,
            {
                "frames": np.ascontiguousarray(pool.frames),
                "numbers": pool.numbers,
                "times": pool.times,
                "duration": np.array([pool.duration]),
            },
        )
        return pool

    def vectors(self, pool: Pool, ranker: Ranker) -> np.ndarray:
        """The ranker's vectors of the pool's frames, (N, D) float32 of length 1."""
        path = self._path(pool.key, f"vectors-{ranker.key}.safetensors")
        stored = self._tensors(path, ("vectors",))
        if stored is not None and len(stored["vectors"]) == len(pool):
            return stored["vectors"]
        vectors = ranker.frame_vectors(pool.frames)
        self._save(path, {"vectors": np.ascontiguousarray(vectors)})
        return vectors

    def note(self, pool: Pool, name: str) -> Any | None:
        """A JSON value that was kept of this pool under ``name``, or None."""
        path = self._path(pool.key, f"{_safe(name)}.json")
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.misses.append(path.name)
            return None
        self.hits.append(path.name)
        return value

    def keep(self, pool: Pool, name: str, value: Any) -> None:
        """Keep a JSON value of this pool under ``name``."""
        path = self._path(pool.key, f"{_safe(name)}.json")
        path.parent.mkdir(exist_ok=True)
        with replacing_file(path) as temporary:
            temporary.write_text(json.dumps(value), encoding="utf-8")

    def _path(self, key: str, name: str) -> Path:
        return self.folder / key / name

    def _tensors(self, path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray] | None:
        """The arrays of a file, or None if it is not there, or is damaged and has to be made again."""
        try:
            stored = load_file(path)
        except (OSError, SafetensorError):
            stored = {}
        if not all(name in stored for name in names):
            self.misses.append(path.name)
            return None
        self.hits.append(path.name)
        _touch(path.parent)
        return stored

    def _save(self, path: Path, arrays: dict[str, np.ndarray]) -> None:
        path.parent.mkdir(exist_ok=True)
        with replacing_file(path) as temporary:
            save_file(arrays, temporary)
        _touch(path.parent)
        self._make_room(path.parent)

    def _make_room(self, current: Path) -> None:
        """Remove the films that were used longest ago until the rest fits; the current one stays."""
        films = sorted((each for each in self.folder.iterdir() if each.is_dir()), key=_used)
        sizes = {each: sum(file.stat().st_size for file in each.iterdir()) for each in films}
        total = sum(sizes.values())
        for each in films:
            if total <= self.most_bytes:
                return
            if each != current:
                shutil.rmtree(each, ignore_errors=True)
                total -= sizes[each]


def _touch(folder: Path) -> None:
    """Note that a film was used now; the system's own clock for files ticks too slowly to tell two uses apart."""
    now = time.time_ns()
    os.utime(folder, ns=(now, now))


def _used(folder: Path) -> int:
    return folder.stat().st_mtime_ns


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)[:100]
