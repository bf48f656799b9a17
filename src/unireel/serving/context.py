"""What the routes have at hand, and how they wait for the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request

from unireel.serving.checks import Intake
from unireel.serving.engine import Engine
from unireel.serving.schema import ErrorBody
from unireel.serving.settings import Settings

T = TypeVar("T")

ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request is refused; `error.code` says why."},
    "5XX": {"model": ErrorBody, "description": "The server could not do it."},
}
"""OpenAPI's description of failures, the same for every route."""

LOOK_SECONDS = 1.0
"""How often it is looked whether a waiting client is still there."""


@dataclass(frozen=True)
class Context:
    """One server's parts."""

    engine: Engine
    settings: Settings
    intake: Intake


class ClientGone(ConnectionError):
    """The client has hung up; there is nobody to answer."""


async def wait_for(request: Request, future: Future[T], give_up: Callable[[], Any]) -> T:
    """The future's result.

    Raises:
        ClientGone: the client hung up first; ``give_up`` has been called.
        ApiError: what the future ended with.
    """
    waiting = asyncio.wrap_future(future)
    try:
        while not (await asyncio.wait({waiting}, timeout=LOOK_SECONDS))[0]:
            if await request.is_disconnected():
                raise ClientGone
        return waiting.result()
    except (ClientGone, asyncio.CancelledError):
        waiting.cancel()
        await asyncio.to_thread(give_up)
        raise
