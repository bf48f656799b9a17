"""The client of chat endpoints against a real server on the loopback that misbehaves on request."""

import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np
import pytest

from unireel.backbones.remote import BudgetSpent, Endpoint, RemoteError, image_part, text_part
from unireel.errors import UsageError

Respond = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]
Serve = Callable[[Respond], str]


def send(handler: BaseHTTPRequestHandler, status: int, content: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def completion(text: str, prompt: int = 7, completion: int = 3) -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    return json.dumps({"choices": [{"message": {"content": text}}], "usage": usage}).encode()


def test_what_is_sent_and_what_comes_back(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def respond(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        seen.append((handler.path, handler.headers["Authorization"], body))
        send(handler, 200, completion("yes"))

    monkeypatch.setenv("SOME_KEY", "abc")
    endpoint = Endpoint(serve(respond) + "/chat/completions", "m", key_variable="SOME_KEY")
    parts = [text_part("what?"), image_part(np.zeros((4, 4, 3), np.uint8))]
    reply = endpoint.chat([{"role": "user", "content": parts}], max_tokens=5, seed=3)
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("yes", 7, 3)
    path, key, body = seen[0]
    assert (path, key) == ("/v1/chat/completions", "Bearer abc")
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("m", 5, 0, 3)
    assert body["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert endpoint.spent.to_dict() | {"seconds": 0} == {
        "requests": 1,
        "attempts": 1,
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "seconds": 0,
    }


def test_passing_troubles_are_tried_again(serve: Serve) -> None:
    answers = [(503, b"busy"), (429, b"slow down"), (200, completion("at last"))]

    def respond(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        status, content = answers.pop(0)
        send(handler, status, content, Retry_After="0")

    endpoint = Endpoint(serve(respond), "m", pause=0.01)
    assert endpoint.chat([]).text == "at last"
    assert (endpoint.spent.requests, endpoint.spent.attempts) == (1, 3)


def test_a_refusal_is_not_repeated_and_quoted(serve: Serve) -> None:
    def respond(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        send(handler, 401, json.dumps({"error": {"message": "no\nkey"}}).encode())

    endpoint = Endpoint(serve(respond), "m")
    with pytest.raises(RemoteError, match=r"refused: status 401 .*\(no key\)"):
        endpoint.chat([])
    assert endpoint.spent.attempts == 1


@pytest.mark.parametrize(
    "content", [b"<html>", b"{}", b"[]", b'{"choices": []}', completion("x").replace(b'"x"', b"1")]
)
def test_nonsense_is_an_error(serve: Serve, content: bytes) -> None:
    endpoint = Endpoint(serve(lambda handler, body: send(handler, 200, content)), "m")
    with pytest.raises(RemoteError, match="answered"):
        endpoint.chat([])


def test_silence_and_a_slow_drip_end_at_the_deadline(serve: Serve) -> None:
    def silent(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        time.sleep(1.0)

    def drip(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(100):
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.05)
        except OSError:
            pass

    for respond in (silent, drip):
        endpoint = Endpoint(serve(respond), "m", timeout=0.3, attempts=2, pause=0.01)
        begun = time.monotonic()
        with pytest.raises(RemoteError, match=r"2 attempts: no reply within 0\.3 s"):
            endpoint.chat([])
        assert time.monotonic() - begun < 2.0


def test_nobody_there() -> None:
    endpoint = Endpoint("http://127.0.0.1:9", "m", attempts=2, pause=0.01)
    with pytest.raises(RemoteError, match=r"gave no answer in 2 attempts: .*refused"):
        endpoint.chat([])


def test_the_key_does_not_follow_redirects(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[str] = []
    elsewhere = serve(lambda handler, body: reached.append(handler.path))

    def respond(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        send(handler, 307, b"", Location=elsewhere)

    monkeypatch.setenv("OPENAI_API_KEY", "abc")
    with pytest.raises(RemoteError, match="refused: status 307"):
        Endpoint(serve(respond), "m").chat([])
    assert reached == []


def test_the_budget_holds(serve: Serve) -> None:
    address = serve(lambda handler, body: send(handler, 200, completion("x")))
    endpoint = Endpoint(address, "m", most_requests=2)
    endpoint.chat([])
    endpoint.chat([])
    with pytest.raises(BudgetSpent, match="budget of 2 requests"):
        endpoint.chat([])
    endpoint = Endpoint(address, "m", most_tokens=11)
    endpoint.chat([])
    endpoint.chat([])
    with pytest.raises(BudgetSpent, match=r"budget of 11 tokens .* \(20\)"):
        endpoint.chat([])
    assert endpoint.spent.requests == 2


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", ""])
def test_addresses_are_checked(url: str) -> None:
    with pytest.raises(UsageError, match="not an address"):
        Endpoint(url, "m")
