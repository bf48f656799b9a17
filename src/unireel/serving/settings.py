"""What the server accepts, and from whom."""

from __future__ import annotations

from dataclasses import dataclass, field

from unireel.serving.intake import Limits


@dataclass(frozen=True)
class Settings:
    """Limits of requests; all are checked before anything waits or is worked on.

    Attributes:
        api_key: what clients must send as ``Authorization: Bearer ...``; None lets everybody in.
        hosts: names that the server is known under, without ports; others are refused, so that a page cannot
            reach a server on its reader's machine by a name of its own. Empty: every name.
        intake: of films and pictures that clients send.
        max_prompt: characters of a prompt, an instruction or a question.
        max_steps, max_guidance: of the sampler.
        max_work: pixels times frames times steps of one film, at the model's own size; of all pictures of a
            request together.
        max_pictures: pictures of one request.
        max_side: pixels of a film's or a picture's side after enlargement.
        max_media: films and pictures of one request.
        max_body: bytes of a request's body.
        max_bodies: bytes of all bodies that are being received or answered.
        header_seconds, body_seconds: in which a request's headers and its body must have arrived.
        write_seconds: in which a client must take each piece of an answer.
        decoders: media decoded at the same time.
    """

    api_key: str | None = None
    hosts: frozenset[str] = frozenset()
    intake: Limits = field(default_factory=Limits)
    max_prompt: int = 2000
    max_steps: int = 200
    max_guidance: float = 20.0
    max_work: int = 2 * 10**9
    max_pictures: int = 8
    max_side: int = 2048
    max_media: int = 8
    max_body: int = 96 * 2**20
    max_bodies: int = 2**30
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    write_seconds: float = 60.0
    decoders: int = 2
