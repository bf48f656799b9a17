"""Many requests to one model: some at once, each outcome as it comes, and an end when the model is taken for dead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from unireel.backbones.remote import BudgetSpent, RemoteError, Reply
from unireel.errors import UserError

DEAD_AFTER = 5
"""Failures in a row after which a model is taken for dead, and the rest is not asked."""

Item = TypeVar("Item")


class Dead(RemoteError):
    """The model failed too often in a row; nothing was sent."""


def ask_each(
    items: Iterable[Item], ask: Callable[[Item], Reply], parallel: int
) -> Iterator[tuple[Item, Reply | UserError]]:
    """Yield (item, reply or error) as they come; every item comes exactly once.

    Args:
        items: taken one by one, never more than ``parallel`` ahead of the replies.
        ask: sends a request, in a thread; its :class:`UserError` is the item's outcome. Only a :class:`RemoteError`
            speaks against the model; after :data:`DEAD_AFTER` of them in a row, or when the budget is spent, the rest
            is yielded with the reason and not asked.
    """
    todo = iter(items)
    failures = 0
    stop: RemoteError | None = None
    running: dict[Future[Reply], Item] = {}
    with ThreadPoolExecutor(parallel) as pool:
        while True:
            while stop is None and len(running) < parallel:
                try:
                    item = next(todo)
                except StopIteration:
                    break
                running[pool.submit(ask, item)] = item
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item = running.pop(future)
                try:
                    yield item, future.result()
                    failures = 0
                except BudgetSpent as error:
                    stop = error
                    yield item, error
                except RemoteError as error:
                    failures += 1
                    if failures >= DEAD_AFTER:
                        stop = Dead(f"no usable answer {failures} times in a row: {error}")
                    yield item, error
                except UserError as error:
                    yield item, error
    if stop is not None:
        for item in todo:
            yield item, stop
