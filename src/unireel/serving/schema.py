"""The shapes of requests and answers on the wire: OpenAI's, with extensions that are said to be such.

Unknown fields are errors: a client that misspells one would otherwise get another film than it asked for.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Shape(BaseModel):
    """A JSON object without other fields than its own."""

    model_config = ConfigDict(extra="forbid")


class Sampling(Shape):
    """Extensions that every request for films or pictures takes."""

    seed: int | None = Field(None, ge=0, lt=2**63, description="Extension. Random if it is not given.")
    num_inference_steps: int | None = Field(None, ge=1, description="Extension. The model's if not given.")
    guidance_scale: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Extension. The model's if not given."
    )


class ImageReference(Shape):
    """A picture that is not uploaded."""

    image_url: str = Field(description="A data: URL, or https where the server allows that.")


class VideoReference(Shape):
    """A film that is not uploaded: one made here, or one by address."""

    id: str | None = Field(None, description="Of a completed video of this server.")
    video_url: str | None = Field(
        None, description="Extension. A data: URL, or https where the server allows that."
    )


class VideoCreate(Sampling):
    """``POST /v1/videos`` and ``/v1/videos/sync``."""

    prompt: str
    model: str | None = None
    seconds: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Default: the model's longest."
    )
    size: str | None = Field(None, description="WIDTHxHEIGHT: a whole multiple of the model's own size.")
    input_reference: ImageReference | None = Field(None, description="First frame; may also be a file.")
    num_frames: int | None = Field(None, ge=1, description="Extension. Goes before `seconds`.")
    priority: int = Field(0, ge=-100, le=100, description="Extension. Higher ones are made first.")


class VideoEdit(Sampling):
    """``POST /v1/videos/edits``."""

    prompt: str
    video: VideoReference | None = Field(None, description="The film to edit; may also be a file.")
    model: str | None = None
    size: str | None = None
    priority: int = Field(0, ge=-100, le=100, description="Extension.")


class ImageGenerate(Sampling):
    """``POST /v1/images/generations``."""

    prompt: str
    model: str | None = None
    n: int = Field(1, ge=1)
    size: str | None = None
    response_format: Literal["b64_json"] = "b64_json"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    user: str | None = Field(None, description="Has no effect.")


class ImageEdit(ImageGenerate):
    """``POST /v1/images/edits``."""

    image: ImageReference | None = Field(None, description="The picture to edit; may also be a file.")


class VideoError(Shape):
    """Why a job failed."""

    code: str
    message: str


class Video(Shape):
    """A job."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int = Field(description="Percent.")
    created_at: int
    completed_at: int | None = None
    expires_at: int | None = None
    size: str
    seconds: str
    prompt: str
    error: VideoError | None = None
    remixed_from_video_id: str | None = None
    seed: int = Field(description="Extension.")
    num_frames: int = Field(description="Extension.")
    num_inference_steps: int = Field(description="Extension.")
    guidance_scale: float | None = Field(description="Extension.")
    priority: int = Field(description="Extension.")
    queue_position: int | None = Field(None, description="Extension. Jobs that wait before this one.")


class VideoPage(Shape):
    """``GET /v1/videos``."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VideoDeleted(Shape):
    """``DELETE /v1/videos/{id}``."""

    id: str
    deleted: bool
    object: Literal["video.deleted"] = "video.deleted"


class Picture(Shape):
    """One picture of an answer."""

    b64_json: str
    seed: int = Field(description="Extension.")


class Pictures(Shape):
    """``POST /v1/images/...``."""

    created: int
    data: list[Picture]
    output_format: str
    size: str


class Media(Shape):
    """The address of a picture or film in a chat message; ``detail`` has no effect."""

    url: str
    detail: str | None = None


class Part(BaseModel):
    """A part of a chat message: text, a picture, or (vLLM's extension) a film."""

    model_config = ConfigDict(extra="ignore")
    type: str
    text: str | None = None
    image_url: Media | None = None
    video_url: Media | None = None


class Message(BaseModel):
    """A chat message; what an assistant said earlier is not looked at."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None = None


class StreamOptions(Shape):
    """Whether the last chunk of a stream counts tokens."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatRequest(Shape):
    """``POST /v1/chat/completions``; the model decodes greedily, so what shapes sampling has no effect."""

    messages: list[Message] = Field(min_length=1)
    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    n: int | None = Field(1, ge=1, le=1)
    reflect: bool = Field(False, description="Extension. Pyramid Reflection: look again until it is sure.")
    temperature: float | None = Field(None, description="Has no effect.")
    top_p: float | None = Field(None, description="Has no effect.")
    seed: int | None = Field(None, description="Has no effect.")
    user: str | None = Field(None, description="Has no effect.")
    stop: str | list[str] | None = Field(None, description="Has no effect.")
    frequency_penalty: float | None = Field(None, description="Has no effect.")
    presence_penalty: float | None = Field(None, description="Has no effect.")


class ModelCard(Shape):
    """A model of this server."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "unireel"
    abilities: list[str] = Field(description="Extension.")
    size: str = Field(description="Extension. Its own, before enlargement.")
    fps: float = Field(description="Extension.")
    num_frames: list[int] = Field(description="Extension. Lengths that it can make.")


class ModelPage(Shape):
    """``GET /v1/models``."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ErrorDetail(Shape):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str


class ErrorBody(Shape):
    """The body of every answer with a status of 400 or more."""

    error: ErrorDetail


def multipart(shape: type[BaseModel], files: dict[str, str]) -> dict[str, Any]:
    """OpenAPI's description of a body that may be JSON or a form with ``files`` (name: description) in it."""
    schema = shape.model_json_schema(ref_template="#/components/schemas/{model}")
    form = {name: value for name, value in schema["properties"].items() if name not in files}
    form |= {
        name: {"type": "string", "format": "binary", "description": text} for name, text in files.items()
    }
    required = schema.get("required", [])
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": f"#/components/schemas/{shape.__name__}"}},
                "multipart/form-data": {
                    "schema": {"type": "object", "properties": form, "required": required}
                },
            },
        }
    }
