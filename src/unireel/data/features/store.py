"""The files of a feature cache.

- ``features.json``: what its features are made with, as settings and as a digest.
- ``shards/<hash>.safetensors``: features of some items, each tensor named ``<key>/<name>``. The name is the SHA-256 of
  the file's content (32 digits), so that a shard proves itself, whether or not an index knows of it.
- ``index.parquet``: a row for each item, in the order of the data.

A *key* is the hash of everything that an item's features depend on: the film's content, the words, and the digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unireel.errors import UserError
from unireel.media.atomic import replacing_file

FORMAT = 1
ABOUT, INDEX, SHARDS = "features.json", "index.parquet", "shards"
_PART = ".part"


@dataclass(frozen=True)
class Item:
    """What features are made of: a film's file and words about it."""

    path: Path
    text: str


@dataclass(frozen=True)
class Row:
    """An item in the index; ``shard`` is "" and ``problem`` says why where there are no features of it."""

    path: str
    text: str
    bytes: int
    modified: int
    content: str
    key: str
    shard: str
    problem: str


def hash_of(path: Path) -> str:
    """SHA-256 of a file's content, 32 digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def key_of(content: str, text: str, digest: str) -> str:
    """The key of an item whose film has that content."""
    return hashlib.sha256(json.dumps([content, text, digest]).encode()).hexdigest()[:32]


def write_shard(folder: Path, features: Mapping[str, Mapping[str, Tensor]]) -> str:
    """Write features by key and name; returns the shard's name. It is whole under that name or not there.

    Raises:
        UserError: it cannot be written.
    """
    tensors = {
        f"{key}/{name}": each.contiguous() for key, named in features.items() for name, each in named.items()
    }
    aside = folder / SHARDS / f"{_PART}-{uuid.uuid4().hex}"
    try:
        save_file(tensors, aside)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        name = hash_of(aside)
        aside.rename(shard_path(folder, name))
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write a shard into '{folder}': {str(error).splitlines()[0]}") from error
    return name


def shard_path(folder: Path, name: str) -> Path:
    """Where a shard is."""
    return folder / SHARDS / f"{name}.safetensors"


def keys_in(path: Path) -> set[str]:
    """The keys of a shard."""
    with safe_open(path, "pt") as file:
        return {name.partition("/")[0] for name in file.keys()}  # noqa: SIM118 - not a mapping


def sound_shards(folder: Path) -> tuple[dict[str, str], int]:
    """Shard by key for all shards that are what their name says, and how many were not, which are removed."""
    found: dict[str, str] = {}
    damaged = 0
    for path in sorted((folder / SHARDS).iterdir()):
        if path.name.startswith(_PART):
            path.unlink()
        elif path.suffix == ".safetensors" and hash_of(path) == path.stem:
            found |= dict.fromkeys(keys_in(path), path.stem)
        else:
            damaged += 1
            path.unlink()
    return found, damaged


def write_index(folder: Path, rows: list[Row]) -> None:
    """Write the index in one go."""
    arrow, parquet = _arrow()
    columns = {name: [getattr(row, name) for row in rows] for name in Row.__dataclass_fields__}
    with replacing_file(folder / INDEX) as path:
        parquet.write_table(arrow.table(columns), path, compression="zstd")


def read_index(folder: Path) -> list[Row]:
    """The rows of the index; none if there is none yet.

    Raises:
        UserError: it cannot be read.
    """
    arrow, parquet = _arrow()
    path = folder / INDEX
    if not path.exists():
        return []
    try:
        return [Row(**each) for each in parquet.read_table(path).to_pylist()]
    except (arrow.ArrowException, OSError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"'{path}' is no index of features ({reason}): remove it, the shards are enough"
        ) from error


class FeatureCache:
    """The features of a finished cache, by number; only items that have some count.

    Raises:
        UserError: there is no such cache, or a shard that its index names is not there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        rows = read_index(self.folder)
        self.rows = [row for row in rows if row.shard]
        self.without = len(rows) - len(self.rows)
        if not self.rows:
            raise UserError(
                f"'{folder}' is no finished cache of features; make it: python -m unireel.data.features"
            )
        missing = [
            name for name in {row.shard for row in self.rows} if not shard_path(self.folder, name).is_file()
        ]
        if missing:
            raise UserError(
                f"{len(missing)} shard(s) of '{folder}' are gone, such as {missing[0]}: build it again"
            )

    @property
    def about(self) -> dict[str, Any]:
        """What the features are made with."""
        return read_about(self.folder)["made_with"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """The tensors of an item, by name."""
        row = self.rows[number]
        try:
            shard = _open(shard_path(self.folder, row.shard))
            names = [name for name in shard.keys() if name.startswith(f"{row.key}/")]  # noqa: SIM118
            return {name.partition("/")[2]: shard.get_tensor(name) for name in names}
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"shard {row.shard} of '{self.folder}' is damaged ({error}): build it again"
            ) from error


@lru_cache(maxsize=64)
def _open(path: Path) -> Any:
    return safe_open(path, "pt")


def read_about(folder: Path) -> dict[str, Any]:
    """What is in ``features.json``; nothing if it is not there.

    Raises:
        UserError: it is something else.
    """
    path = folder / ABOUT
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT or not isinstance(found["digest"], str):
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"'{path}' does not describe features of format {FORMAT}: choose another folder"
        ) from error
    return found


def write_about(folder: Path, digest: str, made_with: Mapping[str, Any]) -> None:
    """Write ``features.json``."""
    text = json.dumps({"format": FORMAT, "digest": digest, "made_with": made_with}, indent=1)
    with replacing_file(folder / ABOUT) as path:
        path.write_text(text, encoding="utf-8")


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("a cache of features needs pyarrow: pip install 'unireel[parquet]'") from None
    return pyarrow, pyarrow.parquet
