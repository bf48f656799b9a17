"""Two real servers behind one front: every request finds the server that holds what it names."""

# OpenAI's client types sizes and lengths of OpenAI's own models; an application's life may be replaced.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import asyncio
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from unireel.serving.jobs import FilmRequest, new_id
from unireel.serving.model import ServedModel
from unireel.serving.replicas import Away, Member, Passed, Spec, create_front
from unireel.serving.replicas.front import labelled
from unireel.serving.replicas.member import number_of
from unireel.serving.settings import Settings

STAR = "a red star jumps twice"
FILM = {"prompt": STAR, "num_frames": 5, "num_inference_steps": 2}
PATIENCE = 120.0
"""Seconds after which a test is broken rather than slow."""


class Reached:
    """A member that a test can take away."""

    def __init__(self, member: Member) -> None:
        self.member, self.away = member, False
        self.hung_up = 0

    def __getattr__(self, name: str) -> Any:
        async def call(*values: Any) -> Any:
            if self.away:
                raise Away
            return await getattr(self.member, name)(*values)

        return call

    async def answer(self, request: Passed) -> Any:
        if self.away:
            raise Away
        messages = self.member.answer(request)
        ended = False
        try:
            async for message in messages:
                yield message
            ended = True
        finally:
            self.hung_up += not ended
            await messages.aclose()


class House:
    """A front on the loopback, and the members behind it."""

    def __init__(self, client: httpx.Client, replicas: list[Reached]) -> None:
        self.client, self.replicas = client, replicas

    def engine(self, number: int) -> Any:
        return self.replicas[number].member.engine


@pytest.fixture
def house_of(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """``house_of(model, ...)`` puts members with these models behind a front."""
    running: list[tuple[uvicorn.Server, threading.Thread, httpx.Client]] = []

    def build(*models: ServedModel, settings: Settings | None = None, queue: int = 64) -> House:
        settings = settings or Settings()
        spec = Spec("untrained", "cpu", tmp_path / "jobs", queue=queue, grace=1.0, settings=settings)
        members = [Member(spec, number, lambda model=model: model) for number, model in enumerate(models)]
        replicas = [Reached(member) for member in members]
        front = create_front(replicas, settings)

        @asynccontextmanager
        async def life(app: Any) -> AsyncIterator[None]:
            async with AsyncExitStack() as stack:
                for member in members:
                    await member.start()
                    stack.push_async_callback(member.stop)
                await stack.enter_async_context(watching(app))
                yield

        watching, front.router.lifespan_context = front.router.lifespan_context, life
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(front, log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=PATIENCE)
        running.append((server, thread, client))
        until(lambda: server.started and all(member.engine.state == "ready" for member in members))
        return House(client, replicas)

    yield build
    for server, thread, client in running:
        client.close()
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture
def house(house_of: Callable[..., House], served: ServedModel) -> House:
    return house_of(served, served)


def until(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_id_names_its_server():
    for number in (0, 1, 63):
        assert number_of(new_id(f"{number:04x}")) == number
    assert len({new_id("0001") for _ in range(100)}) == 100


def test_films_are_found_wherever_they_are(house, served, tmp_path):
    ai = openai.OpenAI(base_url=f"{house.client.base_url}/v1", api_key="none", max_retries=0)
    films = [
        ai.videos.create_and_poll(prompt=STAR, seconds="1", size="48x48", extra_body={"seed": seed})
        for seed in range(4)
    ]
    assert [number_of(film.id) for film in films] == [0, 1, 0, 1], "in turn"
    for seed, film in enumerate(films):
        ai.videos.download_content(film.id).write_to_file(tmp_path / "ours.mp4")
        served.pipeline.generate(STAR, seed=seed, frames=9).save(tmp_path / "alone.mp4", scale=1)
        assert (tmp_path / "ours.mp4").read_bytes() == (tmp_path / "alone.mp4").read_bytes()
    assert ai.videos.delete(films[1].id).deleted
    with pytest.raises(openai.NotFoundError, match="no video of that id"):
        ai.videos.retrieve(films[1].id)
    for nobody in (new_id("0000"), new_id("0001"), new_id("00ff")):
        with pytest.raises(openai.NotFoundError, match="no video of that id"):
            ai.videos.retrieve(nobody)


def test_one_list_of_all_jobs(house):
    made = [house.client.post("/v1/videos", json=FILM).json()["id"] for _ in range(7)]
    for order, expected in (("desc", made[::-1]), ("asc", made)):
        for limit in (1, 2, 3, 7, 20):
            found, after = [], {}
            for _ in range(20):
                page = house.client.get("/v1/videos", params={"limit": limit, "order": order, **after}).json()
                found += [each["id"] for each in page["data"]]
                assert page["last_id"] == found[-1]
                if not page["has_more"]:
                    break
                after = {"after": found[-1]}
            assert found == expected, (order, limit)
    for query in ("limit=0", "order=up"):
        assert house.client.get(f"/v1/videos?{query}").json()["error"]["code"] == "invalid_value"
    for after in (new_id("0001"), new_id("00ff"), "video_x"):
        missing = house.client.get("/v1/videos", params={"after": after})
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "video_not_found")


def test_jobs_of_one_moment_are_listed_once(house):
    request = FilmRequest(STAR, seed=1, frames=1, steps=1, height=48, width=48, fps=8.0)
    made = []
    for moment in (1000.0, 1000.0, 1001.0):
        for number in (0, 1, 1):
            store = house.engine(number).store
            store.clock = lambda moment=moment: moment
            made += [job.id for job in store.submit([request])]
            del store.clock
            store.clock = time.time
    found, after = [], {}
    while True:
        page = house.client.get("/v1/videos", params={"limit": 2, "order": "asc", **after}).json()
        found += [each["id"] for each in page["data"]]
        if not page["has_more"]:
            break
        after = {"after": found[-1]}
    assert sorted(found) == sorted(made) and len(found) == 9


def test_the_same_key_makes_the_same_job_only_once(house):
    for key in ("a", "b", "c", "d", "e"):
        headers = {"Idempotency-Key": key}
        ids = {house.client.post("/v1/videos", json=FILM, headers=headers).json()["id"] for _ in range(3)}
        assert len(ids) == 1


def test_a_full_server_is_passed_over(house_of, watched, served):
    other = type(watched)(served)
    house = house_of(watched, other, queue=1)
    for model in (watched, other):
        model.hold(1)
        house.client.post("/v1/videos", json=FILM)
        assert model.held.wait(PATIENCE)
    assert {number_of(house.client.post("/v1/videos", json=FILM).json()["id"]) for _ in range(2)} == {0, 1}
    full = house.client.post("/v1/videos", json=FILM)
    assert (full.status_code, full.json()["error"]["code"]) == (429, "queue_full")
    (waiting,) = house.engine(1).store._select("status = 'queued'")
    house.client.delete(f"/v1/videos/{waiting.id}")
    taken = [house.client.post("/v1/videos", json=FILM) for _ in range(2)]
    assert sorted(each.status_code for each in taken) == [200, 429], "whoever's turn it was"
    # Somebody waits for a film and hangs up; the server that makes it hears of it.
    for model in (watched, other):
        model.go.set()
    until(lambda: all(house.engine(number).store.count("queued") == 0 for number in (0, 1)))


def test_who_hangs_up_is_gone_for_the_server_too(house_of, watched):
    house = house_of(watched)
    watched.hold(1)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{house.client.base_url}/v1/videos/sync", json=FILM, timeout=3.0)
    until(lambda: house.replicas[0].hung_up == 1)
    until(lambda: house.client.get("/v1/videos").json()["data"] == [])
    watched.go.set()


def test_a_server_that_is_away(house):
    ids = [house.client.post("/v1/videos", json=FILM).json()["id"] for _ in range(2)]
    until(lambda: all(house.engine(number).store.count("completed") == 1 for number in (0, 1)))
    house.replicas[1].away = True
    for _ in range(4):  # also before it is noticed
        assert house.client.post("/v1/videos", json=FILM).status_code == 200
    assert house.client.get("/ready").status_code == house.client.get("/v1/models").status_code == 200
    assert house.client.get(f"/v1/videos/{ids[0]}").status_code == 200
    for path in (f"/v1/videos/{ids[1]}", "/v1/videos"):
        answer = house.client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unreachable"), path
        assert answer.headers["retry-after"] == "5"
    house.replicas[1].away = False
    until(lambda: house.client.get("/v1/videos").status_code == 200)
    assert house.client.get(f"/v1/videos/{ids[1]}/content").status_code == 200


def test_without_the_key_nothing_comes_through(house_of, served):
    house = house_of(served, settings=Settings(api_key="secret", max_body=10_000))
    key = {"Authorization": "Bearer secret"}
    for path in ("/v1/videos", "/v1/models", "/metrics", "/v1/openapi.json"):
        assert house.client.get(path).status_code == 401
        answer = house.client.get(path, headers=key)
        assert answer.status_code == 200 and len(answer.headers.get_list("x-request-id")) == 1
    assert (
        house.client.post("/v1/videos", json=FILM, headers={**key, "Origin": "http://evil"}).status_code
        == 403
    )
    large = house.client.post("/v1/videos", json={"prompt": "x" * 20_000}, headers=key)
    assert large.json()["error"]["code"] == "body_too_large"
    assert house.client.get("/health").json() == {"status": "ok"}


def test_figures_of_all_on_one_page(house):
    house.client.post("/v1/videos/sync", json=FILM)

    def figures() -> tuple[str, dict[str, Any]]:
        page = house.client.get("/metrics").text
        return page, {family.name: family for family in text_string_to_metric_families(page)}

    def seen() -> set[str]:
        return {sample.labels["replica"] for sample in figures()[1]["unireel_http_requests"].samples}

    until(lambda: seen() >= {"front", "0"})  # requests are counted when they have ended
    page, families = figures()
    assert len(re.findall("# HELP unireel_jobs_queued ", page)) == 1
    stored = {each.labels["replica"]: each.value for each in families["unireel_content_bytes"].samples}
    assert stored["0"] > 1000 and stored["1"] == 0
    assert b'x_total{replica="a"} 1.0' in labelled({"a": "# TYPE x counter\nx_total 1\n"})


def test_streams_come_piece_by_piece(house, tmp_path):
    """What the member has sent is there before its answer is complete."""
    from unireel.serving.replicas.passing import answer

    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await go.wait()
        await send({"type": "http.response.body", "body": b"two"})

    async def read() -> list[Any]:
        messages = answer(app, Passed("GET", "/"))
        heads = [await anext(messages), await anext(messages)]
        go.set()
        return heads + [message async for message in messages]

    assert [each.get("body") for each in asyncio.run(read())] == [None, b"one", b"two"]
