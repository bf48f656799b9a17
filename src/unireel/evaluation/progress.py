"""Progress of a long evaluation on the standard error: what is done, what is left, and how long that takes."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol, TextIO

EVERY_SECONDS = 30.0
"""How often a line is written where the standard error is not a terminal, and so is kept in a file."""


class Progress:
    """Prints one line that renews itself on a terminal, and a new line now and then elsewhere.

    The time left adds up the kinds of work, each at the pace measured so far; work of a kind that has not begun has
    no pace yet, and then the time is given as a lower bound.
    """

    def __init__(self, todo: dict[str, int], stream: TextIO | None = None) -> None:
        """``todo``: items to do of each kind of work."""
        self.stream = sys.stderr if stream is None else stream
        self.todo, self.done = dict(todo), Counter[str]()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._last = -EVERY_SECONDS
        self._width = 0

    def advance(self, kind: str, items: int, left: int, seconds: float) -> None:
        """``items`` more of ``kind`` were done in ``seconds``; ``left`` of this kind are still to do."""
        self.done[kind] += items
        self.seconds[kind] += seconds
        self.todo[kind] = left
        now = time.monotonic()
        if self.stream.isatty():
            line = self.line(kind)
            self.stream.write(f"\r{line.ljust(self._width)}")
            self._width = len(line)
        elif now - self._last >= EVERY_SECONDS or not any(self.todo.values()):
            self.stream.write(self.line(kind) + "\n")
            self._last = now
        self.stream.flush()

    def line(self, kind: str) -> str:
        """The line after some work of ``kind``."""
        pace = self.done[kind] / max(self.seconds[kind], 1e-9)
        total = self.done[kind] + self.todo[kind]
        return f"{kind} {self.done[kind]}/{total}, {pace:.2g} a second, {self.time_left()} left"

    def time_left(self) -> str:
        """The time that the rest takes, in words."""
        seconds = sum(
            left * self.seconds[kind] / self.done[kind] for kind, left in self.todo.items() if self.done[kind]
        )
        bound = "more than " if any(left and not self.done[kind] for kind, left in self.todo.items()) else ""
        return bound + duration(seconds)

    def close(self) -> None:
        """End the line on a terminal."""
        if self.stream.isatty() and self._width:
            self.stream.write("\n")
            self._width = 0


class Closable(Protocol):
    """What keeps finished work on disk."""

    def close(self) -> None:
        """Nothing is written afterwards."""
        ...


@contextmanager
def resumable(todo: dict[str, int], folder: Path, kept: Closable) -> Iterator[Progress]:
    """Work that can be broken off: shows its progress, closes what keeps it, and says where it goes on from.

    Args:
        todo: items to do of each kind of work.
        folder: where the finished work is, for the message.
        kept: the journal or ledger; closed at the end, however it comes.
    """
    with closing(kept), closing(Progress(todo)) as progress:
        try:
            yield progress
        except KeyboardInterrupt:
            progress.close()
            print(f"stopped; the same command goes on from {folder}", file=sys.stderr)
            raise


def duration(seconds: float) -> str:
    """A time for people: "42 s", "7 min", "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
