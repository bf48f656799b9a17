"""The ledger of an evaluation: a folder to which every judged batch is added at once, so that a rerun goes on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unireel.errors import UserError
from unireel.evaluation.journal import Journal, claim
from unireel.evaluation.worldbench.pictures import webp
from unireel.evaluation.worldbench.task import Outcome, Record

ITEMS, FILMS = "items.jsonl", "films"
KEPT = {True: 3, False: 6}
"""How many successes and failures of each part keep their film, the first ones."""


class Ledger:
    """The records of one evaluation, in memory and in ``folder``.

    ``folder/run.json`` says what is evaluated, ``folder/items.jsonl`` holds one record a line, ``folder/films`` the
    films that the report shows.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Open or make ``folder``.

        Args:
            folder: its parent exists.
            identity: what must be the same for records to belong together, as plain JSON.

        Raises:
            UserError: the folder belongs to something else, is damaged, or cannot be written.
        """
        self.folder = folder
        claim(folder, identity)
        try:
            self.films.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror or error}") from None
        self._journal = Journal(folder / ITEMS, lambda record: (record["part"], record["index"]))
        self._kept = Counter((each["part"], each["right"]) for each in self._journal if "film" in each)

    @property
    def films(self) -> Path:
        """The folder of the films that were kept."""
        return self.folder / FILMS

    def done(self, part: str, n: int) -> list[Record]:
        """The records of the first ``n`` items of ``part``, as far as there are any, in order."""
        return [self._journal[part, i] for i in range(n) if (part, i) in self._journal]

    def missing(self, part: str, n: int) -> list[int]:
        """Which of the first ``n`` items of ``part`` have no record yet."""
        return [i for i in range(n) if (part, i) not in self._journal]

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

    def _wanted(self, record: Record) -> bool:
        return self._kept[record["part"], record["right"]] < KEPT[record["right"]]
