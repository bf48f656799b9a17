"""The HTTP API as clients meet it: OpenAI's own client, and raw HTTP."""

# OpenAI's client does not type the extensions, and what a test asserts is there need not be checked for.
# pyright: reportOptionalMemberAccess=false, reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalIterable=false, reportOptionalSubscript=false, reportCallIssue=false, reportGeneralTypeIssues=false

import base64
import io
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import psutil
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from unireel.clip import Clip
from unireel.serving.settings import Settings

STAR = "a red star jumps twice"
QUESTION = "what colour is the star ?"
PATIENCE = 120.0
SNAPSHOT = Path(__file__).with_name("openapi.json")


def until(what: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def png(side: int = 48, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def data_url(raw: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


def error(response: httpx.Response) -> tuple[int, str, str | None]:
    body = response.json()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    return response.status_code, body["code"], body["param"]


def sdk(client: httpx.Client, key: str = "none", **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{client.base_url}/v1", api_key=key, max_retries=0, **options)


@pytest.fixture
def film(tmp_path: Path) -> bytes:
    frames = np.random.default_rng(1).integers(0, 256, (9, 48, 48, 3), dtype=np.uint8)
    return Clip(frames, 8).save(tmp_path / "film.mp4").read_bytes()


def test_openais_client_makes_films(api_on, served, tmp_path):
    client = api_on()
    ai = sdk(client)
    assert [model.id for model in ai.models.list()] == [served.name]
    assert ai.models.retrieve(served.name).id == served.name
    video = ai.videos.create_and_poll(
        prompt=STAR,
        model=served.name,
        seconds="1",
        size="96x96",
        extra_body={"seed": 5},  # type: ignore[arg-type]
    )
    assert (video.status, video.progress, video.seconds, video.size) == ("completed", 100, "1.125", "96x96")
    assert int(video.expires_at or 0) == int(video.completed_at or 0) + 24 * 3600
    ai.videos.download_content(video.id).write_to_file(tmp_path / "ours.mp4")
    alone = served.pipeline.generate(STAR, seed=5, frames=9)
    alone.save(tmp_path / "alone.mp4", scale=2)
    assert (tmp_path / "ours.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()
    sheet = ai.videos.download_content(video.id, variant="spritesheet").read()
    assert Image.open(io.BytesIO(sheet)).size == (3 * 48, 3 * 48)
    thumbnail = Image.open(io.BytesIO(ai.videos.download_content(video.id, variant="thumbnail").read()))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (96, 96))

    first = ai.videos.create(prompt=STAR, input_reference=("../../x.png", png(), "image/png"))
    assert ai.videos.poll(first.id).status == "completed"
    # OpenAI's client has no way to send an address.
    body = {
        "prompt": STAR,
        "input_reference": {"image_url": data_url(png(), "image/png")},
        "seed": first.seed,
    }
    second = ai.videos.poll(client.post("/v1/videos", json=body).json()["id"])
    files = [ai.videos.download_content(each.id).read() for each in (first, second)]
    assert files[0] == files[1], "a file and a data: URL are the same picture"

    ids = [each.id for each in ai.videos.list(limit=2)]
    assert ids == [second.id, first.id, video.id]
    assert ai.videos.delete(video.id).deleted
    with pytest.raises(openai.NotFoundError, match="no video of that id"):
        ai.videos.retrieve(video.id)


def _saved(folder: Path, raw: bytes) -> Path:
    path = folder / "film.mp4"
    path.write_bytes(raw)
    return path


def test_openais_client_makes_pictures(api_on, served):
    ai = sdk(api_on())
    answer = ai.images.generate(
        prompt="two squares",
        n=2,
        size="48x48",
        extra_body={"seed": 7},  # type: ignore[arg-type]
    )
    for picture, seed in zip(answer.data, (7, 8), strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.b64_json))))
        alone = served.pipeline.generate("two squares", seed=seed, frames=1).frames[0]
        assert np.abs(pixels.astype(int) - alone).max() <= 1 and picture.seed == seed
    webp = ai.images.generate(prompt="two squares", output_format="webp")
    decoded = Image.open(io.BytesIO(base64.b64decode(webp.data[0].b64_json)))
    assert (decoded.format, decoded.size) == ("WEBP", (384, 384))
    for call in (
        lambda: ai.images.edit(image=("a.png", png()), prompt=STAR),
        lambda: ai.videos.edit(prompt=STAR, video=("a.mp4", b"")),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            call()
        assert refused.value.code == "model_cannot_edit"


def test_openais_client_asks(api_on, served, film, tmp_path):
    client = api_on()
    ai = sdk(client)
    content: list[Any] = [
        {"type": "video_url", "video_url": {"url": data_url(film, "video/mp4")}},
        {"type": "text", "text": QUESTION},
    ]
    messages: Any = [{"role": "system", "content": "be brief"}, {"role": "user", "content": content}]
    answer = ai.chat.completions.create(model=served.name, messages=messages, temperature=0)
    expected = served.pipeline.ask(Clip.load(_saved(tmp_path, film)), QUESTION)
    message = answer.choices[0].message
    assert message.content == expected.text and answer.choices[0].finish_reason == "stop"
    assert message.unireel["confidence"] == pytest.approx(expected.confidence)
    assert message.unireel["evidence"][-1] == {"frame": 8, "time": 1.0}
    assert answer.usage.prompt_tokens == 6

    stream = ai.chat.completions.create(
        model=served.name, messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == expected.text
    assert chunks[-2].choices[0].finish_reason == "stop" and chunks[-1].usage == answer.usage
    assert chunks[-2].choices[0].delta.unireel == message.unireel

    reflected = ai.chat.completions.create(
        model=served.name, messages=messages, stream=True, extra_body={"reflect": True}
    )
    chunks = [chunk.choices[0].delta for chunk in reflected]
    reasoning = "".join(getattr(chunk, "reasoning_content", None) or "" for chunk in chunks)
    rounds = chunks[-1].unireel["trace"]["rounds"]
    assert reasoning.startswith("round 1 of at most ") and reasoning.count("score") == len(rounds)

    picture: Any = [{"type": "image_url", "image_url": {"url": data_url(png(), "image/png")}}]
    described = ai.chat.completions.create(
        model=served.name, messages=[{"role": "user", "content": picture}], max_tokens=3
    )
    assert described.choices[0].finish_reason == "length"
    assert len(described.choices[0].message.content.split()) == 3
    # A conversation: the film was sent before, the question comes last.
    later = [messages[1], {"role": "assistant", "content": "x"}, {"role": "user", "content": QUESTION}]
    assert ai.chat.completions.create(model=served.name, messages=later).choices[0].message.content


REFUSED = [
    ({}, 400, "missing_parameter", "prompt"),
    ({"prompt": "  "}, 400, "invalid_value", "prompt"),
    ({"prompt": "a red qwertz"}, 400, "unknown_words", "prompt"),
    ({"prompt": "star " * 600}, 400, "prompt_too_long", "prompt"),
    ({"prompt": STAR, "promt": 1}, 400, "unknown_parameter", "promt"),
    ({"prompt": STAR, "output_path": "/etc/x"}, 400, "unknown_parameter", "output_path"),
    ({"prompt": STAR, "model": "sora-2"}, 404, "model_not_found", "model"),
    ({"prompt": STAR, "seconds": "12"}, 400, "invalid_value", "seconds"),
    ({"prompt": STAR, "seconds": "NaN"}, 400, "invalid_value", "seconds"),
    ({"prompt": STAR, "num_frames": 16}, 400, "invalid_value", "num_frames"),
    ({"prompt": STAR, "size": "1280x720"}, 400, "invalid_value", "size"),
    ({"prompt": STAR, "size": "48x96"}, 400, "invalid_value", "size"),
    ({"prompt": STAR, "size": "48000x48000"}, 400, "invalid_value", "size"),
    ({"prompt": STAR, "num_inference_steps": 10**9}, 400, "invalid_value", "num_inference_steps"),
    ({"prompt": STAR, "num_inference_steps": 0}, 400, "invalid_value", "num_inference_steps"),
    ({"prompt": STAR, "num_inference_steps": 150}, 422, "too_much_work", None),
    ({"prompt": STAR, "guidance_scale": 1e9}, 400, "invalid_value", "guidance_scale"),
    ({"prompt": STAR, "seed": -1}, 400, "invalid_value", "seed"),
    ({"prompt": STAR, "seed": 2**63}, 400, "invalid_value", "seed"),
    ({"prompt": STAR, "input_reference": {"image_url": "http://127.0.0.1/x.png"}}, 422, "media_rejected",
     "input_reference"),
    ({"prompt": STAR, "input_reference": {"image_url": "file:///etc/passwd"}}, 422, "media_rejected",
     "input_reference"),
    ({"prompt": STAR, "input_reference": {"image_url": "data:image/png;base64,AAAA"}}, 422, "media_rejected",
     "input_reference"),
    ({"prompt": STAR, "input_reference": {"file_id": "x"}}, 400, "missing_parameter",
     "input_reference.image_url"),
]  # fmt: skip


def test_nothing_impossible_is_queued(api_on):
    client = api_on(Settings(max_work=48 * 48 * 17 * 100))
    for body, *expected in REFUSED:
        response = client.post("/v1/videos", json=body)
        assert [*error(response)] == expected, body
    assert client.get("/v1/videos").json()["data"] == []
    plain = {"content-type": "application/json"}
    for raw in (b"{", b"[1]", b"\xff\xfe", b"[" * 100_000):
        assert error(client.post("/v1/videos", content=raw, headers=plain))[1] == "invalid_json"
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = client.post("/v1/videos", content=b"prompt=x", headers={"content-type": kind})
        assert error(answer)[:2] == (415, "unsupported_media_type")
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert error(client.post("/v1/videos", content=b"--y\r\nnonsense", headers=broken))[1] == "invalid_form"
    files = [("input_reference", ("a.png", png())), ("input_reference", ("b.png", png()))]
    assert error(client.post("/v1/videos", data={"prompt": STAR}, files=files))[1] == "invalid_form"
    other = {"video": ("a.png", png())}
    assert error(client.post("/v1/videos", data={"prompt": STAR}, files=other))[1:] == (
        "unknown_parameter",
        "video",
    )
    not_an_image = {"input_reference": ("a.png", b"not a picture at all")}
    assert error(client.post("/v1/videos", data={"prompt": STAR}, files=not_an_image))[1] == "media_rejected"


def test_what_chat_refuses(api_on, film):
    client = api_on(Settings(max_media=2))
    video = {"type": "video_url", "video_url": {"url": data_url(film, "video/mp4")}}

    def ask(content: Any, **more: Any) -> tuple[int, str, str | None]:
        body = {"messages": [{"role": "user", "content": content}], **more}
        return error(client.post("/v1/chat/completions", json=body))

    assert ask(QUESTION) == (400, "media_required", None)
    assert ask([video, {"type": "text", "text": "qwertz ?"}]) == (400, "unknown_words", "messages")
    assert ask([video] * 3)[:2] == (422, "too_many_media")
    assert ask([video] * 2)[:2] == (422, "too_many_media")
    assert ask([{"type": "input_audio", "input_audio": {}}])[1] == "unsupported_parameter"
    assert ask([{"type": "video_url"}])[1] == "missing_parameter"
    assert ask([video], tools=[])[1:] == ("unknown_parameter", "tools")
    assert ask([video], n=2)[1:] == ("invalid_value", "n")
    assert ask([video], reflect=True)[1:] == ("invalid_value", "reflect")
    assert ask([video], model="gpt")[:2] == (404, "model_not_found")
    assert error(client.post("/v1/chat/completions", json={"messages": []}))[1] == "invalid_value"


def test_unknown_addresses_and_traversal(api_on):
    client = api_on()
    assert error(client.get("/v1/nothing"))[:2] == (404, "not_found")
    assert error(client.put("/v1/videos"))[:2] == (405, "method_not_allowed")
    assert error(client.get("/v1/videos?limit=0"))[1:] == ("invalid_value", "limit")
    assert error(client.get("/v1/videos?after=video_x"))[1] == "video_not_found"
    assert client.get("/docs").status_code == 404
    secret = client.engine.store.folder / "secret"
    secret.write_text("secret")
    for id in ("..", "%2e%2e", "..%2f..%2fsecret", "....//secret", "video_%00", "%2e%2e%2fsecret", "\u2025"):
        for path in (f"/v1/videos/{id}", f"/v1/videos/{id}/content"):
            for method in ("GET", "DELETE"):
                response = client.request(method, path)
                assert response.status_code in (404, 405) and "secret" not in response.text
    (job,) = client.engine.submit([_film_request()])
    until(lambda: client.engine.store.get(job.id).status == "completed")
    assert error(client.get(f"/v1/videos/{job.id}/content?variant=../../jobs.sqlite"))[1] == "invalid_value"
    assert secret.exists()


def _film_request():
    from unireel.serving.jobs import FilmRequest

    return FilmRequest(STAR, seed=1, frames=1, steps=1, height=48, width=48, fps=8.0)


def test_a_full_queue_waiting_cancelling_and_hanging_up(api_on, watched):
    client = api_on(model=watched, max_queued=2, max_batch=1)
    watched.hold(1)
    running = client.post("/v1/videos", json={"prompt": STAR, "num_frames": 5}).json()
    assert watched.held.wait(PATIENCE)
    queued = client.post("/v1/videos", json={"prompt": STAR, "num_frames": 5}).json()
    urgent = client.post("/v1/videos", json={"prompt": STAR, "num_frames": 5, "priority": 5}).json()
    assert (queued["status"], queued["progress"], queued["queue_position"]) == ("queued", 0, 0)
    assert client.get(f"/v1/videos/{queued['id']}").json()["queue_position"] == 1
    assert client.get(f"/v1/videos/{running['id']}").json()["status"] == "in_progress"
    full = client.post("/v1/videos", json={"prompt": STAR})
    assert error(full)[:2] == (429, "queue_full") and int(full.headers["retry-after"]) >= 1
    with pytest.raises(openai.RateLimitError):
        sdk(client).videos.create(prompt=STAR)
    assert error(client.get(f"/v1/videos/{running['id']}/content"))[:2] == (409, "video_not_ready")
    assert client.delete(f"/v1/videos/{urgent['id']}").json() == {
        "id": urgent["id"],
        "deleted": True,
        "object": "video.deleted",
    }
    # Somebody waits for a film and hangs up: it is not made.
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{client.base_url}/v1/videos/sync", json={"prompt": STAR}, timeout=0.5)
    until(lambda: client.engine.store.count("queued") == 1)
    watched.go.set()
    until(lambda: client.get(f"/v1/videos/{queued['id']}").json()["status"] == "completed")
    assert len(watched.batches) == 2


def test_made_once_for_one_key(api_on, film):
    client = api_on()
    headers = {"Idempotency-Key": "the same"}
    body = {"prompt": STAR, "num_frames": 5}
    first, second = (client.post("/v1/videos", json=body, headers=headers).json() for _ in range(2))
    assert (first["id"], first["seed"]) == (second["id"], second["seed"])
    synced = client.post("/v1/videos/sync", json=body, headers=headers)
    assert synced.headers["x-video-id"] == first["id"] and synced.headers["content-type"] == "video/mp4"
    assert synced.content == client.get(f"/v1/videos/{first['id']}/content").content
    assert error(client.post("/v1/videos", json={"prompt": STAR}, headers=headers))[:2] == (
        409,
        "idempotency_conflict",
    )
    seeds = {client.post("/v1/videos", json=body).json()["seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_failures_tell_clients_nothing_of_the_machine(api_on, watched, caplog):
    client = api_on(model=watched)
    watched.fail_on = STAR
    answer = client.post("/v1/videos/sync", json={"prompt": STAR, "num_frames": 5})
    assert error(answer)[:2] == (500, "generation_failed") and "secret" not in answer.text
    (job,) = client.get("/v1/videos").json()["data"]
    assert job["status"] == "failed" and job["error"]["code"] == "generation_failed"
    assert "secret" not in json.dumps(job)
    with pytest.raises(openai.InternalServerError):
        sdk(client).images.generate(prompt=STAR)


def test_before_the_model_is_there_and_after_it_failed(api_on, served, engine_on):
    go = threading.Event()

    def slow():
        assert go.wait(PATIENCE)
        raise RuntimeError("a secret of this machine")

    client = api_on(wait=False, load=slow)
    assert client.get("/health").status_code == 200
    assert (client.get("/ready").status_code, client.get("/ready").json()) == (503, {"status": "loading"})
    loading = client.post("/v1/videos", json={"prompt": STAR})
    assert error(loading)[:2] == (503, "model_loading") and loading.headers["retry-after"] == "5"
    assert client.get("/v1/videos").json()["data"] == []
    go.set()
    until(lambda: client.get("/ready").json() == {"status": "failed"})
    assert client.get("/health").status_code == 503
    failed = client.get("/v1/models")
    assert error(failed)[:2] == (503, "model_failed") and "secret" not in failed.text


def test_decoders_are_there_before_the_first_upload(api_on):
    def decoders() -> list[psutil.Process]:
        return [
            child
            for child in psutil.Process().children()
            if "unireel.serving.intake.sandbox" in child.cmdline()
        ]

    before = set(decoders())
    client = api_on()
    until(lambda: set(decoders()) - before)
    (process,) = set(decoders()) - before
    files = {"input_reference": ("a.png", png())}
    made = client.post("/v1/videos", data={"prompt": STAR, "num_frames": "5"}, files=files)
    assert made.status_code == 200
    assert set(decoders()) - before == {process}, "the one that was started is the one that decodes"


def test_metrics_and_what_is_logged(api_on, caplog):
    caplog.set_level(logging.INFO, "unireel.serving")
    client = api_on()
    headers = {"Authorization": "Bearer a-private-key", "Idempotency-Key": "a-private-word"}
    client.post("/v1/videos/sync", json={"prompt": STAR, "num_frames": 5}, headers=headers)
    client.get("/v1/nothing/a-private-path?q=a-private-query")
    answer = client.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    values = {
        tuple(sorted(sample.labels.values())): sample.value
        for sample in families["unireel_http_requests"].samples
        if sample.name.endswith("_total")
    }
    assert values[("/v1/videos/sync", "200", "POST")] == 1 and values[("404", "GET", "other")] == 1
    assert families["unireel_content_bytes"].samples[0].value > 1000
    assert {"unireel_jobs", "unireel_batch_size", "unireel_jobs_queued"} <= set(families)
    logged = caplog.text
    assert "POST /v1/videos/sync 200" in logged and answer.headers["x-request-id"] not in answer.text
    for private in ("private", STAR, "127.0.0.1"):
        assert private not in logged


def test_the_description_of_the_api_is_the_one_that_was_agreed(api_on, tmp_path):
    """After a wanted change: copy the file that is named to ``openapi.json`` beside this test."""
    described = api_on().get("/v1/openapi.json").json()
    described["info"].pop("version")
    found = json.dumps(described, indent=1, sort_keys=True) + "\n"
    (tmp_path / "openapi.json").write_text(found)
    assert found == SNAPSHOT.read_text(), f"copy {tmp_path / 'openapi.json'} if this is wanted"
