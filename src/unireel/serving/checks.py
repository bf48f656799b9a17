"""From what a client wrote to what the engine makes: every limit is checked here, before anything waits."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

from unireel.clip import Clip
from unireel.serving.errors import ApiError
from unireel.serving.intake import Decoder, IntakeError, resolve
from unireel.serving.jobs import FilmRequest
from unireel.serving.model import ServedModel
from unireel.serving.schema import Sampling, VideoCreate
from unireel.serving.settings import Settings

logger = logging.getLogger("unireel.serving")

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


def check_model(model: ServedModel, asked: str | None) -> None:
    """Refuse a request for another model."""
    if asked is not None and asked != model.name:
        raise ApiError("model_not_found", param="model")


def check_text(model: ServedModel, settings: Settings, param: str, text: str) -> str:
    """``text`` without surrounding space; refused if it is empty, too long, or has words unknown to the model."""
    if len(text) > settings.max_prompt:
        raise ApiError("prompt_too_long", param=param, limit=settings.max_prompt)
    if not text.strip():
        raise ApiError("invalid_value", param=param, problem="it is empty")
    model.check_words(param, text)
    return text.strip()


def scale_for(model: ServedModel, settings: Settings, size: str | None) -> int:
    """Whole-number enlargement that makes the model's films as large as asked for."""
    if size in (None, "auto"):
        return model.default_scale
    height, width = model.size
    most = max(1, settings.max_side // max(height, width))
    parts = _SIZE.fullmatch(size or "")
    scale = int(parts[1]) // width if parts else 0
    if (
        not parts
        or not 1 <= scale <= most
        or (int(parts[1]), int(parts[2])) != (scale * width, scale * height)
    ):
        problem = (
            f"it must be {width}x{height} or a whole multiple of it up to {most * width}x{most * height}"
        )
        raise ApiError("invalid_value", param="size", problem=problem)
    return scale


def frames_for(model: ServedModel, asked: VideoCreate) -> int:
    """Number of frames that ``num_frames`` or ``seconds`` ask for; seconds are rounded to what the model can make."""
    if asked.num_frames is not None:
        if asked.num_frames not in model.lengths:
            listed = ", ".join(map(str, model.lengths))
            raise ApiError("invalid_value", param="num_frames", problem=f"accepted are {listed}")
        return asked.num_frames
    if asked.seconds is None:
        return model.lengths[-1]
    wanted = asked.seconds * model.fps
    nearest = min(model.lengths, key=lambda length: abs(length - wanted))
    if abs(nearest - wanted) > 2:
        least, most = (length / model.fps for length in (model.lengths[0], model.lengths[-1]))
        raise ApiError("invalid_value", param="seconds", problem=f"accepted are {least:g} to {most:g}")
    return nearest


def source_of_edit(model: ServedModel, param: str, film: Clip) -> Clip:
    """A film or picture to edit at the model's size; one that would have to be cut or squeezed is refused."""
    if len(film) not in model.lengths:
        listed = ", ".join(map(str, model.lengths))
        problem = f"it has {len(film)} frames; accepted are {listed}"
        raise ApiError("invalid_value", param=param, problem=problem)
    height, width = model.size
    if film.width * height != film.height * width:
        problem = f"it is {film.width}x{film.height}; films to edit have the shape of {width}x{height}"
        raise ApiError("invalid_value", param=param, problem=problem)
    return film.resized(height, width)


def film_request(
    model: ServedModel,
    settings: Settings,
    prompt: str,
    sampling: Sampling,
    frames: int,
    size: str | None,
    *,
    count: int = 1,
    key: str | None = None,
    edit: bool = False,
) -> list[FilmRequest]:
    """The checked requests of ``count`` films with seeds one after the other.

    Args:
        key: the client's ``Idempotency-Key``: without a seed of its own, the request gets the same one each time.
    """
    prompt = check_text(model, settings, "prompt", prompt)
    steps = model.steps if sampling.num_inference_steps is None else sampling.num_inference_steps
    if steps > settings.max_steps:
        problem = f"at most {settings.max_steps}"
        raise ApiError("invalid_value", param="num_inference_steps", problem=problem)
    if sampling.guidance_scale is not None and sampling.guidance_scale > settings.max_guidance:
        raise ApiError("invalid_value", param="guidance_scale", problem=f"at most {settings.max_guidance:g}")
    work = model.size[0] * model.size[1] * frames * steps * count
    if work > settings.max_work:
        raise ApiError("too_much_work", asked=work, limit=settings.max_work)
    scale = scale_for(model, settings, size)
    seed = _seed(key) if sampling.seed is None else sampling.seed
    first = FilmRequest(
        prompt=prompt,
        seed=seed,
        frames=frames,
        steps=steps,
        guidance=sampling.guidance_scale,
        scale=scale,
        edit=edit,
        model=model.name,
        height=model.size[0] * scale,
        width=model.size[1] * scale,
        fps=model.fps,
    )
    return [replace(first, seed=(seed + number) % 2**63) for number in range(count)]


def _seed(key: str | None) -> int:
    if key is None:
        return secrets.randbelow(2**31)
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") // 2


def check_key(key: str | None) -> str | None:
    """An ``Idempotency-Key`` of at most 200 characters, or None."""
    if key is not None and not 1 <= len(key) <= 200:
        raise ApiError("invalid_value", param="Idempotency-Key", problem="1 to 200 characters")
    return key


class Intake:
    """Clients' films and pictures, decoded outside this process, a few at a time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._decoder = Decoder(settings.decoders)
        # Threads of its own, so that uploads that wait for their turn hold up nothing else.
        self._threads = ThreadPoolExecutor(settings.decoders, "unireel-intake")

    def warm(self) -> None:
        """Begin to start what decodes, so that the first upload does not have to; returns at once."""
        self._threads.submit(self._start)

    def _start(self) -> None:
        try:
            self._decoder.start()
        except OSError as error:  # the first upload tries again
            logger.warning("the decoders did not start: %s", error)

    def close(self) -> None:
        """End what is being decoded."""
        self._decoder.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def one(
        self, param: str, sources: Sequence[bytes | str], kind: Literal["video", "image", "any"]
    ) -> Clip | None:
        """The film or picture that was uploaded (bytes) or named by address; None if there is none.

        Raises:
            ApiError: more than one, or what the intake refuses.
        """
        if not sources:
            return None
        if len(sources) > 1:
            raise ApiError("invalid_value", param=param, problem="it is given twice")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._read, param, sources[0], kind)

    def _read(self, param: str, source: bytes | str, kind: Literal["video", "image", "any"]) -> Clip:
        try:
            raw = resolve(source, self.settings.intake) if isinstance(source, str) else source
            return self._decoder.read(raw, self.settings.intake, kind)
        except IntakeError as error:
            raise ApiError("media_rejected", param=param, problem=error.message) from None
