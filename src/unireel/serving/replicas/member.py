"""One of several servers: the whole of a server but the listening socket."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.types import Message

from unireel.serving.app import create_app
from unireel.serving.checks import Intake
from unireel.serving.context import Context
from unireel.serving.engine import Engine
from unireel.serving.model import ServedModel
from unireel.serving.replicas.passing import Passed, answer
from unireel.serving.settings import Settings
from unireel.serving.store import JobStore
from unireel.serving.videos import as_video

MARK_DIGITS = 4
"""Hexadecimal digits with which the id of a job names its server."""


def number_of(id: str) -> int:
    """Which server holds the job of that id."""
    start = len("video_")
    return int(id[start : start + MARK_DIGITS], 16)


@dataclass(frozen=True)
class Spec:
    """What all members have in common; the words of ``unireel serve``.

    Attributes:
        model, device: what is served, and on what.
        jobs: a folder in which each member has one of its own.
        batch, queue: films made together; jobs that may wait.
        keep: hours that finished jobs are kept.
        quota: GiB of films.
        grace: seconds that what is running has to end.
        settings: who may come, and limits.
    """

    model: str
    device: str | None
    jobs: Path
    batch: int = 4
    queue: int = 256
    keep: float = 24.0
    quota: float = 4.0
    grace: float = 30.0
    settings: Settings = field(default_factory=Settings)


class Member:
    """The server of that number. Its jobs stay with its number: who is started again with it finds them again.

    Args:
        load: instead of loading the model that the ``spec`` names.

    Raises:
        UserError: its folder cannot be used.
    """

    def __init__(self, spec: Spec, number: int, load: Any = None) -> None:
        store = JobStore(
            spec.jobs / f"replica-{number}",
            spec.queue,
            ttl=3600 * spec.keep,
            quota=int(2**30 * spec.quota),
            mark=f"{number:0{MARK_DIGITS}x}",
        )
        self.engine = Engine(
            store, load or (lambda: ServedModel.load(spec.model, spec.device)), max_batch=spec.batch
        )
        self.app = create_app(self.engine, spec.settings, spec.grace)
        self._context = Context(self.engine, spec.settings, Intake(spec.settings))
        self._life = AsyncExitStack()

    async def start(self) -> None:
        """Begin to load the model and to take requests."""
        await self._life.enter_async_context(self.app.router.lifespan_context(self.app))

    async def stop(self) -> None:
        """Take nothing more and end what is running."""
        await self._life.aclose()

    async def state(self) -> str:
        """Of the engine: loading, ready, failed or stopping; dead if it ended by itself."""
        return self.engine.state if self.engine.alive or self.engine.state != "ready" else "dead"

    def answer(self, request: Passed) -> AsyncGenerator[Message, None]:
        """See :func:`~unireel.serving.replicas.passing.answer`."""
        return answer(self.app, request)

    async def created_at(self, id: str) -> float | None:
        """When a job arrived, in seconds since 1970; None if there is none of that id."""
        job = self.engine.store.get(id)
        return None if job is None or job.transient else job.created_at

    async def page(
        self, limit: int, after: str | None, descending: bool, bound: float | None
    ) -> list[tuple[float, dict[str, Any]]]:
        """Jobs as clients see them, with the moments of their arrival; see ``JobStore.page``."""
        jobs, _ = self.engine.store.page(limit, after, descending, bound)
        return [(job.created_at, as_video(self._context, job).model_dump()) for job in jobs]

    async def metrics(self) -> str:
        """Figures for Prometheus."""
        self.engine.measure()
        return self.engine.metrics.page().decode()
