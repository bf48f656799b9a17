"""The application: the routes together, the small ones, and every failure in one shape."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from unireel.serving import chat, images, schema, videos
from unireel.serving.checks import Intake
from unireel.serving.context import ERRORS, Context
from unireel.serving.engine import Engine
from unireel.serving.errors import ApiError
from unireel.serving.guard import Guard
from unireel.serving.settings import Settings
from unireel.version import VERSION

_STATUS_CODES = {404: "not_found", 405: "method_not_allowed"}
_BODIES = (schema.VideoCreate, schema.VideoEdit, schema.ImageGenerate, schema.ImageEdit, schema.ChatRequest)


def create_app(
    engine: Engine, settings: Settings | None = None, grace: float = 30.0, page: bool = False
) -> FastAPI:
    """The server around an engine, which starts and stops with it.

    Args:
        engine: not started yet.
        settings: limits and the key; the defaults let everybody in.
        grace: seconds that what is running has to end when the server stops.
        page: whether there is a web page at ``/``.

    Raises:
        UserError: a page is wanted and Gradio is not installed.
    """
    settings = settings or Settings()
    context = Context(engine, settings, Intake(settings))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        context.intake.warm()
        yield
        await asyncio.to_thread(engine.stop, grace)
        await asyncio.to_thread(context.intake.close)

    app = FastAPI(
        title="Unireel",
        version=VERSION,
        description="Make, edit and understand video with one model.",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    for routes in (
        videos.router(context),
        images.router(context),
        chat.router(context),
        _small_routes(context),
    ):
        app.include_router(routes)
    tell_failures(app)
    app.add_middleware(Guard, settings=settings, metrics=engine.metrics)
    _describe_bodies(app)
    if page:
        from unireel.serving.page import mount

        mount(app, context)  # last: it takes every path that is left
    return app


def tell_failures(app: FastAPI) -> None:
    """Every failure in the shape of :mod:`~unireel.serving.errors`."""
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(HTTPException, _not_served)
    app.add_exception_handler(RequestValidationError, _invalid)


def _small_routes(context: Context) -> APIRouter:
    routes = APIRouter(responses=ERRORS)
    engine, created = context.engine, int(time.time())

    def card() -> schema.ModelCard:
        model = engine.model
        return schema.ModelCard(
            id=model.name,
            created=created,
            abilities=sorted(model.abilities),
            size=f"{model.size[1]}x{model.size[0]}",
            fps=model.fps,
            num_frames=list(model.lengths),
        )

    @routes.get("/v1/models", tags=["models"])
    def models() -> schema.ModelPage:
        """The one model that is served."""
        return schema.ModelPage(data=[card()])

    @routes.get("/v1/models/{name:path}", tags=["models"])
    def model(name: str) -> schema.ModelCard:
        """What the model can do."""
        if name != engine.model.name:
            raise ApiError("model_not_found", param="model")
        return card()

    @routes.get("/health", tags=["operation"])
    def health(response: Response) -> dict[str, str]:
        """Whether the server lives: 503 if what makes films has died."""
        alive = engine.alive or engine.state == "stopping"
        response.status_code = 200 if alive else 503
        return {"status": "ok" if alive else "dead"}

    @routes.get("/ready", tags=["operation"])
    def ready(response: Response) -> dict[str, str]:
        """Whether the server takes work: 503 while the model is loaded and while the server stops."""
        response.status_code = 200 if engine.state == "ready" else 503
        return {"status": engine.state}

    @routes.get("/metrics", tags=["operation"], response_class=Response)
    def metrics() -> Response:
        """Figures for Prometheus."""
        engine.measure()
        return Response(engine.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes


def _describe_bodies(app: FastAPI) -> None:
    """Bodies are read by hand, so OpenAPI has to be told of their shapes."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = plain()
            components = described.setdefault("components", {}).setdefault("schemas", {})
            for shape in _BODIES:
                found = shape.model_json_schema(ref_template="#/components/schemas/{model}")
                components |= found.pop("$defs", {}) | {shape.__name__: found}
            described["components"]["schemas"] = dict(sorted(components.items()))
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


async def _refused(request: Request, error: Any) -> Response:
    return JSONResponse(error.body(), error.status, error.headers())


async def _not_served(request: Request, error: Any) -> Response:
    known = ApiError(_STATUS_CODES.get(error.status_code, "not_found"))
    return JSONResponse(known.body(), known.status, error.headers)


async def _invalid(request: Request, error: Any) -> Response:
    """A query parameter or a header that cannot be."""
    first = error.errors()[0]
    return await _refused(
        request,
        ApiError("invalid_value", param=str(first["loc"][-1])[:80], problem=first["msg"].lower()[:120]),
    )
