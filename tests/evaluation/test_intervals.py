"""Intervals against scipy's, and against what they promise: that they cover the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unireel.evaluation.intervals import averaged, clustered, drop, mean, rate


@settings(max_examples=50)
@given(st.lists(st.booleans(), min_size=1, max_size=400))
def test_rate_is_wilsons(outcomes: list[bool]) -> None:
    score = rate(outcomes)
    reference = stats.binomtest(sum(outcomes), len(outcomes)).proportion_ci(0.95, "wilson")
    assert score.value == sum(outcomes) / len(outcomes)
    assert score.low == pytest.approx(reference.low, abs=1e-9)
    assert score.high == pytest.approx(reference.high, abs=1e-9)
    assert 0 <= score.low <= score.value <= score.high <= 1
    assert score.n == len(outcomes)


def test_mean_is_the_percentile_bootstrap() -> None:
    values = np.random.default_rng(1).beta(5, 1, 200)
    score = mean(list(values))
    reference = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(2))
    assert score.value == pytest.approx(values.mean())
    assert score.low == pytest.approx(reference.confidence_interval.low, abs=4e-3)
    assert score.high == pytest.approx(reference.confidence_interval.high, abs=4e-3)
    assert score == mean(list(values))


@settings(max_examples=30)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_mean_lies_in_its_interval_and_among_the_values(values: list[float]) -> None:
    score = mean(values)
    assert min(values) - 1e-9 <= score.low <= score.high <= max(values) + 1e-9
    assert score.n == len(values)


def test_drop_is_paired() -> None:
    before, after = [True] * 60 + [False] * 40, [True] * 30 + [False] * 70
    score = drop(before, after)
    assert score.value == pytest.approx(0.3)
    # Paired differences are 30 ones and 70 zeros: narrower than two independent rates would be.
    assert score.high - score.low < 2 * 1.96 * np.sqrt(0.6 * 0.4 / 100 + 0.3 * 0.7 / 100) * 0.8
    assert drop(before, before).value == 0


def test_groups_count_alike_whatever_their_size() -> None:
    large, small = [True] * 80 + [False] * 20, [False] * 3 + [True]
    score = averaged([(large, [str(n) for n in range(100)]), (small, list("abcd"))])
    assert (score.value, score.n) == (pytest.approx((0.8 + 0.25) / 2), 104)
    assert score.low < score.value < score.high
    # One group alone is the clustered bootstrap of it.
    alone = averaged([(large, [str(n // 2) for n in range(100)])])
    other = clustered(large, [str(n // 2) for n in range(100)])
    assert (alone.low, alone.high) == (
        pytest.approx(other.low, abs=0.02),
        pytest.approx(other.high, abs=0.02),
    )
    certain = averaged([([True] * 5, list("abcde"))] * 6)
    assert certain.low <= certain.value <= certain.high
    with pytest.raises(ValueError, match="at least one"):
        averaged([([], []), ([True], ["a"])])
    with pytest.raises(ValueError, match="2 values of 1 clusters"):
        averaged([([True, False], ["a"])])


def test_nothing_has_no_score() -> None:
    for score in (rate, mean):
        with pytest.raises(ValueError, match="at least one"):
            score([])
    with pytest.raises(ValueError):
        drop([True], [True, False])
