"""The trace of one question: a JSON file that grows with every step, so that a broken run goes on where it stopped."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from unireel.errors import UserError
from unireel.media.atomic import replacing_file

T = TypeVar("T")

VERSION = 1

_NUMBERS = re.compile(r"\[\n[-\d.,e\s]+\]")
"""A list of numbers over several lines, as JSON lays it out; within a JSON text no line breaks."""


class Journal:
    """Steps that have been made are not made again.

    Attributes:
        data: the trace: what is asked ("version", "film", "question", "settings", "roles"), "router", "caption",
            "rounds" (each with "select", "actor", "evaluator", "reflector"), "fallback" and, at the end, "result".
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        """Begin a trace, or go on with the one in ``path``; None keeps it in memory only.

        Args:
            identity: what is asked, as plain JSON.

        Raises:
            UserError: ``path`` holds something else.
        """
        self.path = path
        begun = {"version": VERSION, **json.loads(json.dumps(dict(identity)))}
        self.data: dict[str, Any] = {**begun, "rounds": []}
        if path is None or not path.exists():
            return
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise UserError(f"{path} is no trace of a question; name a new file") from None
        if not isinstance(written, dict) or any(written.get(name) != value for name, value in begun.items()):
            raise UserError(f"{path} holds another question, film or setting; name a new file")
        self.data = written

    def round(self, number: int) -> dict[str, Any]:
        """The entry of round ``number`` from 0, an empty one if it is new."""
        rounds = self.data["rounds"]
        if number == len(rounds):
            rounds.append({})
        return rounds[number]

    def step(self, entry: dict[str, Any], name: str, kind: type[T], make: Callable[..., T], *args: Any) -> T:
        """What ``entry`` holds under ``name``, or else what ``make(*args)`` returns now, a dataclass of type ``kind``.

        When this returns the step and its seconds are on the disk.
        """
        if name in entry:
            return kind(**{key: value for key, value in entry[name].items() if key != "seconds"})
        start = time.perf_counter()
        value = make(*args)
        entry[name] = {**asdict(value), "seconds": round(time.perf_counter() - start, 6)}  # type: ignore[call-overload]
        self.save()
        return value

    def save(self) -> None:
        """Write the trace, whole or not at all."""
        if self.path is not None:
            text = _NUMBERS.sub(_on_one_line, json.dumps(self.data, indent=1, ensure_ascii=False))
            with replacing_file(self.path) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")


def _on_one_line(numbers: re.Match[str]) -> str:
    return " ".join(numbers.group(0).split()).replace("[ ", "[").replace(" ]", "]")
