"""Talking to any server that understands OpenAI's ``/chat/completions``, with time-outs, retries and a budget."""

from __future__ import annotations

import base64
import http.client
import io
import json
import math
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from unireel.errors import UsageError, UserError
from unireel.systems.univid.reflection.talkers import Said

KEY_VARIABLES = ("UNIREEL_API_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key, the first one that is set counts; it is never written anywhere."""

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which it makes sense to ask again."""

_LONGEST_REPLY = 16 * 2**20


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key is for one address: it is not carried on to where that points."""

    def redirect_request(self, *args: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


@dataclass(frozen=True)
class Budget:
    """What may be spent on one endpoint: requests (failed ones count), and tokens read and written."""

    requests: int = 1000
    tokens: int = 2_000_000

    def __post_init__(self) -> None:
        if self.requests < 1 or self.tokens < 1:
            raise ValueError(f"requests={self.requests}, tokens={self.tokens}: at least 1 each")


class EndpointTalker:
    """A chat model behind an address. A :class:`~unireel.systems.univid.reflection.talkers.Talker`.

    Attributes:
        requests, tokens: spent so far.
    """

    def __init__(
        self,
        address: str,
        model: str,
        key: str | None = None,
        sees: bool = True,
        seconds: float = 60.0,
        attempts: int = 4,
        pause: float = 1.0,
        budget: Budget | None = None,
        confidence: bool = True,
    ) -> None:
        """Name the endpoint; nothing is asked yet.

        Args:
            address: up to and without ``/chat/completions``, such as ``http://localhost:8000/v1``.
            model: its name there.
            key: sent as a bearer token; by default the first of :data:`KEY_VARIABLES` that is set.
            sees: whether the model takes pictures.
            seconds: one attempt may take.
            attempts: at most, of which each waits twice as long as the one before, beginning with ``pause`` seconds,
                or as long as the server says (at most a minute).
            confidence: ask for the probabilities of the tokens (servers without them leave them out).

        Raises:
            UsageError: the address is none, or a number is out of range.
        """
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or not model.strip():
            raise UsageError(
                f"'{address}' with model '{model}' is no endpoint; write http://host:port/v1#model"
            )
        if seconds <= 0 or attempts < 1 or pause < 0:
            raise UsageError(
                f"seconds={seconds}, attempts={attempts}, pause={pause}: above 0, at least 1, at least 0"
            )
        self.address, self.model, self.sees = address.rstrip("/"), model.strip(), sees
        self.seconds, self.attempts, self.pause = seconds, attempts, pause
        self.budget = budget or Budget()
        self.confidence = confidence
        self.requests = self.tokens = 0
        self._key = key or next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)

    @property
    def name(self) -> str:
        """The model and its host, without anything secret in the address."""
        parts = urlsplit(self.address)
        return f"{self.model} at {parts.hostname}{f':{parts.port}' if parts.port else ''}"

    def say(self, prompt: str, pictures: Sequence[np.ndarray] = (), most: int = 256) -> Said:
        """See :meth:`~unireel.systems.univid.reflection.talkers.Talker.say`.

        Raises:
            UserError: it cannot be reached, refuses, answers nonsense, or the budget is spent.
        """
        if len(pictures) and not self.sees:
            raise UserError(f"{self.name} takes words only, but was shown {len(pictures)} pictures")
        content: Any = prompt
        if len(pictures):
            content = [{"type": "image_url", "image_url": {"url": _data_url(each)}} for each in pictures]
            content.append({"type": "text", "text": prompt})
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": most,
            "temperature": 0,
        }
        if self.confidence:
            body["logprobs"] = True
        return self._read(self._ask(json.dumps(body).encode()))

    def _ask(self, body: bytes) -> Any:
        """The reply's JSON; asks again while that makes sense."""
        for attempt in range(1, self.attempts + 1):
            self._spend()
            wait = self.pause * 2 ** (attempt - 1) * random.uniform(0.75, 1.25)
            try:
                return self._once(body)
            except urllib.error.HTTPError as error:
                with error:
                    reason = f"status {error.code}{_explained(error.read(2000))}"
                    wait = _asked_wait(error.headers.get("Retry-After")) or wait
                if error.code not in PASSING:
                    raise UserError(f"{self.name} refuses: {reason}") from None
            except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
                reason = str(getattr(error, "reason", None) or error or type(error).__name__)
            except ValueError:
                reason = "its reply is not JSON"
            if attempt < self.attempts:
                time.sleep(wait)
        raise UserError(f"{self.name} does not answer after {self.attempts} attempts: {reason}")

    def _once(self, body: bytes) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(f"{self.address}/chat/completions", body, headers)
        with _OPENER.open(request, timeout=self.seconds) as reply:
            return json.loads(reply.read(_LONGEST_REPLY))

    def _spend(self) -> None:
        if self.requests >= self.budget.requests or self.tokens >= self.budget.tokens:
            raise UserError(
                f"the budget of {self.name} is spent: {self.requests} of {self.budget.requests} requests,"
                f" {self.tokens:,} of {self.budget.tokens:,} tokens"
            )
        self.requests += 1

    def _read(self, reply: Any) -> Said:
        try:
            choice = reply["choices"][0]
            text = choice["message"]["content"] or ""
            usage = reply.get("usage") or {}
            read, written = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
            tokens = (choice.get("logprobs") or {}).get("content") or []
            logs = [float(each["logprob"]) for each in tokens]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise UserError(f"{self.name} answers something else than a chat completion") from None
        self.tokens += read + written
        confidence = math.exp(min(0.0, sum(logs) / len(logs))) if logs else None
        return Said(str(text).strip(), confidence, read, written)


def _data_url(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _explained(body: bytes) -> str:
    """What the server says about an error, on one line."""
    try:
        error = json.loads(body)["error"]
        text = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError):
        text = body.decode(errors="replace")
    words = " ".join(str(text).split())
    return f" ({words[:200]})" if words else ""


def _asked_wait(header: str | None) -> float | None:
    """Seconds that a server asks to wait, at most a minute."""
    try:
        return min(60.0, max(0.0, float(header))) if header else None
    except ValueError:
        return None
