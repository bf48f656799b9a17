"""``recipes/serve/ray.py`` as it is run: two servers on a local Ray, from their start to their end."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from unireel.serving.replicas import Passed
from unireel.serving.replicas.member import number_of

serve = pytest.importorskip("ray.serve", reason="Ray is not installed")

RECIPE = Path(__file__).parents[2] / "recipes" / "serve" / "ray.py"
FILM = {"prompt": "a red star jumps twice", "num_frames": 5, "num_inference_steps": 2}
LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
PATIENCE = 900.0
"""Seconds after which a test is broken rather than slow."""


class Cluster:
    """The recipe's process, everything that it has started, and a client."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def server(self, number: int) -> psutil.Process:
        """The process of the server of that number."""
        name = f"server-{number}"
        return next(each for each in self.family() if "ServeReplica" in each.name() + _words(each)
                    and name in _words(each))  # fmt: skip

    def get(self, path: str, until: Callable[[httpx.Response], bool]) -> httpx.Response:
        """What is at ``path``, once it is as wanted."""
        end = time.monotonic() + PATIENCE
        while not until(found := self.client.get(path)):
            assert time.monotonic() < end and self.process.poll() is None, found.text
            time.sleep(0.2)
        return found


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.fixture
def cluster(untrained: Path, tmp_path: Path) -> Iterator[Cluster]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = [
        "--replicas",
        "2",
        "--model",
        str(untrained),
        "--device",
        "cpu",
        "--port",
        str(port),
        "--grace",
        "2",
    ]
    command = [sys.executable, str(RECIPE), *words, "--jobs", str(tmp_path / "jobs")]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True)
    try:
        end = time.monotonic() + PATIENCE
        while "on http://127.0.0.1" not in (said := (tmp_path / "log").read_text()):
            assert process.poll() is None and time.monotonic() < end, said
            time.sleep(0.2)
        yield Cluster(process, port)
    finally:
        left = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        _, alive = psutil.wait_procs(left, 30)
        for each in alive:
            each.kill()
    assert process.returncode == 0, (tmp_path / "log").read_text()
    assert not alive, "nothing is left behind"


def test_two_servers(cluster: Cluster) -> None:
    cluster.get("/ready", lambda answer: answer.status_code == 200)
    made: dict[int, str] = {}
    end = time.monotonic() + PATIENCE
    while made.keys() != {0, 1}:  # while one of them loads its model, all go to the other
        assert time.monotonic() < end
        answer = cluster.client.post("/v1/videos", json=FILM | {"seed": 5})
        if answer.status_code == 200:
            made.setdefault(number_of(answer.json()["id"]), answer.json()["id"])
        time.sleep(0.5)
    ids = [made[0], made[1]]
    films = []
    for id in ids:
        cluster.get(f"/v1/videos/{id}", lambda answer: answer.json().get("status") == "completed")
        films.append(cluster.client.get(f"/v1/videos/{id}/content").content)
    assert films[0] == films[1] and films[0][4:8] == b"ftyp", "the same seed on both"
    listed = cluster.client.get("/v1/videos?limit=100").json()["data"]
    assert {number_of(each["id"]) for each in listed} == {0, 1}
    page = cluster.client.get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(page)}
    stored = {each.labels["replica"]: each.value for each in families["unireel_content_bytes"].samples}
    assert stored["0"] > 1000 and stored["1"] > 1000

    # All is on the loopback but the one port that Ray Serve opens in each of its three replicas.
    open_to_others = [
        _words(process) for process in cluster.family() for ip in _listening(process) if ip not in LOOPBACK
    ]
    assert len(open_to_others) <= 3 and all("ServeReplica" in words for words in open_to_others), (
        open_to_others
    )

    # A server that dies is started again, with its jobs; the other one goes on meanwhile.
    cluster.server(number_of(ids[1])).kill()
    assert cluster.client.get(f"/v1/videos/{ids[0]}").status_code == 200
    cluster.get(f"/v1/videos/{ids[1]}", lambda answer: answer.status_code == 200)
    assert cluster.client.get(f"/v1/videos/{ids[1]}/content").content == films[1]


def _listening(process: psutil.Process) -> list[str]:
    """Addresses that a process listens on, one for each port."""
    try:
        found = process.net_connections("inet")
    except psutil.Error:
        return []
    return [each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN]


def test_deployments_in_one_process(untrained: Path, tmp_path: Path) -> None:
    """What Ray calls and what calls Ray, in Ray's mode for tests, which starts no processes."""
    from unireel.serving.replicas import Spec, create_front
    from unireel.serving.replicas.on_ray import Remote, Server

    spec = Spec(str(untrained), "cpu", tmp_path / "jobs", grace=1.0)
    remotes = []
    for number in range(2):
        server = serve.deployment(Server).options(name=f"server-{number}").bind(spec, number)
        options = {"name": f"server-{number}", "route_prefix": f"/{number}", "_local_testing_mode": True}
        remotes.append(Remote(serve.run(server, **options)))
        # One after the other: transformers cannot load two models in two threads of one process.
        end = time.monotonic() + PATIENCE
        while asyncio.run(remotes[-1].state()) == "loading":
            assert time.monotonic() < end
            time.sleep(0.1)

    async def visit() -> None:
        front = httpx.ASGITransport(create_front(remotes, spec.settings))
        async with httpx.AsyncClient(transport=front, base_url="http://127.0.0.1") as client:

            async def until(path: str, wanted: Callable[[httpx.Response], bool]) -> None:
                end = time.monotonic() + PATIENCE
                while not wanted(found := await client.get(path)):
                    assert time.monotonic() < end, found.text
                    await asyncio.sleep(0.1)

            ids = [(await client.post("/v1/videos", json=FILM)).json()["id"] for _ in range(2)]
            assert [number_of(id) for id in ids] == [0, 1]
            for id in ids:
                await until(f"/v1/videos/{id}", lambda answer: answer.json()["status"] == "completed")
                assert (await client.get(f"/v1/videos/{id}/content")).content[4:8] == b"ftyp"
            listed = [each["id"] for each in (await client.get("/v1/videos?limit=1")).json()["data"]]
            listed += [
                each["id"] for each in (await client.get(f"/v1/videos?after={listed[0]}")).json()["data"]
            ]
            assert listed == ids[::-1]
            assert 'unireel_jobs_queued{replica="1"} 0.0' in (await client.get("/metrics")).text
            assert (await client.delete(f"/v1/videos/{ids[1]}")).json()["deleted"]
            assert (await client.get(f"/v1/videos/{ids[1]}")).status_code == 404
            with pytest.raises(StopAsyncIteration):
                early = remotes[0].answer(Passed("GET", f"/v1/videos/{ids[0]}/content"))
                assert (await anext(early))["status"] == 200
                await early.aclose()
                await anext(early)

    asyncio.run(visit())


def test_what_cannot_be_served_is_said_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(RECIPE), "--jobs", str(tmp_path)]
    for words, message, code in (
        (["--host", "0.0.0.0"], "on 0.0.0.0 others can come", 2),
        (["--model", "pocket/none"], "there is no model 'pocket/none'", 1),
        (["--replicas", "0"], "0 is outside 1 to 64", 2),
    ):
        run = subprocess.run(
            [*command, *words], capture_output=True, text=True, timeout=PATIENCE, env=os.environ
        )
        assert run.returncode == code and message in run.stderr and "Traceback" not in run.stderr
