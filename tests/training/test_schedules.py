"""Learning-rate schedules against torch's and against closed forms."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unireel.training.recipe import ScheduleConfig
from unireel.training.schedules import lr_factor


def test_cosine_is_torchs_cosine_after_torchs_linear_warmup():
    config = ScheduleConfig("cosine", warmup=5, final=0.1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 5, 1.0, total_iters=4)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20, eta_min=0.1)
    both = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, fall], milestones=[5])
    for step in range(25):
        assert lr_factor(config, step, 25) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        both.step()


def test_linear_and_constant():
    linear = ScheduleConfig("linear", warmup=0, final=0.2)
    assert [lr_factor(linear, step, 4) for step in range(5)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    constant = ScheduleConfig("constant", warmup=2)
    assert [lr_factor(constant, step, 4) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]


@given(
    st.sampled_from(["cosine", "linear", "constant"]),
    st.integers(0, 50),
    st.floats(0, 1),
    st.integers(1, 200),
)
def test_factors_stay_in_range_and_fall_after_warmup(name, warmup, final, steps):
    config = ScheduleConfig(name, warmup, final)
    factors = [lr_factor(config, step, steps) for step in range(steps + 3)]
    assert all(0 <= factor <= 1 and math.isfinite(factor) for factor in factors)
    after = factors[warmup:]
    assert all(one >= two - 1e-12 for one, two in pairwise(after))
    if after[: steps - warmup]:
        assert after[0] == 1.0
