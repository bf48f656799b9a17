"""Arithmetic of time stamps, against slow and obvious references."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unireel.errors import UsageError
from unireel.media.sampling import TOLERANCE, constant_rate, frames_on_display, sample_times, typical_step

rates = st.floats(min_value=0.5, max_value=240)
counts = st.integers(min_value=1, max_value=400)


def on_display_slowly(stamps: list[float], moment: float) -> int:
    """The frame a viewer sees: the last one that has already appeared."""
    return max((index for index, stamp in enumerate(stamps) if stamp <= moment), default=0)


@given(rates, counts)
def test_the_films_own_rate_takes_every_frame_once(rate: float, count: int) -> None:
    stamps = np.arange(count) / rate
    times, clip_rate = sample_times(count / rate, fps=rate)
    assert frames_on_display(stamps, times).tolist() == list(range(count))
    assert clip_rate == rate


@given(rates, counts)
def test_as_many_as_there_are_takes_every_frame_once(rate: float, count: int) -> None:
    stamps = np.arange(count) / rate
    times, clip_rate = sample_times(count / rate, num_frames=count)
    assert frames_on_display(stamps, times).tolist() == list(range(count))
    assert clip_rate == pytest.approx(rate)


@given(st.integers(2, 6), st.integers(1, 60), st.sampled_from([8.0, 24.0, 30000 / 1001, 60.0]))
def test_a_whole_part_of_the_rate_takes_every_nth_frame(part: int, count: int, rate: float) -> None:
    stamps = np.arange(part * count) / rate
    times, _ = sample_times(part * count / rate, fps=rate / part)
    assert frames_on_display(stamps, times).tolist() == list(range(0, part * count, part))


@given(
    st.lists(st.floats(0.001, 3.0), min_size=1, max_size=60),
    st.floats(0.2, 100.0),
    st.floats(0.0, 1.0),
)
def test_uneven_stamps_show_what_a_viewer_sees(gaps: list[float], rate: float, start_part: float) -> None:
    stamps = np.concatenate([[0.0], np.cumsum(gaps)])
    duration = float(stamps[-1]) + 0.5
    start = start_part * duration * 0.9
    times, _ = sample_times(duration - start, fps=rate, start=start)
    assert times[0] == start
    assert times[-1] < duration
    late = TOLERANCE * typical_step(stamps)
    shown = [on_display_slowly(stamps.tolist(), moment + late) for moment in times]
    assert frames_on_display(stamps, times).tolist() == shown


@given(st.floats(0.01, 1e4), st.integers(1, 300))
def test_a_clip_lasts_as_long_as_what_it_was_taken_from(duration: float, count: int) -> None:
    times, rate = sample_times(duration, num_frames=count)
    assert len(times) / rate == pytest.approx(duration)
    assert np.allclose(times, np.arange(count) / rate)


@pytest.mark.parametrize("rate", [8.0, 10.0, 12.5, 24000 / 1001, 24.0, 25.0, 30000 / 1001, 30.0, 60.0])
@pytest.mark.parametrize("grain", [0.001, 1 / 90_000])
def test_rounded_stamps_are_still_even(rate: float, grain: float) -> None:
    stamps = np.round(np.arange(500) / rate / grain) * grain
    assert constant_rate(stamps, [rate]) == rate
    found = constant_rate(stamps)
    assert found == pytest.approx(rate, rel=1e-3)
    times, _ = sample_times(500 / rate, fps=rate)
    assert frames_on_display(stamps, times).tolist() == list(range(500))


@pytest.mark.parametrize("rate", [8, 10, 12, 15, 24, 25, 30, 40, 50])
def test_gif_delays_of_whole_hundredths_are_still_even(rate: int) -> None:
    stamps = np.array([round(index * 100 / rate) / 100 for index in range(120)])
    assert constant_rate(stamps) == rate


def test_a_header_that_lies_is_not_believed() -> None:
    assert constant_rate(np.arange(50) / 24, [30.0, 90_000.0]) == pytest.approx(24)


@given(st.integers(3, 50))
def test_a_pause_is_not_an_even_rate(count: int) -> None:
    stamps = np.arange(count) / 25
    stamps[count // 2 :] += 1.0
    assert constant_rate(stamps, [25.0]) is None


def test_one_frame_has_no_rate() -> None:
    assert constant_rate(np.zeros(1), [25.0]) is None


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"fps": 8.0, "num_frames": 3},
        {"fps": 0.0},
        {"fps": float("nan")},
        {"fps": float("inf")},
        {"num_frames": 0},
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict) -> None:
    with pytest.raises(UsageError):
        sample_times(2.0, **arguments)


@pytest.mark.parametrize("duration", [0.0, -1.0, float("nan")])
def test_no_time_no_frames(duration: float) -> None:
    with pytest.raises(UsageError):
        sample_times(duration, fps=8.0)
