"""``/v1/videos``: films as jobs, in the shape that OpenAI's client and other servers share."""

from __future__ import annotations

import asyncio
import math
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import FileResponse

from unireel.clip import Clip
from unireel.serving import checks
from unireel.serving.body import Body, read_body
from unireel.serving.content import VARIANTS
from unireel.serving.context import ERRORS, Context, wait_for
from unireel.serving.errors import ApiError
from unireel.serving.jobs import FilmRequest, Job
from unireel.serving.schema import (
    Video,
    VideoCreate,
    VideoDeleted,
    VideoEdit,
    VideoError,
    VideoPage,
    multipart,
)
from unireel.serving.store import JOB_ID

Key = Annotated[
    str | None, Header(alias="Idempotency-Key", description="The same key makes the same job only once.")
]
POLL_MILLISECONDS = 500
"""How often OpenAI's client asks whether a job is done."""

_CREATE = multipart(VideoCreate, {"input_reference": "First frame: png, jpeg or webp."})
_EDIT = multipart(VideoEdit, {"video": "The film to edit: mp4, mov, webm, mkv or gif."})


def as_video(context: Context, job: Job) -> Video:
    """The job as clients see it."""
    request = job.request
    done = 1.0 if job.status == "completed" else context.engine.progress(job.id)
    return Video(
        id=job.id,
        model=request.model,
        status=job.status,  # type: ignore[arg-type]  # cancelled jobs are not seen
        progress=100 if job.status == "completed" else min(99, math.floor(100 * done)),
        created_at=int(job.created_at),
        completed_at=None if job.completed_at is None else int(job.completed_at),
        expires_at=None if job.expires_at is None else int(job.expires_at),
        size=f"{request.width}x{request.height}",
        seconds=f"{request.frames / request.fps:g}",
        prompt=request.prompt,
        error=None if job.error is None else VideoError(code=job.error, message=ApiError(job.error).message),
        seed=request.seed,
        num_frames=request.frames,
        num_inference_steps=request.steps,
        guidance_scale=request.guidance,
        priority=job.priority,
        queue_position=context.engine.store.position(job) if job.status == "queued" else None,
    )


def router(context: Context) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/videos", tags=["videos"], responses=ERRORS)
    engine, settings = context.engine, context.settings

    async def checked(
        request: Request, key: str | None
    ) -> tuple[list[FilmRequest], Clip | None, int, str | None]:
        """What a request for a new film asks for."""
        model = engine.model
        body = await read_body(request, max_files=1)
        asked = body.parse(VideoCreate)
        checks.check_model(model, asked.model)
        key = checks.check_key(key)
        frames = checks.frames_for(model, asked)
        films = checks.film_request(model, settings, asked.prompt, asked, frames, asked.size, key=key)
        address = [] if asked.input_reference is None else [asked.input_reference.image_url]
        sources = _uploads(body, "input_reference") + address
        picture = await context.intake.one("input_reference", sources, "image")
        first = None if picture is None else await asyncio.to_thread(model.first_frame, picture)
        return films, first, asked.priority, key

    @routes.post("", openapi_extra=_CREATE)
    async def create(request: Request, response: Response, key: Key = None) -> Video:
        """Queue a film of words, or of words and a first frame."""
        films, first, priority, key = await checked(request, key)
        (job,) = await asyncio.to_thread(engine.submit, films, first, priority=priority, key=key)
        response.headers["openai-poll-after-ms"] = str(POLL_MILLISECONDS)
        return as_video(context, job)

    @routes.post("/sync", openapi_extra=_CREATE, response_class=FileResponse)
    async def create_and_wait(request: Request, key: Key = None) -> FileResponse:
        """Make a film and answer with its file. The job is kept; who hangs up cancels it."""
        films, first, priority, key = await checked(request, key)
        (job,) = await asyncio.to_thread(engine.submit, films, first, priority=priority, key=key)
        ended = await asyncio.to_thread(engine.ended, job)
        # Who gave a key means to come back for it.
        await wait_for(request, ended, lambda: None if key else engine.cancel(job.id))
        return _file(context, job, "video")

    @routes.post("/edits", openapi_extra=_EDIT)
    async def edit(request: Request, response: Response, key: Key = None) -> Video:
        """Queue an edit of a film by an instruction; the model must be able to."""
        model = engine.model
        if "edit" not in model.abilities:
            raise ApiError("model_cannot_edit")
        body = await read_body(request, max_files=1)
        asked = body.parse(VideoEdit)
        checks.check_model(model, asked.model)
        key = checks.check_key(key)
        film = await _film_to_edit(context, body, asked)
        films = checks.film_request(
            model, settings, asked.prompt, asked, len(film), asked.size, key=key, edit=True
        )
        (job,) = await asyncio.to_thread(engine.submit, films, film, priority=asked.priority, key=key)
        response.headers["openai-poll-after-ms"] = str(POLL_MILLISECONDS)
        return as_video(context, job)

    @routes.get("")
    def page(
        after: str | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
    ) -> VideoPage:
        """The jobs, newest first."""
        if after is not None:
            _known(context, after)
        jobs, more = engine.store.page(limit, after, order == "desc")
        data = [as_video(context, job) for job in jobs]
        ends = (data[0].id, data[-1].id) if data else (None, None)
        return VideoPage(data=data, first_id=ends[0], last_id=ends[1], has_more=more)

    @routes.get("/{id}")
    def get(id: str, response: Response) -> Video:
        """One job."""
        response.headers["openai-poll-after-ms"] = str(POLL_MILLISECONDS)
        return as_video(context, _known(context, id))

    @routes.delete("/{id}")
    def delete(id: str) -> VideoDeleted:
        """Cancel a job, or delete what it made."""
        _known(context, id)
        return VideoDeleted(id=id, deleted=engine.cancel(id) is not None)

    @routes.get("/{id}/content", response_class=FileResponse)
    def content(id: str, variant: Literal["video", "thumbnail", "spritesheet"] = "video") -> FileResponse:
        """A finished film's mp4, a picture of it (webp), or all its frames on one sheet (jpeg)."""
        return _file(context, _known(context, id), variant)

    return routes


def _known(context: Context, id: str) -> Job:
    job = context.engine.store.get(id) if JOB_ID.fullmatch(id) else None
    if job is None or job.transient:
        raise ApiError("video_not_found")
    return job


def _file(context: Context, job: Job, variant: str) -> FileResponse:
    name, media_type = VARIANTS[variant]
    path = context.engine.store.files(job) / name
    if not path.is_file():
        raise ApiError("video_not_ready")
    headers = {"X-Video-Id": job.id, "Cache-Control": "private"}
    return FileResponse(path, media_type=media_type, filename=f"{job.id}{path.suffix}", headers=headers)


def _uploads(body: Body, name: str) -> list[bytes | str]:
    """The files of the field ``name``, which is the only one that may have any."""
    other = next((each for each in body.files if each != name), None)
    if other is not None:
        raise ApiError("unknown_parameter", param=other[:80])
    return list(body.files.get(name, []))


async def _film_to_edit(context: Context, body: Body, asked: VideoEdit) -> Clip:
    """The film of an edit: uploaded, by address, or made here; at the model's size."""
    sources = _uploads(body, "video")
    reference = asked.video
    if reference is not None and reference.video_url is not None:
        sources.append(reference.video_url)
    if reference is not None and reference.id is not None:
        job = _known(context, reference.id)
        path = context.engine.store.files(job) / VARIANTS["video"].name
        if not path.is_file():
            raise ApiError("video_not_ready")
        sources.append(await asyncio.to_thread(path.read_bytes))
    film = await context.intake.one("video", sources, "video")
    if film is None:
        raise ApiError("missing_parameter", param="video")
    return await asyncio.to_thread(checks.source_of_edit, context.engine.model, "video", film)
