"""Contestants run in turns; what they took, medians, paired ratios, memory, and the rates a machine reaches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

Clock = Literal["wall", "cpu"]
WHOLE = "whole"
"""The stage that is everything."""


class Stopwatch:
    """Seconds of each stage of one run; a stage that runs twice counts both.

    The clock is the wall's, or the processor time of this process: on a machine that does other things too, only the
    latter says something about a program.
    """

    def __init__(self, clock: Clock, device: str = "cpu") -> None:
        self.seconds: dict[str, float] = {}
        self._now = time.perf_counter if clock == "wall" else time.process_time
        self._device = device

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is inside as ``name``."""
        self._wait()
        start = self._now()
        yield
        self._wait()
        self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - start

    def around(self, owner: Any, method: str, name: str) -> Callable[[], None]:
        """Time every call of ``owner.method`` as the stage ``name``; returns what stops that."""
        original, own = getattr(owner, method), vars(owner).get(method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return original(*args, **kwargs)

        setattr(owner, method, timed)
        return lambda: delattr(owner, method) if own is None else setattr(owner, method, own)

    def _wait(self) -> None:
        if self._device.startswith("cuda"):
            torch.cuda.synchronize()


@dataclass
class Contestant:
    """One way to compute the same thing.

    Attributes:
        name: unique, as it stands in the table.
        run: does round number n, timing its stages; returns what it made, for comparison.
        weights: bytes of its weights.
        rate: which of the machine's measured rates its products run at, "float32" or "bfloat16".
    """

    name: str
    run: Callable[[int, Stopwatch], Tensor]
    weights: int
    rate: str


@dataclass
class Runs:
    """What a contestant took: seconds of each stage in each round, bytes beyond the start, and its outcome."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    memory: int = 0
    outcome: Tensor | None = None

    def median(self, stage: str = WHOLE) -> float:
        """Median seconds of a stage."""
        return float(np.median(self.seconds[stage]))


@torch.no_grad()
def race(
    contestants: Sequence[Contestant],
    rounds: int,
    clock: Clock,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Runs]:
    """Each contestant once in every round, in an order that turns, after one round that does not count."""
    results = {each.name: Runs() for each in contestants}
    for number in range(-1, rounds):
        turn = number % len(contestants)
        for each in (*contestants[turn:], *contestants[:turn]):
            watch, runs = Stopwatch(clock, device), results[each.name]
            with peak_memory(device) as peak, watch.stage(WHOLE):
                outcome = each.run(max(number, 0), watch)
            if number < 0:
                runs.outcome = outcome
                continue
            runs.memory = max(runs.memory, peak())
            for stage, seconds in watch.seconds.items():
                runs.seconds.setdefault(stage, []).append(seconds)
        if progress and number >= 0:
            progress(number + 1, rounds)
    return results


def ratio(slow: Runs, fast: Runs, stage: str = WHOLE) -> tuple[float, float, float]:
    """How many times faster ``fast`` was: median of the rounds' ratios, and their quartiles."""
    ratios = np.array(slow.seconds[stage]) / np.array(fast.seconds[stage])
    middle, low, high = np.percentile(ratios, [50, 25, 75])
    return float(middle), float(low), float(high)


def difference(one: Tensor, other: Tensor) -> float:
    """Relative difference of two outcomes in the Euclidean norm."""
    one, other = one.double(), other.double()
    return float((one - other).norm() / other.norm())


@contextmanager
def peak_memory(device: str) -> Iterator[Callable[[], int]]:
    """Bytes that the block needed at most beyond what was in use before: of the process, or of a CUDA device."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield lambda: torch.cuda.max_memory_allocated() - before
        return
    process = psutil.Process()
    before = most = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.01):
            most = max(most, process.memory_info().rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: max(most, process.memory_info().rss) - before
    finally:
        done.set()
        thread.join()


def _attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)


_UNCOUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
"""What torch's counter leaves out: its fused attention on processors."""


class Operations(Stopwatch):
    """Counts the floating-point operations of each stage instead: of products, attentions and convolutions."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.counts: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what is inside as ``name``."""
        with FlopCounterMode(display=False, custom_mapping=_UNCOUNTED) as counter:
            yield
        self.counts[name] = self.counts.get(name, 0) + counter.get_total_flops()


@torch.no_grad()
def operations(contestant: Contestant, stage: str = "denoise") -> int:
    """Of one of a contestant's stages in one run."""
    counter = Operations()
    contestant.run(0, counter)
    return counter.counts[stage]


@torch.no_grad()
def machine_rates(clock: Clock, device: str = "cpu", size: int = 1536) -> Mapping[str, float]:
    """Floating-point operations a second of square products, the best of five, by format: the roof of every kernel."""
    rates = {}
    if device.startswith("cuda"):
        size = 8192
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.randn(size, size, device=device, dtype=dtype)
        best = float("inf")
        for _ in range(6):
            watch = Stopwatch(clock, device)
            with watch.stage(WHOLE):
                matrix @ matrix  # pyright: ignore[reportUnusedExpression]
            best = min(best, watch.seconds[WHOLE])
        rates[str(dtype).removeprefix("torch.")] = 2 * size**3 / best
    return rates
