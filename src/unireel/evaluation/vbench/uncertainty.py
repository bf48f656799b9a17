"""Confidence intervals of VBench's scores from the scores of single films: prompts are resampled."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePath

import numpy as np

from unireel.evaluation.intervals import BOOTSTRAP_SEED, RESAMPLES, Score
from unireel.evaluation.vbench.aggregate import aggregate, total_of
from unireel.evaluation.vbench.dimensions import DIMENSIONS, QUALITY, SEMANTIC

_SAMPLE = re.compile(r"-\d+$")


def prompt_of(path: str) -> str:
    """The prompt that a film's file name carries: its stem without the number of the sample."""
    return _SAMPLE.sub("", PurePath(path).name.rpartition(".")[0])


def dimension_scores(
    raw: Mapping[str, float], films: Mapping[str, Sequence[tuple[str, float]]]
) -> dict[str, Score | float]:
    """Each raw score, with its interval where the scores of its films are known."""
    return {
        name: _score(value, drawn, len(films[name]))
        if (drawn := _draws(name, value, films.get(name, ()))) is not None
        else value
        for name, value in raw.items()
    }


def group_scores(
    raw: Mapping[str, float], films: Mapping[str, Sequence[tuple[str, float]]]
) -> dict[str, Score | float]:
    """Total, quality and semantic score, with intervals if all dimensions have the scores of their films.

    Raises:
        UserError: a dimension is missing.
    """
    found = aggregate(raw)
    values = {name: asdict(found)[name] for name in ("total", "quality", "semantic")}
    draws = {name: _draws(name, raw[name], films.get(name, ())) for name in DIMENSIONS}
    known = {name: drawn for name, drawn in draws.items() if drawn is not None}
    if len(known) < len(draws):
        return dict(values)
    groups = []
    for group in (QUALITY, SEMANTIC):
        weighted = sum(each.weight * (known[each.name] - each.low) / (each.high - each.low) for each in group)
        groups.append(weighted / sum(each.weight for each in group))
    quality, semantic = groups
    spread = {"total": total_of(quality, semantic), "quality": quality, "semantic": semantic}
    n = sum(len(films[name]) for name in DIMENSIONS)
    return {name: _score(values[name], spread[name], n) for name in values}


def _draws(name: str, value: float, films: Sequence[tuple[str, float]]) -> np.ndarray | None:
    """Resampled raw scores of a dimension, float64 (2000,), moved so that they centre on its aggregate.

    The move matters for dimensions that VBench averages over frames instead of films. Dimensions with the same films
    are resampled alike.
    """
    if not films:
        return None
    _, places = np.unique([prompt_of(path) for path, _ in films], return_inverse=True)
    sums = np.bincount(places, np.asarray([each for _, each in films], dtype=np.float64))
    counts = np.bincount(places)
    seed = [BOOTSTRAP_SEED, *DIMENSIONS[name].folder.encode()]
    drawn = np.random.default_rng(seed).integers(0, sums.size, (RESAMPLES, sums.size))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    return means - sums.sum() / counts.sum() + value


def _score(value: float, draws: np.ndarray, n: int) -> Score:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Score(value, float(low), float(high), n)
