"""What stands before every request: who may come, how large and how slow a request may be, what is logged of it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unireel.serving.errors import ApiError
from unireel.serving.metrics import Metrics
from unireel.serving.settings import Settings

logger = logging.getLogger("unireel.serving.access")

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

OPEN_PATHS = ("/health", "/ready")
"""What load balancers look at; they say nothing but whether the server lives."""


class Guard:
    """An ASGI middleware. Of a request it logs the method, the route's pattern, the status and the time: no
    addresses of clients, no ids, no queries, no bodies, no keys."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self.held = 0
        """Bytes of the bodies of all requests that are not answered yet."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self)
        try:
            exchange.check()
            await self.app(scope, exchange.receive, exchange.send)
        except ApiError as error:
            await exchange.refuse(error)
        except (TimeoutError, ConnectionError, ClientDisconnect):
            exchange.status = exchange.status or 499
        except Exception:
            logger.exception("request %s", exchange.id)
            await exchange.refuse(ApiError("internal_error"))
        finally:
            self.held -= exchange.bytes
            self._record(scope, exchange)

    def _record(self, scope: Scope, exchange: _Exchange) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        seconds = time.monotonic() - exchange.start
        self.metrics.requests.labels(method, route, str(exchange.status or 499)).inc()
        self.metrics.latency.labels(route).observe(seconds)
        line = "%s %s %s %.1f ms %s"
        logger.info(line, method, route, exchange.status or 499, 1000 * seconds, exchange.id)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, guard: Guard) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.guard, self.settings = guard, guard.settings
        self.id, self.start = f"req_{uuid.uuid4().hex}", time.monotonic()
        self.status = 0
        self.bytes, self._complete = 0, False
        self._headers: dict[bytes, bytes] = dict(scope["headers"])

    def check(self) -> None:
        """Refuse who may not come and what is too large, before anything is read.

        Raises:
            ApiError: as the catalogue says.
        """
        host = self._headers.get(b"host", b"").decode("latin-1").lower()
        if self.settings.hosts and _without_port(host) not in self.settings.hosts:
            raise ApiError("unknown_host")
        origin = self._headers.get(b"origin", b"").decode("latin-1").lower()
        if origin and urlsplit(origin).netloc != host:
            raise ApiError("cross_origin")
        if self.settings.api_key is not None and self.scope["path"] not in OPEN_PATHS and not self._has_key():
            raise ApiError("invalid_api_key")
        length = self._headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.settings.max_body:
            raise ApiError("body_too_large", limit=self.settings.max_body)

    def _has_key(self) -> bool:
        """The key as a bearer token, or outside the API as the password that a browser asks for."""
        kind, _, word = self._headers.get(b"authorization", b"").partition(b" ")
        given = word.strip()
        if kind.lower() == b"basic" and not self.scope["path"].startswith("/v1"):
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif kind.lower() != b"bearer":
            return False
        return hmac.compare_digest(given, (self.settings.api_key or "").encode())

    async def receive(self) -> Message:
        """The next piece of the body, within its bytes and seconds."""
        if self._complete:
            return await self._receive()
        left = self.settings.body_seconds - (time.monotonic() - self.start)
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.001))
        except TimeoutError:
            raise ApiError("request_timeout", limit=f"{self.settings.body_seconds:g}") from None
        size = len(message.get("body", b""))
        self.bytes += size
        self.guard.held += size
        if self.guard.held > self.settings.max_bodies:
            raise ApiError("busy", retry_after=1)
        if self.bytes > self.settings.max_body:
            raise ApiError("body_too_large", limit=self.settings.max_body)
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """A piece of the answer, which the client must take in time."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", []),
                (b"x-request-id", self.id.encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
            if not self._complete and self._expects_body():
                # What is left of the body is not read.
                message["headers"].append((b"connection", b"close"))
        await asyncio.wait_for(self._send(message), self.settings.write_seconds)

    def _expects_body(self) -> bool:
        return b"transfer-encoding" in self._headers or self._headers.get(b"content-length", b"0") != b"0"

    async def refuse(self, error: ApiError) -> None:
        """Answer with an error, unless an answer has begun."""
        if self.status:
            return
        headers = error.headers()
        if error.status == 401 and not self.scope["path"].startswith("/v1"):
            headers["WWW-Authenticate"] = 'Basic realm="unireel", charset="UTF-8"'
        response: Any = JSONResponse(error.body(), error.status, headers)
        await response(self.scope, self.receive, self.send)


def _without_port(host: str) -> str:
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and host[-1:] != "]" else host
