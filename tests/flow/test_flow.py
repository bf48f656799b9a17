"""Paths and samplers against closed forms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unireel.flow.matching import interpolate, sample_times, shift_time, velocity
from unireel.flow.sampling import sample, time_grid


class Gaussian(nn.Module):
    """The exact velocity of the flow from N(0, 1) to N(mean, spread^2), where ``mean`` is read from the text."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.config = {"patch_size": (1, 1, 1), "in_channels": 2, "out_channels": 2}
        self.spread = spread

    def forward(self, hidden_states, timestep, encoder_hidden_states, return_dict):
        time = (timestep if timestep.ndim == 1 else timestep[:, -1]) / 1000
        t = time.view(-1, 1, 1, 1, 1)
        mean = encoder_hidden_states[:, 0, 0].view(-1, 1, 1, 1, 1)
        variance = (1 - t) ** 2 * self.spread**2 + t**2
        centred = hidden_states - (1 - t) * mean
        data = mean + (1 - t) * self.spread**2 / variance * centred
        noise = t / variance * centred
        return (noise - data,)


def exact(noise, mean, spread):
    """The flow is linear: noise z at time 1 arrives at mean + spread z."""
    return mean + spread * noise


@pytest.mark.parametrize("steps, tolerance", [(20, 5e-2), (80, 5e-3)])
def test_sampler_follows_the_exact_flow(steps, tolerance):
    torch.manual_seed(0)
    noise = torch.randn(3, 2, 2, 2, 2)
    text = torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1)
    result = sample(Gaussian(0.5), noise, text, torch.zeros(3, 1, 1), steps=steps, guidance=1.0)
    assert torch.allclose(result, exact(noise, text.view(3, 1, 1, 1, 1), 0.5), atol=tolerance)


def test_sampler_is_of_second_order():
    torch.manual_seed(0)
    noise, text = torch.randn(1, 2, 1, 2, 2), torch.ones(1, 1, 1)
    goal = exact(noise, 1.0, 0.5)
    errors = [
        float((sample(Gaussian(0.5), noise, text, text, steps=n, guidance=1.0, shift=1.0) - goal).abs().max())
        for n in (16, 32)
    ]
    assert errors[1] < errors[0] / 2.8


def test_sampling_from_the_middle_of_the_flow_arrives_where_the_whole_flow_does():
    torch.manual_seed(0)
    noise, text = torch.randn(1, 2, 1, 2, 2), torch.ones(1, 1, 1)
    spread, start = 0.5, 0.6
    midway = (1 - start) + ((1 - start) ** 2 * spread**2 + start**2) ** 0.5 * noise
    result = sample(Gaussian(spread), midway, text, text, steps=60, guidance=1.0, start=start)
    assert torch.allclose(result, exact(noise, 1.0, spread), atol=5e-3)


def test_a_restart_with_an_exact_model_stays_on_the_law():
    """Noised and drawn once more, samples of N(mean, spread^2) are samples of it again, but others."""
    torch.manual_seed(0)
    noise, text = torch.randn(1, 2, 16, 16, 16), torch.ones(1, 1, 1)
    once = sample(Gaussian(0.5), noise, text, text, steps=64, guidance=1.0)
    twice = sample(Gaussian(0.5), noise, text, text, steps=64, guidance=1.0, restart=0.5)
    assert float(twice.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(twice.std()) == pytest.approx(0.5, abs=0.02)
    # Noised to 0.5, a fifth of the variance is still the first draw's: 0.25 of 0.25 + 1.
    assert float(torch.corrcoef(torch.stack([once.flatten(), twice.flatten()]))[0, 1]) == pytest.approx(
        0.2**0.5, abs=0.03
    )


def test_a_restart_takes_a_quarter_of_the_steps_without_guidance():
    evaluated = []

    class Counting(Gaussian):
        def forward(self, hidden_states, timestep, encoder_hidden_states, return_dict):
            evaluated.append((len(hidden_states), float(timestep.max())))
            return super().forward(hidden_states, timestep, encoder_hidden_states, return_dict)

    noise, first, text = torch.randn(1, 2, 3, 2, 2), torch.randn(1, 2, 1, 2, 2), torch.ones(1, 1, 1)
    made = sample(Counting(0.5), noise, text, -text, steps=8, guidance=2.0, first=first, restart=0.5)
    assert [rows for rows, _ in evaluated] == [2] * 8 + [1] * 2
    assert evaluated[8][1] == pytest.approx(500.0)
    evaluated.clear()
    sample(Counting(0.5), noise[:, :, :1], text, -text, steps=8, guidance=2.0, restart=0.5)  # a picture
    assert len(evaluated) == 8
    assert torch.equal(made[:, :, :1], first)


def test_guidance_moves_a_shift_of_the_mean_by_its_scale():
    """For equal spreads, velocities differ by a state-free term, so guidance g targets g * mean exactly."""
    torch.manual_seed(0)
    noise, text = torch.randn(1, 2, 1, 2, 2), torch.ones(1, 1, 1)
    guided = sample(Gaussian(0.5), noise, text, torch.zeros(1, 1, 1), steps=60, guidance=3.0)
    assert torch.allclose(guided, exact(noise, 3.0, 0.5), atol=1e-2)


def test_a_given_first_frame_is_kept():
    noise, first = torch.randn(1, 2, 3, 2, 2), torch.randn(1, 2, 1, 2, 2)
    result = sample(Gaussian(0.5), noise, torch.ones(1, 1, 1), torch.zeros(1, 1, 1), steps=4, first=first)
    assert torch.equal(result[:, :, :1], first)


def test_steps_are_reported_and_may_replace_the_state():
    seen = []

    def on_step(number, time, state):
        seen.append((number, float(time)))
        return torch.zeros_like(state)

    result = sample(
        Gaussian(0.5),
        torch.randn(1, 2, 1, 2, 2),
        torch.ones(1, 1, 1),
        torch.zeros(1, 1, 1),
        steps=3,
        on_step=on_step,
    )
    assert [number for number, _ in seen] == [0, 1, 2] and seen[0][1] == 1000
    assert not result.any()


@given(st.floats(0, 1), st.floats(0.2, 8))
def test_shift_keeps_the_ends_and_is_undone_by_its_inverse(time, shift):
    t = torch.tensor(time, dtype=torch.float64)
    moved = shift_time(t, shift)
    assert 0 <= float(moved) <= 1 + 1e-12
    assert float(shift_time(moved, 1 / shift)) == pytest.approx(time, abs=1e-9)


@given(st.integers(1, 100), st.floats(0.5, 5))
def test_time_grid_falls_from_one_to_zero(steps, shift):
    grid = time_grid(steps, shift)
    assert len(grid) == steps + 1 and float(grid[0]) == pytest.approx(1) and grid[-1] == 0
    assert (grid.diff() < 0).all()


def test_path_and_velocity():
    data, noise = torch.randn(4, 3), torch.randn(4, 3)
    h = 1e-3
    t = torch.full((4,), 0.4)
    slope = (interpolate(data, noise, t + h) - interpolate(data, noise, t - h)) / (2 * h)
    assert torch.allclose(slope, velocity(data, noise), atol=1e-3)


def test_times_are_logit_normal():
    torch.manual_seed(0)
    times = sample_times(40_000, 1.0, 0.0, torch.device("cpu"))
    logits = torch.logit(times)
    assert abs(float(logits.mean())) < 0.03 and abs(float(logits.std()) - 1) < 0.03
    uniform = sample_times(40_000, 1.0, 1.0, torch.device("cpu"))
    assert abs(float(uniform.mean()) - 0.5) < 0.01 and abs(float(uniform.var()) - 1 / 12) < 0.003
