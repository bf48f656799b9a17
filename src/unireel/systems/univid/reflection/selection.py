"""Which frames to look at next: eq. 6-9 of UniVid on embeddings that are computed once for each film.

Frames are numbers into a pool of N; vectors (N, D) and (D,) are float32 of length 1. Working sets are always in
temporal order, which is the order of the numbers.
"""

from __future__ import annotations

import numpy as np

from unireel.errors import UsageError


def similarities(frames: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Cosine similarity of every frame (N, D) to a text (D,), in [-1, 1]: (N,) (eq. 6)."""
    return frames @ text


def expand(chosen: np.ndarray, scores: np.ndarray, size: int) -> np.ndarray:
    """Add the unseen frames of the highest ``scores`` (N,) until ``size`` are chosen (eq. 8).

    Args:
        chosen: frames seen so far, rising.
        size: K, from the number of chosen frames to N.

    Returns:
        The chosen frames and the new ones, rising; of equals the earlier is taken.
    """
    _check_size(size, len(chosen), len(scores))
    unseen = np.setdiff1d(np.arange(len(scores)), chosen)
    best = unseen[np.argsort(-scores[unseen], kind="stable")[: size - len(chosen)]]
    return np.sort(np.concatenate([chosen, best])).astype(np.int64)


def shrink(
    chosen: np.ndarray, scores: np.ndarray, frames: np.ndarray, size: int, balance: float = 0.5
) -> np.ndarray:
    """Keep ``size`` of the chosen frames that are relevant and unlike each other: greedy eq. 9.

    Maximal marginal relevance (Carbonell and Goldstein 1998) takes one frame after another, each time the one of the
    largest ``balance * score - (1 - balance) * likeness`` to the nearest one taken; the first by its score alone.

    Args:
        chosen: frames to choose from, rising.
        scores: of all frames to the text, (N,).
        frames: vectors of all frames, (N, D).
        size: K, from 1 to the number of chosen frames.
        balance: lambda in [0, 1]; 1 asks for relevance only.

    Returns:
        The frames kept, rising.
    """
    if not 1 <= size <= len(chosen):
        raise UsageError(f"cannot shrink {len(chosen)} frames to {size}")
    vectors, relevance = frames[chosen], balance * scores[chosen]
    likeness = vectors @ vectors.T
    nearest = np.full(len(chosen), -np.inf)
    value = relevance.copy()
    taken = np.empty(size, dtype=np.int64)
    for place in range(size):
        taken[place] = np.argmax(value)
        nearest = np.maximum(nearest, likeness[taken[place]])
        value = relevance - (1 - balance) * nearest
        value[taken[: place + 1]] = -np.inf
    return np.sort(chosen[taken]).astype(np.int64)


def soft_policy(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Probability of every frame to be looked at, softmax of ``scores / temperature``: (N,) float64 (eq. 7)."""
    logits = scores.astype(np.float64) / temperature
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


def expand_softly(
    chosen: np.ndarray, scores: np.ndarray, size: int, temperature: float, random: np.random.Generator
) -> np.ndarray:
    """As :func:`expand`, but the new frames are drawn one by one without replacement from the soft policy.

    Logits with Gumbel noise sort frames as such draws do (arXiv 1903.06059).
    """
    return expand(chosen, scores / temperature + random.gumbel(size=len(scores)), size)


def shrink_softly(
    chosen: np.ndarray, scores: np.ndarray, size: int, temperature: float, random: np.random.Generator
) -> np.ndarray:
    """Keep ``size`` of the chosen frames, drawn without replacement from the soft policy over them."""
    if not 1 <= size <= len(chosen):
        raise UsageError(f"cannot shrink {len(chosen)} frames to {size}")
    kept = expand_softly(np.array([], dtype=np.int64), scores[chosen], size, temperature, random)
    return chosen[kept].astype(np.int64)


def spread(count: int, size: int) -> np.ndarray:
    """``size`` of ``count`` frames from the first to the last, as evenly as can be: rising, all different."""
    if not 1 <= size <= count:
        raise UsageError(f"cannot spread {size} frames over {count}")
    return np.round(np.linspace(0, count - 1, size)).astype(np.int64)


def expand_evenly(chosen: np.ndarray, count: int, size: int) -> np.ndarray:
    """As :func:`expand`, but the new frames are those farthest in time from all chosen: what to do without a ranker."""
    _check_size(size, len(chosen), count)
    if len(chosen) == 0:
        return spread(count, size)
    places = np.arange(count)
    distance = np.abs(places[:, None] - chosen).min(1)
    added = list(chosen)
    while len(added) < size:
        added.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.abs(places - added[-1]))
    return np.sort(np.array(added, dtype=np.int64))


def _check_size(size: int, chosen: int, count: int) -> None:
    if not chosen <= size <= count:
        raise UsageError(f"cannot expand {chosen} frames to {size} of {count}")
