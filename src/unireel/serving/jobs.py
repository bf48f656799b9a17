"""What is asked of the server and what became of it: the request of a film and the record of its job."""

from __future__ import annotations

import json
import uuid
import zlib
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from unireel.clip import Clip

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
"""``cancelled`` is a job that was deleted while it ran; it stays until the batch that it is in has ended."""


def new_id(mark: str = "") -> str:
    """A name that nobody can guess; clients never choose one.

    Args:
        mark: hexadecimal digits that it begins with, at most 8, which leave 96 random bits.
    """
    return f"video_{mark}{uuid.uuid4().hex[len(mark) :]}"


@dataclass(frozen=True)
class FilmRequest:
    """Everything that decides how a film (or with ``frames=1`` a picture) looks.

    Attributes:
        prompt: what it shows; of an edit, the instruction.
        seed: of the noise.
        frames: length; 1 is a picture. Of an edit, the length of its source.
        steps: of the sampler.
        guidance: scale of classifier-free guidance; None for the model's.
        scale: whole-number enlargement of the pixels when the film is written.
        edit: whether ``source`` is a film to change; else, if there is one, it is a first frame.
        imagine: whether a description is made together with the film.
        model: name of the model that is to make it; "" for whichever is served.
        height, width, fps: of the file, for clients who ask about the job; they decide nothing.
    """

    prompt: str
    seed: int
    frames: int
    steps: int
    guidance: float | None = None
    scale: int = 1
    edit: bool = False
    imagine: bool = False
    model: str = ""
    height: int = 0
    width: int = 0
    fps: float = 0.0

    def to_json(self) -> str:
        """One line, the same for equal requests."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> FilmRequest:
        """The request that :meth:`to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Job:
    """One request on its way.

    Attributes:
        id: chosen by the server, ``video_`` and 32 hexadecimal digits.
        sequence: number of its arrival.
        request, source: what to make, and its first frame or the film to edit, if any.
        priority: higher ones run first; equal ones in the order of arrival.
        transient: somebody waits for it on an open connection; it is not listed, and is gone after a restart.
        batch: id of the group of jobs that it is made with; fixed when it first starts, so that it is made in
            the same group if it must be made again.
        attempts: how often it was started.
        created_at, started_at, completed_at, expires_at: seconds since 1970.
        error: code of the catalogue.
        content_bytes: what its files take on disk.
        key: the client's ``Idempotency-Key``.
    """

    id: str
    request: FilmRequest
    source: Clip | None = None
    sequence: int = 0
    status: Status = "queued"
    priority: int = 0
    transient: bool = False
    batch: str | None = None
    attempts: int = 0
    created_at: float = 0.0
    started_at: float | None = None
    completed_at: float | None = None
    expires_at: float | None = None
    error: str | None = None
    content_bytes: int = 0
    key: str | None = None

    def goes_with(self, other: Job) -> bool:
        """Whether one call of the model can make both."""
        mine, its = (
            replace(job.request, prompt="", seed=0, scale=1, height=0, width=0) for job in (self, other)
        )
        return mine == its and (self.source is None) == (other.source is None)


def pack_clip(clip: Clip) -> bytes:
    """A clip without loss, for a column of the database: a line of JSON, then the compressed frames."""
    head = json.dumps({"shape": clip.frames.shape, "fps": clip.fps}).encode()
    return head + b"\n" + zlib.compress(clip.frames.tobytes(), level=1)


def unpack_clip(packed: bytes) -> Clip:
    """What :func:`pack_clip` packed."""
    head, _, body = packed.partition(b"\n")
    fields = json.loads(head)
    frames = np.frombuffer(zlib.decompress(body), np.uint8).reshape(fields["shape"])
    return Clip(frames, fields["fps"])
