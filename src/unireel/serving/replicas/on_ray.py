"""Members and their front as deployments of Ray Serve; needs Ray, which ``recipes/serve/ray.py`` starts."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI
from ray import serve  # pyright: ignore[reportMissingImports]
from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]
from ray.serve.exceptions import RayServeException  # pyright: ignore[reportMissingImports]
from starlette.types import Message

from unireel.serving.replicas.front import Away, create_front
from unireel.serving.replicas.member import Member, Spec
from unireel.serving.replicas.passing import Passed
from unireel.serving.server import MAX_CONNECTIONS
from unireel.serving.settings import Settings

HEALTH_SECONDS = 120.0
"""In which a server must say that it is well; while it loads a large model it can be slow to."""

QUIET = {"enable_access_log": False}
"""Ray's own log of requests would have the ids of jobs in it; ours has not."""


class Server(Member):
    """A member in a process of its own."""

    async def __init__(self, spec: Spec, number: int) -> None:  # Ray awaits it
        _log()
        super().__init__(spec, number)
        await self.start()

    async def answer(self, request: Passed) -> AsyncGenerator[Message, None]:  # Ray wants to see a generator
        """As of the member; to close it early is to hang up."""
        async with aclosing(super().answer(request)) as messages:
            async for message in messages:
                yield message

    async def check_health(self) -> None:
        """Asked by Ray, which starts another server with the same number, and so with the same jobs, if this raises.

        Raises:
            RuntimeError: what makes films has died.
        """
        if await self.state() == "dead":
            raise RuntimeError("the engine has died")

    async def __del__(self) -> None:  # Ray awaits it when it stops a server
        await self.stop()


class Remote:
    """A :class:`~unireel.serving.replicas.front.Replica` that Ray knows how to reach."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    async def answer(self, request: Passed) -> AsyncGenerator[Message, None]:
        """As of the member; to close it early cancels it there."""
        response = self.handle.options(stream=True).answer.remote(request)
        try:
            async for message in response:
                yield message
        except (RayError, RayServeException) as error:
            raise Away from error
        finally:
            response.cancel()

    async def state(self) -> str:
        """As of the member."""
        return await _reached(self.handle.state.remote())

    async def created_at(self, id: str) -> float | None:
        """As of the member."""
        return await _reached(self.handle.created_at.remote(id))

    async def page(
        self, limit: int, after: str | None, descending: bool, bound: float | None
    ) -> list[tuple[float, dict[str, Any]]]:
        """As of the member."""
        return await _reached(self.handle.page.remote(limit, after, descending, bound))

    async def metrics(self) -> str:
        """As of the member."""
        return await _reached(self.handle.metrics.remote())


async def _reached(response: Any) -> Any:
    try:
        return await response
    except (RayError, RayServeException) as error:
        raise Away from error


class Front:
    """The one address."""

    def __init__(self, settings: Settings, *servers: Any) -> None:
        _log()
        self.settings, self.servers = settings, servers

    def __serve_build_asgi_app__(self) -> FastAPI:  # Ray calls it when there is an event loop
        return create_front([Remote(handle) for handle in self.servers], self.settings)


def application(spec: Spec, replicas: int, cpus: float, gpus: float, pinned: bool) -> Any:
    """What ``serve.run`` takes.

    Each member is a deployment of its own, not one of several equal replicas: a job stays with the member of its
    number, and its folder with the machine that it is on.

    Args:
        replicas: how many members.
        cpus, gpus: of each member; Ray places them where these are free.
        pinned: member ``n`` runs only where Ray was started with the resource ``unireel-n``, so that it finds its
            folder again.
    """
    members = [
        serve.deployment(
            Server,
            name=f"server-{number}",
            num_replicas=1,
            max_ongoing_requests=MAX_CONNECTIONS,
            health_check_timeout_s=HEALTH_SECONDS,
            graceful_shutdown_timeout_s=spec.grace + 10,
            graceful_shutdown_wait_loop_s=1.0,
            ray_actor_options={
                "num_cpus": cpus,
                "num_gpus": gpus,
                "resources": {f"unireel-{number}": 0.01} if pinned else {},
            },
            logging_config=QUIET,
        ).bind(spec, number)
        for number in range(replicas)
    ]
    front = serve.deployment(
        serve.ingress()(Front),
        name="front",
        num_replicas=1,
        max_ongoing_requests=MAX_CONNECTIONS,
        graceful_shutdown_wait_loop_s=1.0,
        ray_actor_options={"num_cpus": 0},
        logging_config=QUIET,
    )
    return front.bind(spec.settings, *members)


def _log() -> None:
    """As ``unireel serve`` logs, on the standard error of the process, which Ray collects."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("unireel.serving").setLevel(logging.INFO)
