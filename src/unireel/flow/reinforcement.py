"""Learning from verdicts on a flow model's own samples: negative-aware fine-tuning (arXiv 2509.16117).

Samples that were judged well pull the network towards them, samples that were judged badly push it away, both as plain
regressions at random flow times: no likelihoods, no chain of steps to go back through, any sampler. As guidance does,
what pushes away leads beyond the good samples when it goes on for long; true data among them holds it back. B samples.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def goodness(rewards: Tensor, groups: Tensor) -> Tensor:
    """How much each sample counts as a good one: 0.5 is neither good nor bad.

    Half of one plus the reward above the mean of its group, in standard deviations of all such differences, cut off at
    one. Groups whose rewards are all alike teach nothing: theirs is 0.5.

    Args:
        rewards: (B,), the more the better.
        groups: number of the group, of one prompt, that each sample belongs to, (B,) int64.

    Returns:
        (B,) in [0, 1].
    """
    count = torch.bincount(groups).clamp_min(1)
    means = torch.zeros(len(count), dtype=rewards.dtype, device=rewards.device)
    means = means.index_add(0, groups, rewards) / count
    above = rewards - means[groups]
    scale = above.square().mean().sqrt().clamp_min(1e-6)
    return 0.5 + 0.5 * (above / scale).clamp(-1, 1)


def worth_learning(rewards: Tensor, count: int, truth: bool = True) -> tuple[Tensor, Tensor]:
    """Which samples to learn from, with ``truth`` beside true data of each prompt, whose reward is 1.

    Args:
        rewards: of K samples of each of G prompts, in [0, 1], (G, K).
        count: how many are wanted; those that teach anything take turns until there are as many.

    Returns:
        Places in the samples of each prompt followed by its true one, flat of (G, K + 1), (``count``,) int64; and their
        :func:`goodness`.
    """
    groups = torch.arange(len(rewards), device=rewards.device)[:, None].expand(-1, rewards.shape[1] + 1)
    if truth:
        rewards = torch.cat([rewards, torch.ones_like(rewards[:, :1])], 1)
        good = goodness(rewards.flatten(), groups.flatten())
    else:
        own = goodness(rewards.flatten(), groups[:, :-1].flatten()).view_as(rewards)
        good = torch.cat([own, torch.full_like(own[:, :1], 0.5)], 1).flatten()
    telling = (good != 0.5).nonzero()[:, 0]
    places = telling if len(telling) else torch.arange(len(good), device=good.device)
    places = places.repeat(-(-count // len(places)))[:count]
    return places, good[places]


def shared_draws(groups: Tensor) -> Tensor:
    """Which random draw each sample takes: the same for all of a group, so that what its good and its bad samples have
    in common cancels in the gradient; another one when samples come again.

    Args:
        groups: of the samples, in the order of :func:`worth_learning`, (B,) int64.

    Returns:
        Numbers below B, (B,) int64.
    """
    turn = (groups.diff(prepend=groups[:1]) < 0).cumsum(0)
    _, draw = torch.unique(turn * (groups.max() + 1) + groups, return_inverse=True)
    return draw


@torch.no_grad()
def follow(policy: Iterable[Tensor], trained: Iterable[Tensor], decay: float) -> None:
    """Move the weights of what draws towards those that learn: policy = decay policy + (1 - decay) trained."""
    torch._foreach_lerp_(list(policy), list(trained), 1 - decay)  # pyright: ignore[reportPrivateImportUsage]


def negative_aware_loss(
    data: Tensor, new: Tensor, old: Tensor, good: Tensor, wanted: Tensor | None = None, strength: float = 1.0
) -> Tensor:
    r"""The loss of each sample, on what networks say of the data behind a noisy state.

    .. math:: r \lVert \hat x^+ - x \rVert^2 / w^+ + (1 - r) \lVert \hat x^- - x \rVert^2 / w^-,\quad
        \hat x^\pm = (1 \mp \beta)\, \hat x_{old} \pm \beta\, \hat x_{new}

    with the mean absolute errors :math:`w^\pm` of either, not differentiated, so that all flow times weigh alike. At
    ``new`` = ``old`` the gradient is that of the regression on the sample, times :math:`2 r - 1` but for its scale.

    Args:
        data: samples (B, ...).
        new, old: what the trained network and the one that drew the samples say of them, (B, ...).
        good: r of :func:`goodness`, (B,).
        wanted: 0 where nothing is asked, broadcastable against ``data``; None: everything is.
        strength: beta; the smaller, the further the trained network goes for the same verdicts.

    Returns:
        (B,).
    """
    weight = torch.ones_like(data) if wanted is None else wanted.expand_as(data)

    def regression(says: Tensor) -> Tensor:
        error = (says - data).flatten(1)
        share = weight.flatten(1) / weight.flatten(1).sum(1, keepdim=True)
        scale = (error.detach().abs() * share).sum(1).clamp_min(1e-5)
        return (error.square() * share).sum(1) / scale

    positive = regression(old + strength * (new - old))
    negative = regression(old - strength * (new - old))
    return good * positive + (1 - good) * negative
