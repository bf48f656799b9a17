"""Paired tests: is the difference between two runs on the same items more than chance?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from unireel.evaluation.intervals import BOOTSTRAP_SEED, CHUNK, Score, clustered

FLIPS = 10_000
"""Random changes of sign behind a permutation test's p value, which is at least 1 in this many."""


@dataclass(frozen=True)
class Paired:
    """Two runs on the same items.

    Attributes:
        first, second: the runs' means.
        difference: second minus first, with its 95 % interval.
        wins, losses: items on which the second run is better or worse by its value.
        p: probability of a difference at least as large if the runs were alike.
        test: ``"McNemar"`` (exact) for independent right-or-wrong items, else ``"permutation"`` of whole clusters.
    """

    first: float
    second: float
    difference: Score
    wins: int
    losses: int
    p: float
    test: str


def compare_items(first: Sequence[float], second: Sequence[float], clusters: Sequence[str]) -> Paired:
    """Compare values of the same items in the same order; ``clusters`` says which items belong together.

    Raises:
        ValueError: there are none, or not as many of one as of the other.
    """
    one, two = (np.asarray(each, dtype=np.float64) for each in (first, second))
    if not one.size or one.size != two.size or one.size != len(clusters):
        raise ValueError(f"{one.size} and {two.size} values of {len(clusters)} items cannot be compared")
    difference = two - one
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    independent = len(set(clusters)) == len(clusters)
    truths = bool(np.isin(np.concatenate([one, two]), (0, 1)).all())
    if independent and truths:
        p, test = mcnemar(wins, losses), "McNemar"
    else:
        p, test = permutation(difference, clusters), "permutation"
    interval = clustered(difference.tolist(), clusters)
    return Paired(float(one.mean()), float(two.mean()), interval, wins, losses, p, test)


def mcnemar(wins: int, losses: int) -> float:
    """Two-sided exact p value of McNemar's test: of the items that differ, each is a win with probability 1/2."""
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def permutation(differences: Sequence[float] | np.ndarray, clusters: Sequence[str]) -> float:
    """Two-sided p value of the mean difference when the signs of whole clusters are drawn at random (fixed seed)."""
    _, places = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    sums = np.bincount(places, np.asarray(differences, dtype=np.float64))
    observed = abs(sums.sum())
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    rows = max(1, CHUNK // sums.size)
    extreme = 0
    for start in range(0, FLIPS, rows):
        signs = generator.integers(0, 2, (min(rows, FLIPS - start), sums.size)) * 2 - 1
        # What differs from the observed sum by rounding alone counts as equal to it.
        extreme += int((np.abs(signs @ sums) >= observed * (1 - 1e-12)).sum())
    return (extreme + 1) / (FLIPS + 1)


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """p values adjusted for how many there are (Holm 1979): their family errs with the probability of one."""
    adjusted, highest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(values.items(), key=lambda each: each[1])):
        highest = max(highest, min(1.0, p * (len(values) - rank)))
        adjusted[name] = highest
    return {name: adjusted[name] for name in values}
