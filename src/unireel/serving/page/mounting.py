"""Putting the page under ``/`` of the server, so that nothing on it reaches beyond that server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unireel.errors import UserError
from unireel.serving.errors import ApiError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from unireel.serving.context import Context

_ASSETS = Path(__file__).parent

POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline';"
    " frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
"""What a browser may load for the page: what comes from this server. Gradio's own scripts stand inside its page."""


def mount(app: FastAPI, context: Context) -> None:
    """Serve the page under every path that no route of ``app`` has; call it after all routes are there.

    Raises:
        UserError: Gradio is not installed.
    """
    # Read when Gradio is imported; it would tell its makers about every start.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise UserError(
            f"the web page needs {error.name}, which is not installed: pip install 'unireel[page]'"
        ) from None
    from unireel.serving.page.layout import build, theme

    blocks = build(context)
    gradio.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name="127.0.0.1",
        footer_links=[],
        show_error=False,
        ssr_mode=False,
        max_file_size=context.settings.intake.max_bytes,
        theme=theme(),
        css_paths=[_ASSETS / "page.css"],
        head=f"<script>{(_ASSETS / 'page.js').read_text(encoding='utf-8')}</script>",
    )
    mounted: Any = app.routes[-1]
    mounted.app = Fenced(mounted.app)


class Fenced:
    """The page behind :data:`POLICY`; the API's paths are not its business."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request of the page."""
        if scope["type"] == "http" and scope["path"].startswith("/v1"):
            raise ApiError("not_found")

        async def fenced(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, fenced)
