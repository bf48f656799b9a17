"""The ledger of an evaluation: a folder to which every judged batch is added at once, so that a rerun goes on."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unireel.errors import UserError
from unireel.evaluation.worldbench.pictures import webp
from unireel.evaluation.worldbench.task import Outcome, Record
from unireel.media.atomic import replacing_file

CARD, ITEMS, FILMS = "run.json", "items.jsonl", "films"
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
        self._records: dict[tuple[str, int], Record] = {}
        self._kept: Counter[tuple[str, bool]] = Counter()
        try:
            folder.mkdir(exist_ok=True)
            self.films.mkdir(exist_ok=True) if self._is_ours(identity) else self._begin(identity)
            self._read()
            self._file = (folder / ITEMS).open("ab")
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror or error}") from None

    @property
    def films(self) -> Path:
        """The folder of the films that were kept."""
        return self.folder / FILMS

    def done(self, part: str, n: int) -> list[Record]:
        """The records of the first ``n`` items of ``part``, as far as there are any, in order."""
        return [self._records[part, i] for i in range(n) if (part, i) in self._records]

    def missing(self, part: str, n: int) -> list[int]:
        """Which of the first ``n`` items of ``part`` have no record yet."""
        return [i for i in range(n) if (part, i) not in self._records]

    def append(self, outcomes: Sequence[Outcome], seconds: float) -> None:
        """Add a judged batch that took ``seconds``; when this returns it is on the disk."""
        share = round(seconds / len(outcomes), 4)
        lines = []
        for outcome in outcomes:
            record: Record = {**outcome.record, "seconds": share}
            if outcome.film is not None and self._wanted(record):
                record["film"] = f"{re.sub('[ /]', '-', record['part'])}-{record['index']:05d}.webp"
                (self.films / record["film"]).write_bytes(webp(outcome.film))
            self._note(record)
            lines.append(json.dumps(record, separators=(",", ":")) + "\n")
        self._file.write("".join(lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; the ledger can still be read."""
        self._file.close()

    def _note(self, record: Record) -> None:
        self._records[record["part"], record["index"]] = record
        if "film" in record:
            self._kept[record["part"], record["right"]] += 1

    def _wanted(self, record: Record) -> bool:
        return self._kept[record["part"], record["right"]] < KEPT[record["right"]]

    def _is_ours(self, identity: Mapping[str, Any]) -> bool:
        """Whether the folder holds this evaluation; False if it is empty."""
        card = self.folder / CARD
        if not card.exists():
            if any(self.folder.iterdir()):
                raise UserError(
                    f"cannot write {self.folder}: the folder holds other files; name a new folder"
                )
            return False
        try:
            written = json.loads(card.read_text(encoding="utf-8"))
        except ValueError:
            raise UserError(f"{card} is damaged; name a new folder") from None
        for name, value in identity.items():
            if written.get(name) != value:
                raise UserError(
                    f"{self.folder} holds another evaluation ({name}: {written.get(name)}, not {value});"
                    " name a new folder with --out"
                )
        return True

    def _begin(self, identity: Mapping[str, Any]) -> None:
        self.films.mkdir()
        with replacing_file(self.folder / CARD) as temporary:
            temporary.write_text(json.dumps(dict(identity), indent=2) + "\n", encoding="utf-8")

    def _read(self) -> None:
        """Read the records; half a line at the end is what a killed run leaves, and is cut off."""
        path = self.folder / ITEMS
        content = path.read_bytes() if path.exists() else b""
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                self._note(json.loads(line))
            except (ValueError, KeyError, TypeError):
                raise UserError(f"line {number} of {path} is damaged; remove it to go on") from None
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)
