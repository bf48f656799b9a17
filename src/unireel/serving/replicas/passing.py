"""A request on its way to an application in another process, and the answer on its way back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import Request
from starlette.types import ASGIApp, Message, Scope

_RUNNING: set[asyncio.Task[None]] = set()
"""Answers that nobody waits for any more, until their application has noticed."""


@dataclass(frozen=True)
class Passed:
    """A request that has come in whole; all of it is plain, so that it can be sent.

    Attributes:
        method, path: as in ASGI.
        query: without the question mark.
        headers: names in small letters, and values.
        body: all of it.
    """

    method: str
    path: str
    query: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""

    @classmethod
    async def of(cls, request: Request) -> Passed:
        """A request with its body, which is read."""
        scope = request.scope
        headers = tuple((bytes(name), bytes(value)) for name, value in scope["headers"])
        return cls(scope["method"], scope["path"], scope["query_string"], headers, await request.body())

    def scope(self) -> Scope:
        """What an ASGI application gets."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": self.query,
            "root_path": "",
            "headers": list(self.headers),
            "client": None,
            "server": None,
        }


async def answer(app: ASGIApp, request: Passed) -> AsyncGenerator[Message, None]:
    """The messages of ``app``'s answer as they come. To close the iterator early is to hang up.

    Raises:
        Exception: whatever the application ends with.
    """
    messages: asyncio.Queue[Message | None] = asyncio.Queue()
    gone, given = asyncio.Event(), False

    async def receive() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": request.body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if gone.is_set():
            raise ConnectionResetError
        messages.put_nowait(message)

    async def run() -> None:
        try:
            await app(request.scope(), receive, send)
        finally:
            messages.put_nowait(None)

    task = asyncio.create_task(run())
    _RUNNING.add(task)
    task.add_done_callback(_RUNNING.discard)
    try:
        while (message := await messages.get()) is not None:
            yield message
        await task
    finally:
        gone.set()
