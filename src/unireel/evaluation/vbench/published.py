"""Which printed rows follow from their own columns: the papers' VBench tables, recomputed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from unireel.evaluation.papers import Row
from unireel.evaluation.vbench.aggregate import aggregate, total_of
from unireel.evaluation.vbench.dimensions import DIMENSIONS

TOLERANCE = 0.02
"""Percent points that rounding can explain: two-decimal columns give the groups' scores within 0.009."""


@dataclass(frozen=True)
class Checked:
    """A printed row beside what its own columns give, in percent.

    ``total_from_groups`` follows from the printed quality and semantic scores; the others from the sixteen dimensions.
    Each is None if the columns it needs are not printed.
    """

    model: str
    printed: dict[str, float]
    total_from_groups: float | None
    recomputed: dict[str, float] | None

    def deviations(self) -> dict[str, float]:
        """Recomputed minus printed; ``"total"`` is that from the printed groups, ``"total (dimensions)"`` the other."""
        found: dict[str, float] = {}
        if self.total_from_groups is not None:
            found["total"] = self.total_from_groups - self.printed["total"]
        if self.recomputed is not None:
            for name, value in self.recomputed.items():
                key = "total (dimensions)" if name == "total" else name
                found[key] = value - self.printed[name]
        return found

    def wrong(self, tolerance: float = TOLERANCE) -> dict[str, float]:
        """The deviations that rounding does not explain."""
        return {name: each for name, each in self.deviations().items() if abs(each) > tolerance}


def check_row(row: Mapping[str, str | float | None]) -> Checked:
    """Recompute one row of a table in percent."""
    values = {key: value for key, value in row.items() if isinstance(value, float)}
    printed = {key: values[key] for key in ("total", "quality", "semantic") if key in values}
    from_groups = recomputed = None
    if len(printed) == 3:
        from_groups = total_of(printed["quality"], printed["semantic"])
        if all(name in values for name in DIMENSIONS):
            found = aggregate({name: values[name] / 100 for name in DIMENSIONS})
            recomputed = {
                "total": 100 * found.total,
                "quality": 100 * found.quality,
                "semantic": 100 * found.semantic,
            }
    return Checked(str(row["model"]), printed, from_groups, recomputed)


def check_table(rows: Iterable[Row]) -> list[Checked]:
    """Recompute every row."""
    return [check_row(row) for row in rows]
