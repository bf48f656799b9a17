"""``recipes/serve/ray.py`` as it is run: two servers on a local Ray, from their start to their end."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from unireel.serving.replicas.member import number_of

pytest.importorskip("ray.serve", reason="Ray is not installed")

RECIPE = Path(__file__).parents[2] / "recipes" / "serve" / "ray.py"
FILM = {"prompt": "a red star jumps twice", "num_frames": 5, "num_inference_steps": 2}
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
    ids = [cluster.client.post("/v1/videos", json=FILM | {"seed": 5}).json()["id"] for _ in range(2)]
    assert [number_of(id) for id in ids] in ([0, 1], [1, 0])
    films = []
    for id in ids:
        cluster.get(f"/v1/videos/{id}", lambda answer: answer.json().get("status") == "completed")
        films.append(cluster.client.get(f"/v1/videos/{id}/content").content)
    assert films[0] == films[1] and films[0][4:8] == b"ftyp", "the same seed on both"
    assert [each["id"] for each in cluster.client.get("/v1/videos").json()["data"]] == ids[::-1]
    page = cluster.client.get("/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(page)}
    stored = {each.labels["replica"]: each.value for each in families["unireel_content_bytes"].samples}
    assert stored["0"] > 1000 and stored["1"] > 1000

    # Nobody outside this machine can reach any of it.
    assert set().union(*map(_listening, cluster.family())) <= {"127.0.0.1", "::1"}

    # A server that dies is started again, with its jobs; the other one goes on meanwhile.
    cluster.server(number_of(ids[1])).kill()
    assert cluster.client.get(f"/v1/videos/{ids[0]}").status_code == 200
    cluster.get(f"/v1/videos/{ids[1]}", lambda answer: answer.status_code == 200)
    assert cluster.client.get(f"/v1/videos/{ids[1]}/content").content == films[1]


def _listening(process: psutil.Process) -> set[Any]:
    try:
        found = process.net_connections("inet")
    except psutil.Error:
        return set()
    return {each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN}


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
