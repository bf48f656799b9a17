"""Chat models behind any OpenAI-compatible endpoint: time-outs, retries, a budget, and what it all cost.

Only ``POST {base}/chat/completions`` is used, without streaming, with the standard library. The key comes from an
environment variable and is never written, shown or sent anywhere but to ``base``: redirects are not followed.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import math
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from unireel.errors import UsageError, UserError

KEY_VARIABLE = "OPENAI_API_KEY"
MOST_BYTES = 4 * 2**20
"""Largest reply that is read."""

LONGEST_PAUSE = 30.0
"""Seconds to wait before trying again at most, whatever the endpoint asks for."""

RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed."""


class RemoteError(UserError):
    """The endpoint did not answer, or answered nonsense, after all attempts."""


class BudgetSpent(RemoteError):
    """Nothing was sent: the budget does not allow another request."""


@dataclass(frozen=True)
class Reply:
    """What the model said, the tokens that the endpoint counted (0 if it does not count), and the seconds it took.

    ``probabilities`` are those of the tokens it said, where ``logprobs=True`` was sent and the endpoint gives them.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    probabilities: tuple[float, ...] = ()


@dataclass
class Spent:
    """What requests have cost so far; ``attempts`` counts repeated ones too."""

    requests: int = 0
    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """Plain JSON."""
        return asdict(self) | {"seconds": round(self.seconds, 3)}


class Endpoint:
    """A chat model at a URL; calls may come from several threads.

    Attributes:
        url: base address, such as ``http://localhost:8000/v1``.
        model: name that the endpoint knows it by.
        spent: what was used so far.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_variable: str = KEY_VARIABLE,
        timeout: float = 60.0,
        attempts: int = 3,
        most_requests: int | None = None,
        most_tokens: int | None = None,
        pause: float = 1.0,
    ) -> None:
        """Describe the endpoint; nothing is sent yet.

        Args:
            url: with or without a final slash or ``/chat/completions``.
            model: sent as ``model``.
            key_variable: environment variable that holds the key; without it none is sent.
            timeout: seconds for one attempt as a whole, however slowly the reply drips in.
            attempts: of one request, at least 1.
            most_requests, most_tokens: the budget; None is without limit. A request is sent as long as fewer were
                used, so that the last one may exceed ``most_tokens``.
            pause: seconds before the second attempt, doubled for each further one.

        Raises:
            UsageError: not an http(s) address, or a number out of range.
        """
        if not re.match(r"https?://[^/\s]+", url):
            raise UsageError(f"'{url}' is not an address of an endpoint, such as http://localhost:8000/v1")
        if timeout <= 0 or attempts < 1:
            raise UsageError(f"timeout={timeout}, attempts={attempts}: above 0, and at least 1")
        self.url = url.rstrip("/").removesuffix("/chat/completions")
        self.model, self.timeout, self.attempts, self.pause = model, timeout, attempts, pause
        self.most_requests, self.most_tokens = most_requests, most_tokens
        self.spent = Spent()
        self._key = os.environ.get(key_variable, "").strip()
        self._lock = threading.Lock()
        self._opener = urllib.request.build_opener(_NoRedirects)

    def chat(self, messages: Sequence[dict[str, Any]], *, max_tokens: int = 256, **options: Any) -> Reply:
        """Send ``messages`` (OpenAI's form) and return the reply; temperature 0 unless ``options`` say otherwise.

        Raises:
            BudgetSpent: the budget is used up.
            RemoteError: no usable reply after all attempts, or a refusal that repeating cannot change.
        """
        body = {"model": self.model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0}
        self._reserve()
        begun = time.monotonic()
        content = self._post(json.dumps(body | options).encode())
        seconds = time.monotonic() - begun
        reply = _parsed(content, seconds, self.url)
        with self._lock:
            self.spent.prompt_tokens += reply.prompt_tokens
            self.spent.completion_tokens += reply.completion_tokens
            self.spent.seconds += seconds
        return reply

    def _reserve(self) -> None:
        with self._lock:
            used = self.spent.prompt_tokens + self.spent.completion_tokens
            if self.most_requests is not None and self.spent.requests >= self.most_requests:
                raise BudgetSpent(f"the budget of {self.most_requests} requests to {self.url} is used up")
            if self.most_tokens is not None and used >= self.most_tokens:
                raise BudgetSpent(
                    f"the budget of {self.most_tokens} tokens at {self.url} is used up ({used})"
                )
            self.spent.requests += 1

    def _post(self, body: bytes) -> bytes:
        pause = self.pause
        for left in reversed(range(self.attempts)):
            with self._lock:
                self.spent.attempts += 1
            try:
                return self._attempt(body)
            except urllib.error.HTTPError as error:
                reason = f"status {error.code} {error.reason}"
                if error.code not in RETRIED:
                    raise RemoteError(f"{self.url} refused: {reason}{_said(error)}") from None
                asked = error.headers.get("Retry-After", "")
                pause = max(pause, float(asked)) if asked.isdigit() else pause
            except TimeoutError:
                reason = f"no reply within {self.timeout:g} s"
            except (OSError, http.client.HTTPException) as error:
                # urllib wraps a time-out of connecting in an error of its own.
                cause = getattr(error, "reason", error)
                late = isinstance(cause, TimeoutError)
                reason = f"no reply within {self.timeout:g} s" if late else f"{cause or type(error).__name__}"
            if left:
                time.sleep(min(pause, LONGEST_PAUSE))
                pause *= 2
        raise RemoteError(f"{self.url} gave no answer in {self.attempts} attempts: {reason}")

    def _attempt(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(f"{self.url}/chat/completions", body, headers, method="POST")
        end = time.monotonic() + self.timeout
        with self._opener.open(request, timeout=self.timeout) as response:
            content = b""
            # read1 returns what one read of the socket gave, so that a slow drip cannot outlast the deadline.
            while chunk := response.read1(65536):
                content += chunk
                if time.monotonic() > end:
                    raise TimeoutError
                if len(content) > MOST_BYTES:
                    raise RemoteError(f"{self.url} sent more than {MOST_BYTES} bytes")
        return content


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Turns a redirect into an error: the key must not travel to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _parsed(content: bytes, seconds: float, url: str) -> Reply:
    try:
        data = json.loads(content)
        text = data["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise RemoteError(f"{url} answered something else than a chat completion") from None
    if not isinstance(text, str):
        raise RemoteError(f"{url} answered without text")
    usage = data.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    tokens = [
        int(n) if isinstance(n := counts.get(key), int | float) else 0
        for key in ("prompt_tokens", "completion_tokens")
    ]
    return Reply(text, tokens[0], tokens[1], seconds, _probabilities(data["choices"][0]))


def _probabilities(choice: dict[str, Any]) -> tuple[float, ...]:
    """Of each token that was said; empty if the endpoint does not give them."""
    try:
        return tuple(math.exp(min(0.0, float(each["logprob"]))) for each in choice["logprobs"]["content"])
    except (KeyError, TypeError, ValueError):
        return ()


def _said(error: urllib.error.HTTPError) -> str:
    """The endpoint's own words about a refusal, on one line, as far as there are any."""
    try:
        data = json.loads(error.read(65536))
        message = data["error"]["message"] if isinstance(data.get("error"), dict) else data["error"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, http.client.HTTPException):
        return ""
    return f" ({' '.join(str(message).split())[:200]})"


def text_part(text: str) -> dict[str, Any]:
    """A piece of text in a message with several parts."""
    return {"type": "text", "text": text}


def image_part(frame: np.ndarray, quality: int = 90) -> dict[str, Any]:
    """A frame (H, W, 3) uint8 as a JPEG within a message."""
    memory = io.BytesIO()
    Image.fromarray(frame).save(memory, "JPEG", quality=quality)
    data = base64.b64encode(memory.getvalue()).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}}
