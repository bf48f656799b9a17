"""Making a feature cache: what is there and right stays, what is missing is made, in parallel."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from unireel import workers
from unireel.data.features import store
from unireel.data.features.store import Item, Row
from unireel.errors import UserError
from unireel.workers import Workers

Encoder = Callable[[Item], dict[str, Tensor]]
"""From an item to its tensors by name; a ``UserError`` says that this item has none."""


@dataclass(frozen=True)
class Source:
    """What a cache is made of.

    Attributes:
        items: the data, in order.
        make: builds the encoder in a worker, from the worker's number.
        digest: of everything that features depend on besides an item: models and settings.
        made_with: the same for people.
    """

    items: Sequence[Item]
    make: Callable[[int], Encoder]
    digest: str
    made_with: Mapping[str, Any]


@dataclass(frozen=True)
class Built:
    """What a build did.

    Attributes:
        made, kept: items whose features are new, and those that had them.
        damaged: shards that were not what they had been, and were made again.
        problems: items without features, and why.
    """

    made: int
    kept: int
    damaged: int
    problems: tuple[Row, ...]


def build(
    folder: Path,
    source: Source,
    doing: Workers | None = None,
    per_shard: int = 64,
    rehash: bool = False,
    remake: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Built:
    """Bring the cache in ``folder`` to where it has the features of exactly the source's items, in their order.

    May be killed at any time: finished shards are found again by their content. A film whose size or time of change
    differs from the index is read again, and made again if its content differs.

    Args:
        folder: of the cache.
        source: what it is made of.
        doing: who computes; this process by default.
        per_shard: items of a shard.
        rehash: read every film again, also those that look unchanged.
        remake: replace features that were made with something else.
        progress: called with items done and items missing at the start.

    Raises:
        UserError: the folder holds other features, another build is at it, or it cannot be written.
    """
    with _held(folder):
        about = store.read_about(folder)
        if about and about["digest"] != source.digest and not remake:
            raise UserError(
                f"'{folder}' has features made with something else ({about['made_with']}): "
                "choose another folder, or replace them (--remake)"
            )
        store.write_about(folder, source.digest, source.made_with)
        known = {(row.path, row.text): row for row in store.read_index(folder)}
        there, damaged = store.sound_shards(folder)
        rows = [
            _row(item, known.get((str(item.path), item.text)), source.digest, rehash) for item in source.items
        ]
        unique = list({row.key: row for row in rows if not row.problem and row.key not in there}.values())
        kept = sum(row.key in there for row in rows)
        problems: dict[str, str] = {}
        chunks = [unique[start : start + per_shard] for start in range(0, len(unique), per_shard)]
        done = 0
        try:
            for shard, keys, failed in workers.run(
                chunks, partial(_Maker, folder, source.make), doing or Workers()
            ):
                there |= dict.fromkeys(keys, shard)
                problems |= failed
                done += len(keys) + len(failed)
                if progress:
                    progress(done, len(unique))
        finally:
            rows = [
                replace(row, shard=there.get(row.key, ""), problem=row.problem or problems.get(row.key, ""))
                for row in rows
            ]
            store.write_index(folder, rows)
        for path in (folder / store.SHARDS).iterdir():
            if path.stem not in {row.shard for row in rows}:
                path.unlink()  # of films or settings that are no more
        without = tuple(row for row in rows if not row.shard)
        return Built(sum(bool(row.shard) for row in rows) - kept, kept, damaged, without)


class _Maker:
    """A worker: features of a chunk of rows into one shard."""

    def __init__(self, folder: Path, make: Callable[[int], Encoder], number: int) -> None:
        self.folder, self.encode = folder, make(number)

    def __call__(self, rows: list[Row]) -> tuple[str, list[str], dict[str, str]]:
        """The shard's name, the keys in it, and what was wrong with the others by key."""
        features, failed = {}, {}
        for row in rows:
            try:
                features[row.key] = self.encode(Item(Path(row.path), row.text))
            except UserError as error:
                failed[row.key] = str(error)
        return store.write_shard(self.folder, features) if features else "", list(features), failed


def _row(item: Item, known: Row | None, digest: str, rehash: bool) -> Row:
    path = str(item.path)
    try:
        status = item.path.stat()
        unchanged = known and (known.bytes, known.modified) == (status.st_size, status.st_mtime_ns)
        content = known.content if known and unchanged and not rehash else store.hash_of(item.path)
    except OSError as error:
        return Row(path, item.text, 0, 0, "", "", "", f"cannot read {path}: {error.strerror}")
    key = store.key_of(content, item.text, digest)
    return Row(path, item.text, status.st_size, status.st_mtime_ns, content, key, "", "")


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder, in which one build is at work at a time; the lock goes with the process, however it dies."""
    try:
        (folder / store.SHARDS).mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a+")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
    with lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another build is at work in '{folder}': wait for it") from error
        yield
