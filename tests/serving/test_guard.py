"""Who may come, and what a hostile or slow client can do: nothing."""

import contextlib
import http.client
import re
import socket
import time
from typing import Any

import httpx
import openai
import pytest

from unireel.serving.settings import Settings

KEY = "sk-a-long-secret-key"
STAR = "a red star jumps twice"
PATIENCE = 60.0


def error(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def raw(client: httpx.Client, *pieces: bytes, pause: float = 0.0) -> bytes:
    """What the server answers to bytes on the wire, until it hangs up."""
    address = client.base_url.host, client.base_url.port
    with socket.create_connection(address, timeout=PATIENCE) as wire:
        answer = b""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for piece in pieces:
                wire.sendall(piece)
                time.sleep(pause)
        with contextlib.suppress(ConnectionResetError):
            while got := wire.recv(65536):
                answer += got
        return answer


def test_without_the_key_nothing_comes_through(api_on):
    client = api_on(Settings(api_key=KEY))
    described = client.get("/v1/openapi.json", headers={"Authorization": f"Bearer {KEY}"}).json()
    calls = [(method, path) for path, methods in described["paths"].items() for method in methods]
    assert len(calls) >= 15
    wrong: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": KEY},
        {"Authorization": f"Token {KEY}"},
        {"X-Api-Key": KEY},
        {"Authorization": "Basic ~~~"},
        {"Authorization": "Bearer \xff"},
    ]
    for method, path in [*calls, ("get", "/v1/openapi.json"), ("get", "/"), ("get", "/v1/nothing")]:
        concrete = re.sub(r"\{[^}]*\}", "video_" + "0" * 32, path)
        for headers in wrong if path == "/v1/videos" else wrong[:3:2]:
            response = client.request(
                method, concrete, headers={k: v.encode("latin-1") for k, v in headers.items()}
            )
            if path in ("/health", "/ready"):
                assert response.status_code == 200
            else:
                assert error(response) == (401, "invalid_api_key"), (method, path, headers)
                assert "WWW-Authenticate" in response.headers
    # A browser's way, for the page only.
    assert client.get("/metrics", auth=("anybody", KEY)).status_code == 200
    assert client.get("/v1/models", auth=("anybody", KEY)).status_code == 401
    assert client.get("/metrics", auth=("anybody", "wrong")).headers["WWW-Authenticate"].startswith("Basic")
    url = f"{client.base_url}/v1"
    assert openai.OpenAI(base_url=url, api_key=KEY).models.list().data
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=url, api_key="wrong", max_retries=0).models.list()


def test_pages_of_other_sites_and_other_names(api_on):
    client = api_on(Settings(hosts=frozenset({"localhost", "127.0.0.1", "[::1]"})))
    port = client.base_url.port
    for host in (f"localhost:{port}", "127.0.0.1", f"[::1]:{port}"):
        assert client.get("/ready", headers={"Host": host}).status_code == 200
    for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", ""):
        assert error(client.get("/ready", headers={"Host": host})) == (421, "unknown_host")
    own = {"Origin": f"http://127.0.0.1:{port}"}
    assert client.get("/v1/models", headers=own).status_code == 200
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{port + 1}"):
        answer = client.post("/v1/videos", data={"prompt": STAR}, headers={"Origin": origin})
        assert error(answer) == (403, "cross_origin")
        assert "access-control-allow-origin" not in answer.headers


def test_a_body_is_refused_by_its_size(api_on):
    client = api_on(Settings(max_body=10_000))

    def endless():
        for _ in range(100):
            yield b"x" * 1000

    for content in (b"x" * 10_001, endless()):
        answer = client.post("/v1/videos", content=content, headers={"content-type": "application/json"})
        assert error(answer) == (413, "body_too_large") and answer.headers["connection"] == "close"
    huge = raw(client, b"POST /v1/videos HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n")
    assert huge.startswith(b"HTTP/1.1 413")
    files = {"input_reference": ("x" * 3000, b"y" * 9_000)}
    assert error(client.post("/v1/videos", data={"prompt": STAR}, files=files)) == (413, "body_too_large")
    many = {f"field{number}": "x" for number in range(100)}
    assert error(client.post("/v1/videos", files={k: (None, v) for k, v in many.items()})) == (
        400,
        "invalid_form",
    )
    assert client.get("/v1/videos").json()["data"] == []


def test_all_bodies_together_are_bounded(api_on):
    client = api_on(Settings(max_bodies=10_000, body_seconds=PATIENCE))
    kind = b"Content-Type: application/json\r\n"
    head = b"POST /v1/videos HTTP/1.1\r\nHost: x\r\n" + kind + b"Content-Length: 9000\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port)) as holding:
        holding.sendall(head + b"x" * 8000)
        end = time.monotonic() + PATIENCE
        while True:
            answer = client.post("/v1/videos", json={"prompt": "x" * 5000})
            if error(answer) == (429, "busy") or time.monotonic() > end:
                break
        assert error(answer) == (429, "busy") and answer.headers["retry-after"] == "1"
    while error(client.post("/v1/videos", json={"prompt": "x" * 5000}))[1] != "prompt_too_long":
        assert time.monotonic() < end
    # Who hung up while sending was no failure of the server.
    counted = client.get("/metrics").text
    assert 'status="499"' in counted and 'status="500"' not in counted


def test_slow_clients_are_left(api_on):
    client = api_on(Settings(header_seconds=0.5, body_seconds=0.5))
    start = time.monotonic()
    assert raw(client) == b"", "no request at all"
    assert raw(client, b"GET /health HT") == b""
    assert raw(client, *[b"GET /health HTTP/1.1\r\n", *[b"X: y\r\n"] * 20], pause=0.05) == b""
    again = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    kept = raw(client, again, b"GET /hea", pause=0.2)
    assert kept.count(b"HTTP/1.1 200") == 1
    head = b"POST /v1/videos HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    late = raw(client, head, *[b"x"] * 3, pause=0.03)
    assert late.startswith(b"HTTP/1.1 408") and b"request_timeout" in late
    assert time.monotonic() - start < PATIENCE
    assert client.get("/health").status_code == 200


def test_hostile_headers(api_on):
    client = api_on()
    assert raw(client, b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n").startswith(
        (b"HTTP/1.1 400", b"")
    )
    both = b"POST /v1/videos HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    smuggled = raw(client, both + b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"unireel_http" not in smuggled
    for head in (
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\x00",
    ):
        assert raw(client, head).startswith(b"HTTP/1.1 400"), head
    odd: Any = http.client.HTTPConnection(client.base_url.host, client.base_url.port, timeout=PATIENCE)
    odd.request("GET", "/v1/videos/x", headers={"Idempotency-Key": "a" * 5000, "X-Forwarded-For": "1.2.3.4"})
    assert odd.getresponse().status == 404
    answer = client.post("/v1/videos", json={"prompt": STAR}, headers={"Idempotency-Key": "a" * 201})
    assert error(answer) == (400, "invalid_value")
    assert client.get("/health").status_code == 200
