"""``/v1/images``: pictures, made while the client waits."""

from __future__ import annotations

import asyncio
import base64
import time

from fastapi import APIRouter, Request

from unireel.clip import Clip
from unireel.serving import checks
from unireel.serving.body import read_body
from unireel.serving.content import picture_bytes
from unireel.serving.context import ERRORS, Context, wait_for
from unireel.serving.errors import ApiError
from unireel.serving.jobs import FilmRequest
from unireel.serving.schema import ImageEdit, ImageGenerate, Picture, Pictures, multipart


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/images", tags=["images"], responses=ERRORS)
    engine = context.engine

    def films(asked: ImageGenerate, edit: bool) -> list[FilmRequest]:
        checks.check_model(engine.model, asked.model)
        if asked.n > context.settings.max_pictures:
            raise ApiError("invalid_value", param="n", problem=f"at most {context.settings.max_pictures}")
        count, size = asked.n, asked.size
        return checks.film_request(
            engine.model, context.settings, asked.prompt, asked, 1, size, count=count, edit=edit
        )

    async def make(
        request: Request, asked: ImageGenerate, wanted: list[FilmRequest], source: Clip | None
    ) -> Pictures:
        futures = await asyncio.to_thread(engine.make, wanted, source)

        def give_up() -> None:
            for id in futures:
                engine.cancel(id)

        try:
            clips = [await wait_for(request, future, give_up) for future in futures.values()]
        except ApiError:
            await asyncio.to_thread(give_up)
            raise
        return Pictures(
            created=int(time.time()),
            data=[
                Picture(b64_json=_encoded(clip, each.scale, asked.output_format), seed=each.seed)
                for clip, each in zip(clips, wanted, strict=True)
            ],
            output_format=asked.output_format,
            size=f"{clips[0].width * wanted[0].scale}x{clips[0].height * wanted[0].scale}",
        )

    schema = {"$ref": f"#/components/schemas/{ImageGenerate.__name__}"}
    plain = {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}

    @routes.post("/generations", openapi_extra=plain)
    async def generate(request: Request) -> Pictures:
        """Pictures of words; several differ in their seeds, which follow each other."""
        _ = engine.model
        asked = (await read_body(request)).parse(ImageGenerate)
        return await make(request, asked, films(asked, edit=False), None)

    @routes.post("/edits", openapi_extra=multipart(ImageEdit, {"image": "The picture to edit."}))
    async def edit(request: Request) -> Pictures:
        """A picture changed by an instruction; the model must be able to."""
        if "edit" not in engine.model.abilities:
            raise ApiError("model_cannot_edit")
        body = await read_body(request, max_files=1)
        asked = body.parse(ImageEdit)
        address = [] if asked.image is None else [asked.image.image_url]
        source = await context.intake.one("image", [*body.files.get("image", []), *address], "image")
        if source is None:
            raise ApiError("missing_parameter", param="image")
        picture = await asyncio.to_thread(checks.source_of_edit, engine.model, "image", source)
        return await make(request, asked, films(asked, edit=True), picture)

    return routes


def _encoded(clip: Clip, scale: int, kind: str) -> str:
    return base64.b64encode(picture_bytes(clip, scale, kind)).decode()
