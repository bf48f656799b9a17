"""Journals: files of one JSON record a line to which finished work is added at once, so that a rerun goes on."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unireel.errors import UserError
from unireel.media.atomic import replacing_file

CARD = "run.json"
TEMPORARY = ".unireel-"
"""What the names of files that are being written begin with."""
Record = dict[str, Any]


class Journal:
    """The records of a file by key; a later record of the same key replaces the earlier one. Threads may share it."""

    def __init__(self, path: Path, key: Callable[[Record], Hashable] = lambda record: record["id"]) -> None:
        """Open or make the file; half a line at its end is what a killed run leaves, and is cut off.

        Raises:
            UserError: a line is damaged, or the file cannot be written.
        """
        self.path = path
        self._key = key
        self._records: dict[Hashable, Record] = {}
        self._lock = threading.Lock()
        try:
            self._read()
            self._file = path.open("ab")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from None

    def __contains__(self, key: Hashable) -> bool:
        return key in self._records

    def __getitem__(self, key: Hashable) -> Record:
        return self._records[key]

    def get(self, key: Hashable, default: Record) -> Record:
        """The record of ``key``, or ``default``."""
        return self._records.get(key, default)

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def append(self, records: Sequence[Record]) -> None:
        """Add ``records``; when this returns they are on the disk."""
        text = "".join(json.dumps(each, separators=(",", ":"), ensure_ascii=False) + "\n" for each in records)
        with self._lock:
            self._file.write(text.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
            for each in records:
                self._records[self._key(each)] = each

    def close(self) -> None:
        """Close the file; the records can still be read."""
        self._file.close()

    def _read(self) -> None:
        self._records, whole = _records_in(self.path, self._key)
        if self.path.exists() and whole < self.path.stat().st_size:
            with self.path.open("r+b") as file:
                file.truncate(whole)


def read_records(path: Path, key: Callable[[Record], Hashable] = lambda record: record["id"]) -> list[Record]:
    """The records of a journal that another process may be writing at this moment: nothing of it is changed.

    Raises:
        UserError: a line is damaged, or the file cannot be read.
    """
    try:
        return list(_records_in(path, key)[0].values())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _records_in(path: Path, key: Callable[[Record], Hashable]) -> tuple[dict[Hashable, Record], int]:
    """The records of a file by key, none if it is not there, and the bytes up to the end of its last whole line."""
    content = path.read_bytes() if path.exists() else b""
    whole = content.rfind(b"\n") + 1
    found: dict[Hashable, Record] = {}
    for number, line in enumerate(content[:whole].split(b"\n")[:-1], 1):
        try:
            record = json.loads(line)
            found[key(record)] = record
        except (ValueError, KeyError, TypeError):
            raise UserError(f"line {number} of {path} is damaged; remove it to go on") from None
    return found, whole


def claim(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Make ``folder`` the place of one run, whose card ``run.json`` says what must be the same to go on there.

    Args:
        folder: made if it does not exist; its parent exists.
        identity: what must be the same for records to belong together, as plain JSON.

    Returns:
        Whether the run goes on; False if it begins.

    Raises:
        UserError: the folder belongs to something else, is damaged, or cannot be written.
    """
    card = folder / CARD
    try:
        folder.mkdir(exist_ok=True)
        # Another shard may be writing the same card at this moment: its temporary file is not somebody else's.
        names = {each.name for each in folder.iterdir() if not each.name.startswith(TEMPORARY)}
        if CARD in names:
            _check_same(card, identity)
            return True
        if names:
            raise UserError(f"cannot write {folder}: the folder holds other files; name a new folder")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from None
    with replacing_file(card) as temporary:
        temporary.write_text(json.dumps(dict(identity), indent=2) + "\n", encoding="utf-8")
    return False


def _check_same(card: Path, identity: Mapping[str, Any]) -> None:
    try:
        written = json.loads(card.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{card} is damaged; name a new folder") from None
    for name in {**identity, **written}:
        if written.get(name) != identity.get(name):
            raise UserError(
                f"{card.parent} holds another evaluation ({name}: {written.get(name)}, not {identity.get(name)});"
                " name a new folder with --out"
            )
