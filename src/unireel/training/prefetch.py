"""Batches ahead of need: computed by a background thread or by worker processes, always in order."""

import contextlib
import queue
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch


def batches(
    make: Callable[[int], Any], start: int, stride: int, threads: int, prefetch: int, workers: int, pin: bool
) -> Generator[Any, None, None]:
    """Yield ``make(start)``, ``make(start + stride)``, ... without end; close it to end its helpers.

    Args:
        make: pure function of the index.
        start: first index.
        stride: distance between indices (the number of processes that train).
        threads: intra-op threads of the caller, restored after helpers have set their own to one.
        prefetch: batches that may wait; 0 computes each when asked for.
        workers: processes that compute batches; 0 uses one thread. Python code such as a renderer holds the
            interpreter lock, so a thread helps only as far as its work releases it.
        pin: give batches in page-locked memory (workers only).
    """
    if workers:
        return _from_workers(make, start, stride, max(1, prefetch), workers, pin)
    if prefetch:
        return _from_thread(make, start, stride, threads, prefetch)
    return _inline(make, start, stride)


def _inline(make: Callable[[int], Any], start: int, stride: int) -> Generator[Any, None, None]:
    while True:
        yield make(start)
        start += stride


def _from_thread(
    make: Callable[[int], Any], start: int, stride: int, threads: int, prefetch: int
) -> Generator[Any, None, None]:
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(maxsize=prefetch)
    stop = threading.Event()

    def put(item: tuple[Any, BaseException | None]) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.2)
                return

    def produce() -> None:
        # Thread-local in OpenMP: a second team of threads would fight the training step for the cores.
        torch.set_num_threads(1)
        begun.set()
        index = start
        try:
            while not stop.is_set():
                put((make(index), None))
                index += stride
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, who raises it
            put((None, error))

    begun = threading.Event()
    thread = threading.Thread(target=produce, name="unireel-batches", daemon=True)
    thread.start()
    begun.wait()
    torch.set_num_threads(threads)
    try:
        while True:
            batch, error = ready.get()
            if error is not None:
                raise error
            yield batch
    finally:
        stop.set()
        thread.join()


class _Indexed(torch.utils.data.Dataset):
    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


class _Indices(torch.utils.data.Sampler):
    def __init__(self, start: int, stride: int) -> None:
        self.start, self.stride = start, stride

    def __iter__(self) -> Iterator[int]:
        index = self.start
        while True:
            yield index
            index += self.stride


def _quiet(_: int) -> None:
    # Ctrl-C reaches the whole process group; only the trainer decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _from_workers(
    make: Callable[[int], Any], start: int, stride: int, prefetch: int, workers: int, pin: bool
) -> Generator[Any, None, None]:
    loader = torch.utils.data.DataLoader(
        _Indexed(make),
        batch_size=None,
        sampler=_Indices(start, stride),
        num_workers=workers,
        prefetch_factor=prefetch,
        multiprocessing_context="fork",
        worker_init_fn=_quiet,
        pin_memory=pin,
        generator=torch.Generator(),  # the default would draw from the training run's own generator
    )
    iterator = iter(loader)
    try:
        while True:
            yield next(iterator)
    finally:
        # Otherwise they end when the last reference goes, and a traceback may keep one for long.
        iterator._shutdown_workers()  # type: ignore[attr-defined]
