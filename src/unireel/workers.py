"""The same work on many things: in this process, in several on this machine, or on Ray Data on many.

``make(number)`` builds what does the work, once in every worker (it loads models there); that is called with one thing
after the other. Both must be importable or picklable. Results come as they are done, in any order.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Literal

from unireel.errors import UsageError, UserError

Engine = Literal["processes", "ray"]
Work = Callable[[Any], Any]
STORE_BYTES = 2**29
"""Of shared memory for what is on its way between processes, where Ray is started just for this."""


@dataclass(frozen=True)
class Workers:
    """Who does the work.

    Attributes:
        count: workers; 0 is this process alone.
        engine: processes of this machine, or actors of Ray Data: of the cluster that this machine is in
            (``RAY_ADDRESS``), or of a Ray that lives as long as the work.
        gpus: devices of each on Ray; a process has the device of its number.
    """

    count: int = 0
    engine: Engine = "processes"
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.engine == "ray" and not self.count:
            raise UsageError("Ray needs at least one worker")


def run(things: Sequence[Any], make: Callable[[int], Work], workers: Workers) -> Iterator[Any]:
    """What the work makes of each of ``things``.

    Raises:
        UserError: the work raised one, a worker died, or Ray is not there.
    """
    if not things:
        return
    if workers.engine == "ray":
        yield from _on_ray(things, make, workers)
    elif workers.count:
        yield from _in_processes(things, make, min(workers.count, len(things)))
    else:
        work = make(0)
        yield from map(work, things)


_work: Work | None = None


def _begin(make: Callable[[int], Work], numbers: Any) -> None:
    global _work
    _work = make(numbers.get())


def _one(thing: Any) -> Any:
    assert _work is not None
    return _guarded(_work, thing)


def _guarded(work: Work, thing: Any) -> Any:
    """The result, or what went wrong as a value: errors of libraries do not all survive the way between processes."""
    try:
        return work(thing)
    except UserError as error:
        return _Failure(str(error), isinstance(error, UsageError))


@dataclass(frozen=True)
class _Failure:
    message: str
    usage: bool


def _opened(result: Any) -> Any:
    if isinstance(result, _Failure):
        raise (UsageError if result.usage else UserError)(result.message)
    return result


def _in_processes(things: Sequence[Any], make: Callable[[int], Work], count: int) -> Iterator[Any]:
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(count):
        numbers.put(number)
    pool = ProcessPoolExecutor(count, context, _begin, (make, numbers))
    try:
        for done in as_completed([pool.submit(_one, thing) for thing in things]):
            yield _opened(done.result())
    except BrokenProcessPool as error:
        raise UserError(
            "a worker could not start or died (too little memory?); what is done is kept"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


class _Actor:
    """A worker of Ray Data; rows are pickles, because Arrow knows nothing of our types."""

    def __init__(self, make: Callable[[int], Work]) -> None:
        self.work = make(0)  # Ray shows each worker its own devices only

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"pickle": pickle.dumps(_guarded(self.work, pickle.loads(row["pickle"])))}


def _on_ray(things: Sequence[Any], make: Callable[[int], Work], workers: Workers) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read at import: Ray would tell its makers
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("pyarrow") is None:
        raise UserError("this needs Ray Data, which is not installed: pip install 'unireel[ray]'")
    import ray  # pyright: ignore[reportMissingImports]
    import ray.data  # pyright: ignore[reportMissingImports]
    from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]

    own = not ray.is_initialized()
    if own and "RAY_ADDRESS" in os.environ:
        ray.init(logging_level="error")
    elif own:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's word for: on the loopback only
        ray.init(
            address="local",
            include_dashboard=False,
            num_cpus=max(os.cpu_count() or 1, workers.count + 1),
            object_store_memory=STORE_BYTES,
            logging_level="error",
        )
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        rows = ray.data.from_items(
            [{"pickle": pickle.dumps(each)} for each in things], override_num_blocks=len(things)
        )
        done = rows.map(
            _Actor,
            fn_constructor_args=(make,),
            num_cpus=1,
            num_gpus=workers.gpus or None,
            concurrency=workers.count,
        )
        for row in done.iter_rows():
            yield _opened(pickle.loads(row["pickle"]))
    except RayError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UserError(f"a worker on Ray failed: {reason}; what is done is kept") from error
    finally:
        if own:
            ray.shutdown()
