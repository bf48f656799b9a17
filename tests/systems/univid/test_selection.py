"""Selection of frames against brute force, closed forms and the definitions written out."""

import time
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unireel.errors import UsageError
from unireel.systems.univid.reflection.selection import (
    expand,
    expand_evenly,
    expand_softly,
    shrink,
    shrink_softly,
    similarities,
    soft_policy,
    spread,
)

NOTHING = np.array([], dtype=np.int64)


def pool(count: int, width: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random unit vectors (N, D) of frames and (D,) of a text."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(count + 1, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[1:], vectors[0]


def objective(subset, scores: np.ndarray, frames: np.ndarray, balance: float) -> float:
    """Eq. 9's sum for one set of frames."""
    total = 0.0
    for i in subset:
        likeness = max((float(frames[i] @ frames[j]) for j in subset if j != i), default=0.0)
        total += balance * float(scores[i]) - (1 - balance) * likeness
    return total


def greedy_by_definition(chosen, scores, frames, size, balance) -> list[int]:
    """Maximal marginal relevance as its authors write it, one frame and one neighbour at a time."""
    taken: list[int] = []
    while len(taken) < size:
        best, best_value = -1, -np.inf
        for i in chosen:
            if i in taken:
                continue
            nearest = max((float(frames[i] @ frames[j]) for j in taken), default=0.0)
            value = balance * float(scores[i]) - (1 - balance) * nearest
            if value > best_value:
                best, best_value = int(i), value
        taken.append(best)
    return sorted(taken)


def test_similarity_is_the_cosine():
    frames, text = pool(5)
    by_hand = [sum(a * b for a, b in zip(frame, text, strict=True)) for frame in frames]
    assert np.allclose(similarities(frames, text), by_hand, atol=1e-6)


@given(st.integers(1, 9), st.data())
def test_expanding_takes_the_best_set_of_all(count, data):
    scores = np.array(data.draw(st.lists(st.floats(-1, 1, width=32), min_size=count, max_size=count)))
    seen = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1)))), dtype=np.int64)
    size = data.draw(st.integers(len(seen), count))
    result = expand(seen, scores, size)
    assert len(result) == size and set(seen) <= set(result) and np.all(np.diff(result) > 0)
    unseen = [i for i in range(count) if i not in seen]
    best = max(sum(scores[list(each)]) for each in combinations(unseen, size - len(seen)))
    assert sum(scores[[i for i in result if i not in seen]]) == pytest.approx(best)


def test_expanding_pyramid():
    scores = np.linspace(0, 1, 64)
    first = expand(NOTHING, scores, 4)
    assert first.tolist() == [60, 61, 62, 63]
    assert expand(first, -scores, 8).tolist() == [0, 1, 2, 3, 60, 61, 62, 63]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("balance", [0.0, 0.3, 0.5, 1.0])
def test_shrinking_is_maximal_marginal_relevance(seed, balance):
    frames, text = pool(64, seed=seed)
    scores = similarities(frames, text)
    chosen = np.arange(64)
    for size in (32, 16):
        kept = shrink(chosen, scores, frames, size, balance)
        assert kept.tolist() == greedy_by_definition(chosen, scores, frames, size, balance)
        chosen = kept


def test_shrinking_is_near_the_best_set_of_all():
    """Eq. 9 is an optimum over sets; the greedy rule is compared with it where all sets can be tried."""
    shares = []
    for seed in range(20):
        frames, text = pool(9, width=4, seed=seed)
        scores = similarities(frames, text)
        values = [objective(each, scores, frames, 0.5) for each in combinations(range(9), 4)]
        kept = objective(shrink(np.arange(9), scores, frames, 4), scores, frames, 0.5)
        shares.append((kept - min(values)) / (max(values) - min(values)))
    assert np.mean(shares) > 0.85 and min(shares) > 0.5


def test_relevance_alone_and_copies():
    frames, text = pool(10)
    scores = similarities(frames, text)
    assert shrink(np.arange(10), scores, frames, 3, 1.0).tolist() == sorted(np.argsort(-scores)[:3].tolist())
    doubled = np.concatenate([frames[:4], frames[:4]])
    kept = shrink(np.arange(8), np.zeros(8, np.float32), doubled, 4)
    assert sorted(kept % 4) == [0, 1, 2, 3]


def test_soft_policy_is_a_softmax():
    scores = np.array([0.1, 0.3, -0.2], dtype=np.float32)
    expected = np.exp(scores.astype(float) / 0.05)
    assert np.allclose(soft_policy(scores, 0.05), expected / expected.sum())


def test_soft_draws_follow_the_sequential_policy():
    """P(first i, then j) = pi(i) pi(j) / (1 - pi(i)); of a set, the sum over its orders."""
    scores, random = np.array([0.0, 0.05, 0.1, 0.2]), np.random.default_rng(0)
    shares = soft_policy(scores, 0.1)
    draws = 20_000
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(draws):
        drawn = tuple(expand_softly(NOTHING, scores, 2, 0.1, random).tolist())
        counts[drawn] = counts.get(drawn, 0) + 1
    for pair in combinations(range(4), 2):
        expected = sum(shares[i] * shares[j] / (1 - shares[i]) for i, j in permutations(pair))
        error = 4 * np.sqrt(expected * (1 - expected) / draws)
        assert counts[pair] / draws == pytest.approx(expected, abs=error)


def test_soft_choices_keep_what_they_must():
    frames, text = pool(64)
    scores, random = similarities(frames, text), np.random.default_rng(1)
    grown = expand_softly(np.array([5, 9]), scores, 8, 0.05, random)
    assert {5, 9} <= set(grown.tolist()) and len(grown) == 8
    kept = shrink_softly(grown, scores, 4, 0.05, random)
    assert set(kept) <= set(grown) and len(set(kept)) == 4 and np.all(np.diff(kept) > 0)
    # A cold policy is the hard one.
    assert np.array_equal(expand_softly(NOTHING, scores, 8, 1e-6, random), expand(NOTHING, scores, 8))


@given(st.integers(1, 70), st.data())
def test_spread(count, data):
    size = data.draw(st.integers(1, count))
    places = spread(count, size)
    assert len(set(places.tolist())) == size and places[0] == 0
    if size > 1:
        assert places[-1] == count - 1
        assert np.diff(places).max() - np.diff(places).min() <= 1


def test_even_expansion_fills_the_largest_gap():
    assert expand_evenly(NOTHING, 64, 4).tolist() == [0, 21, 42, 63]
    assert expand_evenly(np.array([0, 63]), 64, 3).tolist() in ([0, 31, 63], [0, 32, 63])


@pytest.mark.parametrize(
    "choice",
    [
        lambda: expand(np.array([1, 2]), np.zeros(4), 1),
        lambda: expand(NOTHING, np.zeros(4), 5),
        lambda: shrink(np.arange(4), np.zeros(4), np.zeros((4, 2)), 5),
        lambda: shrink_softly(np.arange(4), np.zeros(4), 0, 1.0, np.random.default_rng(0)),
        lambda: spread(4, 5),
    ],
)
def test_impossible_sizes(choice):
    with pytest.raises(UsageError, match="cannot"):
        choice()


def test_a_round_costs_less_than_five_milliseconds():
    """64 frames of 1152 numbers, as SigLIP2 so400m gives them; processor time, so that other work does not count."""
    frames, text = pool(64, width=1152)
    rounds = []
    for _ in range(20):
        start = time.process_time()
        shrink(np.arange(64), similarities(frames, text), frames, 32)
        rounds.append(time.process_time() - start)
    assert np.median(rounds) < 0.005
