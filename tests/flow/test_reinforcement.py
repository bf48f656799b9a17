"""Negative-aware fine-tuning: against closed forms, and on a flow whose good mode is known."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from unireel.flow.matching import interpolate
from unireel.flow.reinforcement import follow, goodness, negative_aware_loss, shared_draws, worth_learning


def test_goodness_is_relative_to_the_group():
    rewards = torch.tensor([1.0, 0.0, 0.5, 0.5, 10.0, 9.0])
    groups = torch.tensor([0, 0, 1, 1, 2, 2])
    above = torch.tensor([0.5, -0.5, 0.0, 0.0, 0.5, -0.5])
    scale = above.square().mean().sqrt()
    assert torch.allclose(goodness(rewards, groups), 0.5 + 0.5 * (above / scale).clamp(-1, 1))


def test_groups_that_fare_alike_teach_nothing():
    assert torch.equal(goodness(torch.full((6,), 0.7), torch.arange(6) // 3), torch.full((6,), 0.5))


def test_true_data_joins_groups_that_have_something_to_learn():
    rewards = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.2, 0.2]])
    places, good = worth_learning(rewards, 8)
    assert places.tolist() == [3, 4, 5, 6, 7, 8, 3, 4], (
        "the group that is all right has no place; the first come again"
    )
    assert (good[[0, 3, 4]] < 0.5).all() and (good[[1, 2, 5]] > 0.5).all()
    places, good = worth_learning(rewards, 4, truth=False)
    assert places.tolist() == [3, 4, 3, 4]
    assert good.tolist() == [0.0, 1.0, 0.0, 1.0]
    assert worth_learning(torch.ones(2, 2), 3)[1].tolist() == [0.5] * 3


def test_a_group_shares_its_draw_until_it_comes_again():
    assert shared_draws(torch.tensor([1, 1, 2, 2, 1, 1, 2])).tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert shared_draws(torch.tensor([0, 0])).tolist() == [0, 0]


def test_a_policy_follows():
    policy, trained = [torch.zeros(2), torch.ones(1)], [torch.ones(2), torch.ones(1)]
    follow(policy, trained, 0.75)
    assert policy[0].tolist() == [0.25, 0.25] and policy[1].tolist() == [1.0]


@pytest.mark.parametrize("good", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_where_both_networks_agree_the_gradient_is_the_regressions_times_the_advantage(good, strength):
    torch.manual_seed(0)
    data, old = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
    new = old.clone().requires_grad_()
    negative_aware_loss(data, new, old, torch.full((4,), good), strength=strength).sum().backward()
    error = old - data
    scale = error.abs().mean((1, 2), keepdim=True)
    regression = 2 * error / error[0].numel() / scale
    assert new.grad is not None
    assert torch.allclose(new.grad, strength * (2 * good - 1) * regression, atol=1e-6)


def test_what_is_not_wanted_has_no_gradient():
    torch.manual_seed(0)
    data, old = torch.randn(2, 1, 3), torch.randn(2, 1, 3)
    new = torch.randn(2, 1, 3).requires_grad_()
    wanted = torch.tensor([[[0.0, 1.0, 1.0]]])
    loss = negative_aware_loss(data, new, old, torch.tensor([1.0, 0.2]), wanted)
    loss.sum().backward()
    assert new.grad is not None
    assert not new.grad[..., 0].any()
    assert new.grad[..., 1:].all()
    moved = torch.cat([data[..., :1] + 100, data[..., 1:]], -1)
    assert torch.equal(negative_aware_loss(moved, new, old, torch.tensor([1.0, 0.2]), wanted), loss)


def flow_of_two_modes() -> nn.Module:
    """A network that says what lies behind (state, time), trained on the points -1 and 1, equally many."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(400):
        data = torch.randint(2, (256, 1)) * 2.0 - 1
        loss = (says(network, *noisy(data)) - data).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def noisy(data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    time = torch.rand(len(data))
    return interpolate(data, torch.randn_like(data), time), time


def says(network: nn.Module, state: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    return network(torch.cat([state, time[:, None]], 1))


@torch.no_grad()
def drawn(network: nn.Module, count: int) -> torch.Tensor:
    state, times = torch.randn(count, 1), torch.linspace(1, 0, 17)
    for now, then in pairwise(times):
        state = state + (then - now) * (state - says(network, state, now.expand(count))) / now
    return state


def test_a_flow_learns_to_draw_what_is_judged_well():
    network = flow_of_two_modes()
    before = (drawn(network, 1000) > 0).float().mean()
    policy = flow_of_two_modes()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(150):
        for old, new in zip(policy.parameters(), network.parameters(), strict=True):
            old.data.lerp_(new.data, 0.2)
        data = drawn(policy, 128)
        good = goodness((data[:, 0] > 0).float(), torch.zeros(128, dtype=torch.long))
        state, time = noisy(data)
        with torch.no_grad():
            old = says(policy, state, time)
        loss = negative_aware_loss(data, says(network, state, time), old, good).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert 0.4 < before < 0.6
    assert (drawn(network, 1000) > 0).float().mean() > 0.9
