"""Batches arrive in order, from wherever they are computed, and failures reach the caller."""

import multiprocessing
import threading
import time

import pytest
import torch

from unireel.training.prefetch import batches

WAYS = [(0, 0), (3, 0), (2, 2)]


def _take(iterator, count):
    return [next(iterator) for _ in range(count)]


def _open(make, start=0, stride=1, prefetch=0, workers=0):
    threads = torch.get_num_threads()
    return batches(make, start, stride, threads=threads, prefetch=prefetch, workers=workers, pin=False)


@pytest.mark.parametrize(("prefetch", "workers"), WAYS)
def test_order_start_and_stride(prefetch, workers):
    def make(index):
        time.sleep(0.01 if index % 4 else 0.03)
        return {"index": torch.tensor([index]), "pair": (torch.full((2,), index), [index])}

    data = _open(make, 5, 3, prefetch, workers)
    found = _take(data, 9)
    data.close()
    assert [int(batch["index"]) for batch in found] == list(range(5, 32, 3))
    assert [batch["pair"][1] for batch in found] == [[index] for index in range(5, 32, 3)]


@pytest.mark.parametrize(("prefetch", "workers"), WAYS)
def test_a_failing_batch_is_reported_when_its_turn_comes(prefetch, workers):
    def make(index):
        if index == 2:
            raise ZeroDivisionError("batch two")
        return torch.tensor(index)

    data = _open(make, prefetch=prefetch, workers=workers)
    assert [int(batch) for batch in _take(data, 2)] == [0, 1]
    with pytest.raises(ZeroDivisionError, match="batch two"):
        next(data)


@pytest.mark.parametrize(("prefetch", "workers"), WAYS)
def test_the_global_generator_and_thread_count_are_left_alone(prefetch, workers):
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    data = _open(lambda index: torch.tensor(index), prefetch=prefetch, workers=workers)
    _take(data, 4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    data.close()


def test_closing_ends_the_helpers():
    for prefetch, workers in WAYS:
        data = _open(lambda index: torch.tensor(index), prefetch=prefetch, workers=workers)
        next(data)
        data.close()
    time.sleep(0.3)
    assert not [thread for thread in threading.enumerate() if thread.name == "unireel-batches"]
    assert not multiprocessing.active_children()


def test_a_thread_works_ahead():
    seen = []

    def make(index):
        seen.append(index)
        return index

    data = _open(make, prefetch=3)
    next(data)
    deadline = time.monotonic() + 5
    while len(seen) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert seen[:4] == [0, 1, 2, 3]
    data.close()
