"""Quality, semantic and total score of VBench from the sixteen dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from unireel.errors import UserError
from unireel.evaluation.vbench.dimensions import (
    DIMENSIONS,
    QUALITY,
    QUALITY_SHARE,
    SEMANTIC,
    SEMANTIC_SHARE,
    Dimension,
)


@dataclass(frozen=True)
class Aggregate:
    """The leaderboard's scores, about 0 to 1; ``normalised`` holds each dimension on the same scale."""

    total: float
    quality: float
    semantic: float
    normalised: dict[str, float]


def aggregate(raw: Mapping[str, float]) -> Aggregate:
    """Add up raw scores of all sixteen dimensions.

    Args:
        raw: by name of dimension, on the scale 0 to 1 of VBench's own result files.

    Raises:
        UserError: a dimension is missing (the leaderboard's script would count it as a raw 0, which becomes negative),
            there is none of that name, or a value is not between 0 and 1.
    """
    check(raw)
    missing = [name for name in DIMENSIONS if name not in raw]
    if missing:
        raise UserError(
            f"{len(missing)} of the 16 dimensions are missing: {', '.join(missing)}; "
            "a total of fewer would not be VBench's"
        )
    normalised = {name: each.normalised(raw[name]) for name, each in DIMENSIONS.items()}
    quality, semantic = _weighted(QUALITY, normalised), _weighted(SEMANTIC, normalised)
    return Aggregate(total_of(quality, semantic), quality, semantic, normalised)


def check(raw: Mapping[str, float]) -> None:
    """Raise a :class:`UserError` unless all names are dimensions and all values are between 0 and 1."""
    for name, value in raw.items():
        if name not in DIMENSIONS:
            raise UserError(f"VBench has no dimension '{name}'; accepted: {', '.join(DIMENSIONS)}")
        if not math.isfinite(value):
            raise UserError(f"{name} is {value}; a score is a number")
        if not 0 <= value <= 1:
            hint = "; if all values are in percent, say so with --percent" if 1 < value <= 100 else ""
            raise UserError(f"{name} is {value:g}; raw scores are between 0 and 1{hint}")


def total_of(quality: float, semantic: float) -> float:
    """The total of the two groups' scores."""
    return (QUALITY_SHARE * quality + SEMANTIC_SHARE * semantic) / (QUALITY_SHARE + SEMANTIC_SHARE)


def _weighted(group: Iterable[Dimension], normalised: Mapping[str, float]) -> float:
    parts = [(each.weight, normalised[each.name]) for each in group]
    return sum(weight * value for weight, value in parts) / sum(weight for weight, _ in parts)
