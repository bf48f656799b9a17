"""Shards: the work of one evaluation divided among processes, one for each device."""

from __future__ import annotations

from dataclasses import dataclass

from unireel.errors import UsageError


@dataclass(frozen=True)
class Shard:
    """Number ``number`` (from 1) of ``count``: every ``count``-th item, so that shards take equally long."""

    number: int
    count: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """The shard that ``"I/N"`` names.

        Raises:
            UsageError: not of that form.
        """
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise UsageError(f"'{text}' is not a shard; write I/N, for example 1/4 to 4/4 on four devices")
        return cls(int(number), int(count))

    @property
    def items(self) -> slice:
        """Its items of a list of all."""
        return slice(self.number - 1, None, self.count)

    def file(self, name: str) -> str:
        """The name of its own file beside those of the others: "items.jsonl" becomes "items-1-of-4.jsonl"."""
        stem, dot, suffix = name.rpartition(".")
        return f"{stem}-{self.number}-of-{self.count}{dot}{suffix}"
