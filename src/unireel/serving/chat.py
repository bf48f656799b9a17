"""``/v1/chat/completions``: questions about a film or a picture, in the shape of OpenAI's chat.

The last user message is the question, or without words a wish for a description; the last medium of the
conversation is what it is about. The model's confidence, its warning and the frames that the answer rests on come
in the extra field ``unireel``; what reflection did comes in ``reasoning_content``, as other servers name it.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from unireel.errors import UserError
from unireel.serving import checks
from unireel.serving.body import read_body
from unireel.serving.context import ERRORS, Context, wait_for
from unireel.serving.engine import Question
from unireel.serving.errors import ApiError
from unireel.serving.schema import ChatRequest, Message, Part

HEARTBEAT_SECONDS = 10.0
"""How often a stream without news says that it lives."""

_PARTS = {"text": "text", "image_url": "image_url", "video_url": "video_url"}


class Reply(BaseModel):
    """The assistant's message."""

    role: str = "assistant"
    content: str
    reasoning_content: str | None = Field(None, description="Extension. What reflection did.")
    unireel: dict[str, Any] = Field(
        description="Extension. confidence (0 to 1), reliable, note, evidence (frame, time in s), trace."
    )


class Choice(BaseModel):
    """The one answer."""

    index: int = 0
    message: Reply
    finish_reason: str


class Usage(BaseModel):
    """Tokens of words; those of frames are not counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    """The answer when it is not streamed."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


def router(context: Context) -> APIRouter:
    """The route."""
    routes = APIRouter(prefix="/v1", tags=["chat"], responses=ERRORS)
    schema = {"$ref": f"#/components/schemas/{ChatRequest.__name__}"}
    plain = {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}

    @routes.post("/chat/completions", openapi_extra=plain, response_model=ChatCompletion)
    async def complete(request: Request) -> Any:
        """Answer a question about a film or a picture, or describe it."""
        _ = context.engine.model
        asked = (await read_body(request)).parse(ChatRequest)
        question, rounds = await _question(context, asked)
        future = context.engine.ask(question)
        if asked.stream:
            stream = _stream(context, asked, question, future, rounds)
            return StreamingResponse(stream, media_type="text/event-stream", headers=_UNBUFFERED)
        answer = await _answer(wait_for(request, future, future.cancel))
        reply, reason, usage = _reply(context, asked, question, answer)
        return ChatCompletion(
            id=_new_id(),
            created=int(time.time()),
            model=context.engine.model.name,
            choices=[Choice(message=reply, finish_reason=reason)],
            usage=usage,
        )

    return routes


_UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


async def _question(context: Context, asked: ChatRequest) -> tuple[Question, asyncio.Queue[tuple[int, int]]]:
    """The checked question with its film, and where the rounds of its reflection are heard of."""
    model = context.engine.model
    checks.check_model(model, asked.model)
    text, sources = _conversation(context, asked.messages)
    wanted = "ask" if text else "caption"
    if not {wanted} <= model.abilities:
        raise ApiError("model_cannot_ask")
    if asked.reflect and "reflect" not in model.abilities:
        raise ApiError("model_cannot_reflect")
    if asked.reflect and not text:
        raise ApiError("invalid_value", param="reflect", problem="there is no question to reflect on")
    if text:
        text = checks.check_text(model, context.settings, "messages", text)
    clip = await context.intake.one("messages", sources, "any")
    if clip is None:
        raise ApiError("media_required")
    rounds: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def heard(done: int, total: int) -> None:
        loop.call_soon_threadsafe(rounds.put_nowait, (done, total))

    return Question(clip, text or None, asked.reflect, heard), rounds


def _conversation(context: Context, messages: list[Message]) -> tuple[str, list[bytes | str]]:
    """The words of the last user message, and the medium (at most one) of the last message that has any."""
    spoken = [message for message in messages if message.role == "user"]
    if not spoken:
        raise ApiError("invalid_value", param="messages", problem="there is no message of the user")
    media = [_media(message) for message in spoken]
    count, limit = sum(map(len, media)), context.settings.max_media
    if count > limit:
        raise ApiError("too_many_media", count=count, limit=limit)
    last = next((each for each in reversed(media) if each), [])
    if len(last) > 1:
        raise ApiError("too_many_media", count=f"{len(last)} in one message", limit=1)
    content = spoken[-1].content
    parts = [Part(type="text", text=content)] if isinstance(content, str) else content or []
    return " ".join(part.text for part in parts if part.type == "text" and part.text).strip(), last


def _media(message: Message) -> list[bytes | str]:
    """Addresses of a message's pictures and films."""
    if not isinstance(message.content, list):
        return []
    media: list[bytes | str] = []
    for part in message.content:
        if part.type not in _PARTS:
            raise ApiError(
                "unsupported_parameter", param="messages", problem="parts are text, image_url, video_url"
            )
        if getattr(part, _PARTS[part.type]) is None:
            raise ApiError("missing_parameter", param=f"messages.content.{part.type}")
        medium = part.image_url or part.video_url
        if medium is not None:
            media.append(medium.url)
    return media


async def _answer(waiting: Any) -> Any:
    """The engine's answer; what the model says against a question is a fixed error."""
    try:
        return await waiting
    except UserError:
        raise ApiError("invalid_value", param="messages", problem="the model cannot answer this") from None


def _reply(context: Context, asked: ChatRequest, question: Question, answer: Any) -> tuple[Reply, str, Usage]:
    """The message, why it ends, and what it cost."""
    limit = asked.max_completion_tokens or asked.max_tokens
    words = answer.text.split(" ")
    reason = "stop" if limit is None or len(words) <= limit else "length"
    text = answer.text if reason == "stop" else " ".join(words[:limit])
    extra = {name: getattr(answer, name) for name in ("confidence", "reliable", "note")}
    extra["evidence"] = [asdict(each) for each in answer.evidence]
    trace = getattr(answer, "trace", None)
    if trace is not None:
        extra["trace"] = {name: value for name, value in trace.items() if name != "film"}
    count = context.engine.model.count_tokens
    spent = count(question.text or ""), count(text)
    usage = Usage(prompt_tokens=spent[0], completion_tokens=spent[1], total_tokens=sum(spent))
    reasoning = None if trace is None else "\n".join(map(_round, trace["rounds"]))
    return Reply(content=text, reasoning_content=reasoning, unireel=extra), reason, usage


def _round(entry: dict[str, Any]) -> str:
    """One round of reflection in a line."""
    select, verdict = entry["select"], entry["evaluator"]
    times = ", ".join(f"{each:g}" for each in select["times"])
    return (
        f"searched '{select['query']}', looked at {times} s, answered '{entry['actor']['text']}', "
        f"score {verdict['score']:.2f}"
    )


def _new_id() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


async def _stream(
    context: Context,
    asked: ChatRequest,
    question: Question,
    future: Future[Any],
    rounds: asyncio.Queue[tuple[int, int]],
) -> AsyncIterator[str]:
    """Server-sent events: rounds of reflection as they end, then the answer word by word."""
    head = {
        "id": _new_id(),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": context.engine.model.name,
    }

    def event(delta: dict[str, Any], reason: str | None = None, **more: Any) -> str:
        choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
        return f"data: {json.dumps({**head, 'choices': choices, **more})}\n\n"

    try:
        yield event({"role": "assistant", "content": ""})
        waiting = asyncio.wrap_future(future)
        while not waiting.done():
            hearing = asyncio.ensure_future(rounds.get())
            await asyncio.wait(
                {waiting, hearing}, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if hearing.done():
                done, total = hearing.result()
                yield event({"reasoning_content": f"round {done} of at most {total}\n"})
            else:
                hearing.cancel()
                yield ": working\n\n" if not waiting.done() else ""
        try:
            reply, reason, usage = _reply(context, asked, question, await _answer(waiting))
        except ApiError as error:
            yield f"data: {json.dumps(error.body())}\n\n"
            return
        if reply.reasoning_content:
            yield event({"reasoning_content": reply.reasoning_content})
        words = reply.content.split(" ")
        for number, word in enumerate(words):
            yield event({"content": word if number == 0 else f" {word}"})
        yield event({"unireel": reply.unireel}, reason)
        if asked.stream_options is not None and asked.stream_options.include_usage:
            yield f"data: {json.dumps({**head, 'choices': [], 'usage': usage.model_dump()})}\n\n"
        yield "data: [DONE]\n\n"
    finally:
        future.cancel()
