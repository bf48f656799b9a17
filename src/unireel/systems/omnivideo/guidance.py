"""Guidance with two and three branches: words and source film with scales of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from unireel.errors import UsageError
from unireel.systems.omnivideo.profile import GuidanceRule

FULL, SOURCE, NOTHING = "full", "source", "nothing"
"""Branches: everything that was asked; the source film without words and visual tokens; neither."""


@dataclass(frozen=True)
class Guidance:
    """How far the film is pushed towards its conditions.

    With velocities v of the branches, text scale s and source scale r:

    - without a source: ``nothing + s (full - nothing)``;
    - with a source and r = 1: ``source + s (full - source)``, two branches;
    - with another r: ``nothing + r (source - nothing) + s (full - source)``, three branches
      (as InstructPix2Pix, arXiv 2211.09800, eq. 3).

    The rule "released" is ``full + s (full - other)`` with the source kept in both branches.
    """

    text: float = 3.0
    source: float = 1.0
    rule: GuidanceRule = "standard"

    def __post_init__(self) -> None:
        if not (self.text >= 0 and self.source >= 0):
            raise UsageError(f"guidance scales are at least 0, not {self.text} and {self.source}")
        if self.rule == "released" and self.source != 1:
            raise UsageError("the released guidance has one scale: source guidance needs the profile 'paper'")

    def branches(self, has_source: bool) -> tuple[str, ...]:
        """The branches to compute, of :data:`FULL`, :data:`SOURCE` and :data:`NOTHING`."""
        without = SOURCE if has_source else NOTHING
        if self.rule == "released":
            return (FULL, without) if self.text else (FULL,)
        if has_source and self.source != 1:
            return (FULL, SOURCE, NOTHING) if self.text != self.source else (FULL, NOTHING)
        return (FULL, without) if self.text != 1 else (FULL,)

    def combine(self, velocities: Mapping[str, Tensor]) -> Tensor:
        """The guided velocity from those of :meth:`branches`."""
        full = velocities[FULL]
        if len(velocities) == 1:
            return full
        if len(velocities) == 3:
            source, nothing = velocities[SOURCE], velocities[NOTHING]
            return nothing + self.source * (source - nothing) + self.text * (full - source)
        other = next(velocity for name, velocity in velocities.items() if name != FULL)
        if self.rule == "released":
            return full + self.text * (full - other)
        return other + self.text * (full - other)
