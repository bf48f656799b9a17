"""The ledger of an evaluation: a folder to which every judged batch is added at once, so that a rerun goes on."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unireel.errors import UserError
from unireel.evaluation.journal import Journal, claim, read_records
from unireel.evaluation.pictures import webp
from unireel.evaluation.shards import Shard
from unireel.evaluation.worldbench.task import Outcome, Record

ITEMS, FILMS = "items.jsonl", "films"
ITEMS_OF_ALL = "items*.jsonl"
"""The files of an evaluation's records: one, or one for each shard."""

KEPT = {True: 3, False: 6}
"""How many successes and failures of each part keep their film, the first ones."""


class Ledger:
    """The records of one evaluation, in memory and in ``folder``.

    ``folder/run.json`` says what is evaluated, ``folder/items.jsonl`` holds one record a line, ``folder/films`` the
    films that the report shows. Shards share a folder: each writes records of its own items to a file of its own, and
    reads those of the others.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], shard: Shard | None = None) -> None:
        """Open or make ``folder``.

        Args:
            folder: its parent exists.
            identity: what must be the same for records to belong together, as plain JSON.
            shard: which items to do here; all without it.

        Raises:
            UserError: the folder belongs to something else, is damaged, or cannot be written.
        """
        self.folder = folder
        claim(folder, identity)
        try:
            self.films.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror or error}") from None
        self.shard = shard
        self._journal = Journal(folder / (ITEMS if shard is None else shard.file(ITEMS)), key_of)
        self._others: dict[Hashable, Record] = {}
        self.refresh()
        seen = [*self._journal, *(self._others.values() if shard is None else ())]
        self._kept = Counter((each["part"], each["right"]) for each in seen if "film" in each)

    @property
    def films(self) -> Path:
        """The folder of the films that were kept."""
        return self.folder / FILMS

    def done(self, part: str, n: int) -> list[Record]:
        """The records of the first ``n`` items of ``part``, as far as there are any, in order."""
        found = [self._record(part, index) for index in range(n)]
        return [each for each in found if each is not None]

    def missing(self, part: str, n: int) -> list[int]:
        """Which of the first ``n`` items of ``part`` have no record yet and are to be done here."""
        mine = range(n) if self.shard is None else range(n)[self.shard.items]
        return [index for index in mine if self._record(part, index) is None]

    def left(self, part: str, n: int) -> int:
        """How many of the first ``n`` items of ``part`` have no record yet, whoever is to do them."""
        return n - len(self.done(part, n))

    def refresh(self) -> None:
        """Read again what other shards have written."""
        for path in sorted(self.folder.glob(ITEMS_OF_ALL)):
            if path != self._journal.path:
                self._others |= {key_of(each): each for each in read_records(path, key_of)}

    def append(self, outcomes: Sequence[Outcome], seconds: float) -> None:
        """Add a judged batch that took ``seconds``; when this returns it is on the disk."""
        share = round(seconds / len(outcomes), 4)
        records = []
        for outcome in outcomes:
            record: Record = {**outcome.record, "seconds": share}
            if outcome.film is not None and self._wanted(record):
                record["film"] = f"{re.sub('[ /]', '-', record['part'])}-{record['index']:05d}.webp"
                (self.films / record["film"]).write_bytes(webp(outcome.film))
                self._kept[record["part"], record["right"]] += 1
            records.append(record)
        self._journal.append(records)

    def close(self) -> None:
        """Close the file; the ledger can still be read."""
        self._journal.close()

    def _record(self, part: str, index: int) -> Record | None:
        key = part, index
        return self._journal[key] if key in self._journal else self._others.get(key)

    def _wanted(self, record: Record) -> bool:
        # Shards keep about as many together as one run does.
        most = math.ceil(KEPT[record["right"]] / (1 if self.shard is None else self.shard.count))
        return self._kept[record["part"], record["right"]] < most


def key_of(record: Record) -> Hashable:
    """What tells the records of an evaluation apart.

    Raises:
        KeyError: it is none.
    """
    return record["part"], record["index"]
