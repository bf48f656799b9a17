"""Scores with 95 % confidence intervals: Wilson's for rates, the bootstrap's for means and differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""

RESAMPLES = 2000
BOOTSTRAP_SEED = 0
CHUNK = 2**20
"""Values drawn at once, which bounds the memory."""


@dataclass(frozen=True)
class Score:
    """A figure, the ends of its 95 % interval, and the number of independent samples behind it (at least 1)."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] n={self.n}"


def rate(outcomes: Sequence[bool] | Sequence[float]) -> Score:
    """The share of true ``outcomes`` (at least one) with Wilson's score interval (Wilson 1927, without correction).

    Raises:
        ValueError: there are no outcomes.
    """
    n = len(outcomes)
    if n == 0:
        raise ValueError("a rate needs at least one outcome")
    share = sum(map(bool, outcomes)) / n
    centre = share + Z * Z / (2 * n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    # Rounding must not push the ends past the share itself or past 0 and 1.
    low, high = max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
    return Score(share, min(low, share), max(high, share), n)


def mean(values: Sequence[float]) -> Score:
    """The mean of ``values`` (at least one) with the percentile bootstrap's interval (2000 resamples, fixed seed).

    Values that are all alike give an interval of no width, which says nothing about unseen values.

    Raises:
        ValueError: there are no values.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        raise ValueError("a mean needs at least one value")
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    rows = max(1, CHUNK // sample.size)
    means = [
        sample[generator.integers(0, sample.size, (min(rows, RESAMPLES - start), sample.size))].mean(1)
        for start in range(0, RESAMPLES, rows)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return Score(float(sample.mean()), float(low), float(high), sample.size)


def clustered(values: Sequence[float], clusters: Sequence[str]) -> Score:
    """The mean of ``values`` of which some belong together, such as answers about one film.

    Where every value is a cluster of its own this is :func:`rate` (for truth values) or :func:`mean`; else whole
    clusters are resampled (percentile bootstrap, 2000 resamples, fixed seed), because answers about one film are right
    or wrong together more often than by chance.

    Raises:
        ValueError: there are no values, or not as many as clusters.
    """
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values of {len(clusters)} clusters")
    if len(set(clusters)) == len(clusters) or not values:
        return rate(values) if all(isinstance(each, bool) for each in values) else mean(values)
    _, places = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    sample = np.asarray(values, dtype=np.float64)
    sums, counts = np.bincount(places, sample), np.bincount(places)
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    rows = max(1, CHUNK // sums.size)
    means = []
    for start in range(0, RESAMPLES, rows):
        drawn = generator.integers(0, sums.size, (min(rows, RESAMPLES - start), sums.size))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return Score(float(sample.mean()), float(low), float(high), sample.size)


def averaged(groups: Sequence[tuple[Sequence[float], Sequence[str]]]) -> Score:
    """The unweighted mean of the means of ``groups``, which are (values, clusters) with at least one value each.

    Groups of different size count alike. Whole clusters are resampled within each group (percentile bootstrap, 2000
    resamples, fixed seed).

    Raises:
        ValueError: there are no groups, or one has no values, or not as many as clusters.
    """
    if not groups or not all(values for values, _ in groups):
        raise ValueError("a mean of groups needs at least one value in each")
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    draws = np.zeros(RESAMPLES)
    for values, clusters in groups:
        if len(values) != len(clusters):
            raise ValueError(f"{len(values)} values of {len(clusters)} clusters")
        _, places = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
        sums, counts = np.bincount(places, np.asarray(values, dtype=np.float64)), np.bincount(places)
        drawn = generator.integers(0, sums.size, (RESAMPLES, sums.size))
        draws += sums[drawn].sum(1) / counts[drawn].sum(1) / len(groups)
    value = sum(sum(values) / len(values) for values, _ in groups) / len(groups)
    low, high = np.quantile(draws, (0.025, 0.975))
    # Adding up a share of each draw rounds: the ends must not pass the value where nothing varies.
    return Score(
        value, min(float(low), value), max(float(high), value), sum(len(values) for values, _ in groups)
    )


def drop(before: Sequence[bool], after: Sequence[bool]) -> Score:
    """The mean of ``before`` minus ``after``, which are outcomes of the same samples in the same order.

    Raises:
        ValueError: there are none, or not as many of one as of the other.
    """
    return mean([float(one) - float(two) for one, two in zip(before, after, strict=True)])
