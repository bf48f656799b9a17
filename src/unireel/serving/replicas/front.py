"""The one address of several servers: it holds nothing itself and passes every request on to the right one.

A job stays with the server that took it, and its id names that server. So a request that names a job, in its path,
its query or its body, goes there. One with an ``Idempotency-Key`` always goes to the same server, so that the same
key makes the same job only once. All others go to the servers in turn, past those that are full or not ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import heapq
import itertools
import logging
import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Annotated, Any, Literal, Protocol

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import StreamingResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message

from unireel.serving.app import tell_failures
from unireel.serving.context import LOOK_SECONDS, ClientGone
from unireel.serving.errors import ApiError
from unireel.serving.guard import METHODS, Guard
from unireel.serving.metrics import Metrics
from unireel.serving.replicas.member import number_of
from unireel.serving.replicas.passing import Passed
from unireel.serving.schema import Video, VideoPage
from unireel.serving.settings import Settings
from unireel.serving.store import JOB_ID

logger = logging.getLogger("unireel.serving")

WATCH_SECONDS, PATIENCE_SECONDS = 1.0, 10.0
"""How often it is looked whether the servers are there, and how long they have to say so."""

RETRY_SECONDS = 5
"""What clients are told to wait for a server that is not there."""

_ANY_ID = re.compile(JOB_ID.pattern.encode())
_PASSED_OVER = (429, 503)
_OURS = (b"x-request-id", b"x-content-type-options", b"connection")
"""Headers that this server adds itself, or that are between two neighbours only."""


class Away(ConnectionError):
    """A replica cannot be reached, or has gone before its answer was complete."""


class Replica(Protocol):
    """A :class:`~unireel.serving.replicas.member.Member` that may be far away; any call may raise :class:`Away`."""

    def answer(self, request: Passed) -> AsyncGenerator[Message, None]: ...
    async def state(self) -> str: ...
    async def created_at(self, id: str) -> float | None: ...
    async def page(
        self, limit: int, after: str | None, descending: bool, bound: float | None
    ) -> list[tuple[float, dict[str, Any]]]: ...
    async def metrics(self) -> str: ...


def create_front(replicas: Sequence[Replica], settings: Settings) -> FastAPI:
    """The application in front of ``replicas``, whose places are their numbers.

    Args:
        settings: as the replicas have them; who may not come and what is too large is refused here already.
    """
    front = _Front(replicas)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(front.watch())
        yield
        watching.cancel()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    metrics = Metrics()

    @app.get("/v1/videos")
    async def page(
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> VideoPage:
        return await front.page(limit, after, order == "desc")

    @app.get("/metrics", response_class=Response)
    async def figures() -> Response:
        pages = {"front": metrics.page().decode()} | await front.metrics()
        return Response(labelled(pages), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.api_route("/{path:path}", methods=list(METHODS), include_in_schema=False)
    async def pass_on(request: Request) -> Response:
        return await front.pass_on(request)

    tell_failures(app)
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    return app


class _Front:
    """Which replicas there are, which of them are there now, and whose turn it is."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.replicas = list(replicas)
        self.there = [True] * len(self.replicas)
        self.turn = itertools.count()

    async def watch(self) -> None:
        """See which replicas are there, for ever."""
        while True:
            await asyncio.gather(*map(self._look, range(len(self.replicas))))
            await asyncio.sleep(WATCH_SECONDS)

    async def _look(self, number: int) -> None:
        try:
            state = await asyncio.wait_for(self.replicas[number].state(), PATIENCE_SECONDS)
        except (Away, TimeoutError):
            state = "away"
        there = state not in ("away", "dead")
        if there != self.there[number]:
            logger.warning("replica %d is %s", number, "there again" if there else state)
        self.there[number] = there

    # ---------------------------------------------------------------- one of them answers

    async def pass_on(self, request: Request) -> Response:
        """The answer of the replica that has to give it.

        Raises:
            ApiError: ``unreachable``, ``video_not_found``.
        """
        passed = await Passed.of(request)
        numbers = self._whose(passed)
        for number in numbers:
            messages = self.replicas[number].answer(passed)
            try:
                head = await _first(request, messages)
            except Away:
                continue
            if head["status"] in _PASSED_OVER and number != numbers[-1]:
                await messages.aclose()
                continue
            return _relayed(head, messages)
        raise ApiError("unreachable", retry_after=RETRY_SECONDS)

    def _whose(self, passed: Passed) -> list[int]:
        """Numbers of the replicas that may answer, in the order in which they are to be asked."""
        named = _ANY_ID.search(passed.path.encode() + b" " + passed.query) or _ANY_ID.search(passed.body)
        key = dict(passed.headers).get(b"idempotency-key")
        if named is not None:
            number = number_of(named[0].decode())
            if number >= len(self.replicas):
                raise ApiError("video_not_found")
            wanted = [number]
        elif key is not None:
            wanted = [int.from_bytes(hashlib.sha256(key).digest()[:8], "big") % len(self.replicas)]
        else:
            first = next(self.turn)
            wanted = [(first + place) % len(self.replicas) for place in range(len(self.replicas))]
        return [number for number in wanted if self.there[number]]

    # ---------------------------------------------------------------- all of them answer

    async def page(self, limit: int, after: str | None, descending: bool) -> VideoPage:
        """A page of all jobs in the order of their arrival; those of one moment in the order of their replicas.

        Raises:
            ApiError: ``video_not_found``: ``after`` names no job. ``unreachable``: a replica is away, and without
                its jobs the page would be wrong.
        """
        if not all(self.there):
            raise ApiError("unreachable", retry_after=RETRY_SECONDS)
        try:
            return await self._page(limit, after, descending)
        except Away:
            raise ApiError("unreachable", retry_after=RETRY_SECONDS) from None

    async def _page(self, limit: int, after: str | None, descending: bool) -> VideoPage:
        moment, owner = None, -1
        if after is not None:
            owner = number_of(after) if JOB_ID.fullmatch(after) else len(self.replicas)
            moment = await self.replicas[owner].created_at(after) if owner < len(self.replicas) else None
            if moment is None:
                raise ApiError("video_not_found")
        pages = await asyncio.gather(
            *(
                replica.page(
                    limit + 1,
                    after if number == owner else None,
                    descending,
                    None if moment is None or number == owner else _bound(moment, number, owner, descending),
                )
                for number, replica in enumerate(self.replicas)
            )
        )
        numbered = ([(at, number, video) for at, video in found] for number, found in enumerate(pages))
        merged = heapq.merge(*numbered, key=lambda each: each[:2], reverse=descending)
        videos = [video for _, _, video in itertools.islice(merged, limit + 1)]
        data = [Video(**video) for video in videos[:limit]]
        ends = (data[0].id, data[-1].id) if data else (None, None)
        return VideoPage(data=data, first_id=ends[0], last_id=ends[1], has_more=len(videos) > limit)

    async def metrics(self) -> dict[str, str]:
        """The figures of every replica that is there, by its number."""
        numbers = [number for number, there in enumerate(self.there) if there]
        pages = await asyncio.gather(
            *(self.replicas[number].metrics() for number in numbers), return_exceptions=True
        )
        return {str(n): page for n, page in zip(numbers, pages, strict=True) if isinstance(page, str)}


def _bound(moment: float, number: int, owner: int, descending: bool) -> float:
    """The moment beyond which the jobs of replica ``number`` come after one that ``owner`` took at ``moment``."""
    same_moment_too = number < owner if descending else number > owner
    if not same_moment_too:
        return moment
    return math.nextafter(moment, math.inf if descending else -math.inf)


async def _first(request: Request, messages: AsyncGenerator[Message, None]) -> Message:
    """The head of an answer.

    Raises:
        ClientGone: nobody waits for it any more.
    """
    waiting = asyncio.ensure_future(anext(messages))
    try:
        while not (await asyncio.wait({waiting}, timeout=LOOK_SECONDS))[0]:
            if await request.is_disconnected():
                raise ClientGone
        return waiting.result()
    except (ClientGone, asyncio.CancelledError):
        waiting.cancel()
        await asyncio.wait({waiting})
        await messages.aclose()  # which hangs up
        raise


def _relayed(head: Message, messages: AsyncGenerator[Message, None]) -> Response:
    async def body() -> AsyncIterator[bytes]:
        async with contextlib.aclosing(messages):
            async for message in messages:
                yield message.get("body", b"")

    response = StreamingResponse(body(), head["status"])
    response.raw_headers = [pair for pair in head["headers"] if pair[0].lower() not in _OURS]
    return response


def labelled(pages: dict[str, str]) -> bytes:
    """Prometheus' figures of several servers on one page; each has the label ``replica``.

    Args:
        pages: text of each server's figures by what the label shall say.
    """
    families: dict[str, Any] = {}
    for replica, page in pages.items():
        for family in text_string_to_metric_families(page):
            kept = families.setdefault(family.name, family)
            own = [each._replace(labels={**each.labels, "replica": replica}) for each in family.samples]
            kept.samples = own if kept is family else [*kept.samples, *own]
    registry = CollectorRegistry()
    registry.register(_Collected(list(families.values())))
    return generate_latest(registry)


class _Collected:
    """Families that are there already, as a registry wants to have them."""

    def __init__(self, families: list[Any]) -> None:
        self.families = families

    def collect(self) -> list[Any]:
        """All of them."""
        return self.families
