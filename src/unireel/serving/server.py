"""Running the application: uvicorn with a time limit for headers, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from types import FrameType

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from unireel.serving.engine import Engine
from unireel.serving.settings import Settings

logger = logging.getLogger("unireel.serving")

MAX_HEADER_BYTES = 32 * 1024
MAX_CONNECTIONS = 1000
"""More are answered with 503 at once."""


class Server(uvicorn.Server):
    """A server whose engine takes nothing more from the moment of the first signal, so that those who wait for
    jobs that have not begun are told at once, and what is running can end."""

    def __init__(
        self, app: FastAPI, engine: Engine, settings: Settings, host: str, port: int, grace: float = 30.0
    ) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http=_protocol(settings.header_seconds),
            ws="none",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=int(grace) + 5,
        )
        super().__init__(config)
        self.engine = engine

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On SIGTERM and SIGINT; a second SIGINT does not wait. Stopping when told to is a success: exit code 0."""
        loop = asyncio.get_running_loop()
        # Not from within the handler, which may have interrupted whoever holds a lock.
        loop.call_soon_threadsafe(loop.run_in_executor, None, self._drain)
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    def _drain(self) -> None:
        logger.info("stopping: what is running may end, what waits is kept")
        self.engine.drain()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 lets the system choose.

    Raises:
        OSError: the address is in use or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    return listening


def _protocol(header_seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol, which also hangs up if a request's headers do not arrive in time."""

    class Protocol(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._headers_came()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._headers_came()
            elif self._deadline is None:
                self._expect_headers()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
                self._expect_headers()

        def _expect_headers(self) -> None:
            self._headers_came()
            self._deadline = self.loop.call_later(header_seconds, self.transport.abort)

        def _headers_came(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return Protocol
