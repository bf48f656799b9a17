"""What the server bears: many clients at once, and being killed again and again. Loopback only; stops by itself.

    python benchmarks/serving.py load --clients 200 --seconds 60
    python benchmarks/serving.py kill --restarts 50

``load``: clients make films, fetch, list, ask and delete them as fast as they get answers. No answer may be a 5xx or
fail to come, films must end in the order of their arrival, and memory (with that of the decoders) must stay bounded.

``kill``: while films are asked for without pause, the server is killed with SIGKILL at random moments, also while it
starts, and started again. In the end every film that was asked for must be there once, and be byte for byte the film
that the model makes of its seed without any server.

Servers are forked from a process that has loaded the model, so that a restart costs what the server needs and not
what importing a tensor library costs; each is a process of its own with its own database connection and sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import ctypes
import itertools
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

PROMPTS = ("a red star jumps twice", "a blue ring", "two squares", "a green circle moves right")
BAD = {"prompt": "a red qwertz"}
READY_SECONDS = 120.0
PR_SET_PDEATHSIG = 1
"""Linux: what is forked here dies with who forked it."""


# ---------------------------------------------------------------- servers


def forker(model_name: str) -> None:
    """Load the model, then fork a server or a check for each line of the standard input."""
    from unireel.cli.options import quieten_libraries
    from unireel.serving.model import ServedModel

    quieten_libraries()
    import torch

    torch.set_num_threads(1)
    model = ServedModel.load(model_name, "cpu")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("loaded", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            try:
                serve(model, **order) if "port" in order else check_films(model, **order)
            finally:
                os._exit(0)
        print(pid, flush=True)


def serve(model: Any, folder: str, port: int, queue: int, batch: int) -> None:
    """A server on the loopback until it is killed."""
    from unireel.serving.app import create_app
    from unireel.serving.engine import Engine
    from unireel.serving.server import Server, listen
    from unireel.serving.settings import Settings
    from unireel.serving.store import JobStore

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # A job may be killed more often here than a server gives it tries.
    engine = Engine(JobStore(Path(folder), queue, max_attempts=10**6), lambda: model, max_batch=batch)
    settings = Settings()
    server = Server(create_app(engine, settings), engine, settings, "127.0.0.1", port)
    server.run([listen("127.0.0.1", port)])


def check_films(model: Any, folder: str, report: str) -> None:
    """Make every batch again without a server and compare the files; write how many differ."""
    from unireel.serving.content import write_content
    from unireel.serving.store import JobStore

    store = JobStore(Path(folder))
    groups = defaultdict(list)
    for job in store.page(10**6, descending=False)[0]:
        groups[job.batch].append(job)
    different = []
    with tempfile.TemporaryDirectory() as scratch:
        for jobs in groups.values():
            for job, clip in zip(jobs, model.films(jobs, lambda done, total: None), strict=True):
                write_content(Path(scratch), clip, job.request.scale)
                if (Path(scratch) / "film.mp4").read_bytes() != (store.files(job) / "film.mp4").read_bytes():
                    different.append(job.id)
    store.close()
    Path(f"{report}.part").write_text(json.dumps({"groups": len(groups), "different": different}))
    os.replace(f"{report}.part", report)


class Servers:
    """The process that forks, and the server that it forked last."""

    def __init__(self, model: str) -> None:
        command = [sys.executable, __file__, "forker", "--model", model]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        if self._line() != "loaded":
            raise SystemExit("the model cannot be loaded")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.pid = 0

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def order(self, **order: Any) -> int:
        """Fork; returns the process id."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def start(self, folder: Path, queue: int, batch: int, wait: bool = True) -> None:
        """A server on the same port; returns when it is ready, if that is to be waited for."""
        self.pid = self.order(folder=str(folder), port=self.port, queue=queue, batch=batch)
        if not wait:
            return
        end = time.monotonic() + READY_SECONDS
        while True:
            try:
                if httpx.get(f"{self.url}/ready", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if time.monotonic() > end:
                raise SystemExit("the server did not become ready")
            time.sleep(0.1)

    def end(self, how: signal.Signals, seconds: float = 150.0) -> None:
        """Signal the server and wait until it is gone."""
        os.kill(self.pid, how)
        end = time.monotonic() + seconds
        while psutil.pid_exists(self.pid):
            if time.monotonic() > end:
                raise SystemExit(f"the server did not end {seconds:g} s after {how.name}")
            time.sleep(0.01)

    def close(self) -> None:
        """End the forking process, and the server if it still runs."""
        if self.pid and psutil.pid_exists(self.pid):
            os.kill(self.pid, signal.SIGKILL)
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


# ---------------------------------------------------------------- many clients


class Load:
    """Clients that do what clients do until time is up.

    Args:
        patience: seconds beyond that in which the first film must be there.
    """

    def __init__(self, url: str, seconds: float, steps: int, film: bytes, patience: float) -> None:
        self.url, self.steps = url, steps
        self.end = time.monotonic() + seconds
        self.last = self.end + patience
        self.times: dict[str, list[float]] = defaultdict(list)
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []
        self.films = 0
        address = f"data:video/mp4;base64,{base64.b64encode(film).decode()}"
        parts = [
            {"type": "video_url", "video_url": {"url": address}},
            {"type": "text", "text": "what colour is the star ?"},
        ]
        self.question = {"messages": [{"role": "user", "content": parts}]}

    def over(self) -> bool:
        """Whether time is up; on a machine that is busy with other things, not before the first film is there."""
        return time.monotonic() > (self.end if self.films else self.last)

    async def call(
        self,
        client: httpx.AsyncClient,
        what: str,
        expected: Sequence[int],
        method: str,
        path: str,
        **more: Any,
    ) -> httpx.Response:
        """One request, timed and judged; 429 is an answer that clients must expect."""
        start = time.monotonic()
        answer = await client.request(method, path, **more)
        self.times[what].append(time.monotonic() - start)
        self.statuses[answer.status_code] += 1
        if answer.status_code not in (*expected, 429) or answer.status_code >= 500:
            self.wrong.append(f"{what}: {answer.status_code} {answer.text[:200]}")
        if answer.status_code == 429:
            if "retry-after" not in answer.headers:
                self.wrong.append(f"{what}: 429 without Retry-After")
            await asyncio.sleep(random.uniform(0.2, 1.0))
        return answer

    async def client(self, number: int) -> None:
        """One client."""
        rng = random.Random(number)
        # There is no TLS here, and reading the authorities' keys once for each client would take seconds.
        async with httpx.AsyncClient(base_url=self.url, timeout=120, verify=False) as client:
            while not self.over():
                try:
                    await self.something(client, rng)
                except httpx.TransportError as error:
                    self.wrong.append(f"no answer: {type(error).__name__}")
                    await asyncio.sleep(1.0)

    async def something(self, client: httpx.AsyncClient, rng: random.Random) -> None:
        """One of the things that clients do."""
        roll = rng.random()
        if roll < 0.6:
            await self.make(client, rng)
        elif roll < 0.75:
            await self.call(client, "ask", [200], "POST", "/v1/chat/completions", json=self.question)
        elif roll < 0.85:
            await self.call(client, "list", [200], "GET", "/v1/videos?limit=20")
        elif roll < 0.95:
            await self.call(client, "models", [200], "GET", "/v1/models")
        else:
            await self.call(client, "refused", [400], "POST", "/v1/videos", json=BAD)

    async def make(self, client: httpx.AsyncClient, rng: random.Random) -> None:
        """A film from its prompt to its file; one in four is deleted early, one in four at the end."""
        body = {
            "prompt": rng.choice(PROMPTS),
            "num_frames": 5,
            "num_inference_steps": self.steps,
            "seed": rng.randrange(2**31),
        }
        start = time.monotonic()
        made = await self.call(client, "create", [200], "POST", "/v1/videos", json=body)
        if made.status_code != 200:
            return
        path, fate = f"/v1/videos/{made.json()['id']}", rng.random()
        while fate > 0.25:
            job = (await self.call(client, "poll", [200], "GET", path)).json()
            if job["status"] == "failed":
                self.wrong.append(f"a film failed: {job['error']}")
            if job["status"] in ("completed", "failed"):
                break
            if self.over():
                return
            await asyncio.sleep(0.5)
        if fate > 0.25:
            self.times["film, from asking to file"].append(time.monotonic() - start)
            content = await self.call(client, "content", [200], "GET", f"{path}/content")
            self.films += 1
            if content.content[4:8] != b"ftyp":
                self.wrong.append("what came is no mp4")
        if fate < 0.5:
            await self.call(client, "delete", [200], "DELETE", path)


async def watch_memory(pid: int, end: float) -> list[float]:
    """Resident memory of the server and its decoders in MiB, twice a second, until one of the two is over.

    A server that has died has said so to its clients; no more is measured then.
    """
    process, sizes = psutil.Process(pid), []
    with contextlib.suppress(psutil.NoSuchProcess):
        while time.monotonic() < end:
            sizes.append(process.memory_info().rss / 2**20 + decoders_memory(process))
            await asyncio.sleep(0.5)
    return sizes


def decoders_memory(process: psutil.Process) -> float:
    """Resident memory of a server's children in MiB; those that end meanwhile have none."""
    size = 0
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            size += child.memory_info().rss
    return size / 2**20


def out_of_order(folder: Path) -> int:
    """How many finished films ended before one that was asked for earlier."""
    database = sqlite3.connect(folder / "jobs.sqlite")
    rows = database.execute(
        "SELECT sequence FROM jobs WHERE status = 'completed' ORDER BY completed_at, sequence"
    ).fetchall()
    database.close()
    order = [sequence for (sequence,) in rows]
    return sum(later < earlier for earlier, later in itertools.pairwise(order))


def load(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Many clients at once."""
    from unireel.clip import Clip

    film = Clip(np.zeros((5, 48, 48, 3), np.uint8), 8).save(folder / "question.mp4").read_bytes()
    servers = Servers(args.model)
    try:
        servers.start(folder / "jobs", queue=args.queue, batch=args.batch)
        work = Load(servers.url, args.seconds, args.steps, film, args.drain)

        async def everybody() -> list[float]:
            memory = asyncio.create_task(watch_memory(servers.pid, work.end))
            await asyncio.gather(*(work.client(number) for number in range(args.clients)))
            return await memory

        start = time.monotonic()
        memory = asyncio.run(everybody())
        seconds = time.monotonic() - start
        if psutil.pid_exists(servers.pid):
            servers.end(signal.SIGTERM)
        else:
            work.wrong.append("the server has died")
    finally:
        servers.close()
    disorder = out_of_order(folder / "jobs")
    grown = max(memory) - memory[0]
    if not work.films:
        work.wrong.append("not one film was finished")
    if disorder:
        work.wrong.append(f"{disorder} films overtook another")
    if grown > args.memory:
        work.wrong.append(f"memory grew by {grown:.0f} MiB, above {args.memory}")
    requests = sum(work.statuses.values())
    return {
        "clients": args.clients,
        "seconds": round(seconds, 1),
        "requests": requests,
        "requests per second": round(requests / seconds, 1),
        "films": work.films,
        "films per second": round(work.films / seconds, 2),
        "statuses": dict(sorted(work.statuses.items())),
        "memory MiB first, peak, last": [round(each) for each in (memory[0], max(memory), memory[-1])],
        "milliseconds p50, p95, p99": {
            name: [round(1000 * float(each)) for each in np.percentile(times, (50, 95, 99))]
            for name, times in sorted(work.times.items())
        },
        "wrong": work.wrong[:20],
    }


# ---------------------------------------------------------------- killing


async def ask_without_pause(
    url: str, over: asyncio.Event, done: dict[str, str], number: int, steps: int
) -> None:
    """Ask for films, each with its key until it is acknowledged, through any number of deaths of the server."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        for count in itertools.count():
            key = f"{number}-{count}"
            body = {"prompt": PROMPTS[count % 4], "num_frames": 5, "num_inference_steps": steps}
            while key not in done:
                if over.is_set():
                    return
                try:
                    answer = await client.post("/v1/videos", json=body, headers={"Idempotency-Key": key})
                except httpx.TransportError:
                    await asyncio.sleep(0.2)
                    continue
                if answer.status_code == 200:
                    done[key] = answer.json()["id"]
                elif answer.status_code in (429, 503):
                    await asyncio.sleep(0.5)
                else:
                    raise SystemExit(f"{answer.status_code} {answer.text}")


def kill(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Deaths at random moments."""
    rng = random.Random(args.seed)
    servers, jobs = Servers(args.model), folder / "jobs"
    done: dict[str, str] = {}
    start = time.monotonic()

    async def deaths() -> None:
        """Kill and start again while three clients ask."""
        over = asyncio.Event()
        clients = [ask_without_pause(servers.url, over, done, number, args.steps) for number in range(3)]
        asking = asyncio.gather(*clients)
        for _ in range(args.restarts):
            starting = rng.random() < 0.25
            await asyncio.to_thread(servers.start, jobs, args.queue, args.batch, not starting)
            await asyncio.sleep(rng.uniform(0, args.window / 4 if starting else args.window))
            await asyncio.to_thread(servers.end, signal.SIGKILL)
        over.set()
        await asking

    try:
        asyncio.run(deaths())
        servers.start(jobs, args.queue, args.batch)
        wait_until_idle(servers.url, args.drain)
        servers.end(signal.SIGTERM)
        report = folder / "report.json"
        servers.order(folder=str(jobs), report=str(report))
        end = time.monotonic() + args.drain
        while not report.exists():
            if time.monotonic() > end:
                raise SystemExit("the films could not be checked in time")
            time.sleep(0.1)
    finally:
        servers.close()
    found = json.loads(report.read_text())
    return {
        **judge(jobs, done, found),
        "restarts": args.restarts,
        "seconds": round(time.monotonic() - start, 1),
    }


def wait_until_idle(url: str, seconds: float) -> None:
    """Until nothing waits or runs."""
    end = time.monotonic() + seconds
    while True:
        newest = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()
        left = [
            float(line.split()[-1])
            for line in newest
            if line.startswith(("unireel_jobs_queued ", "unireel_jobs_running "))
        ]
        if len(left) == 2 and not sum(left):
            return
        if time.monotonic() > end:
            raise SystemExit(f"{left} jobs are left after {seconds:g} s")
        time.sleep(0.2)


def judge(jobs: Path, done: dict[str, str], found: dict[str, Any]) -> dict[str, Any]:
    """Every acknowledged key has one completed job with one film, and there is no other."""
    database = sqlite3.connect(jobs / "jobs.sqlite")
    rows = database.execute("SELECT key, id, status, attempts FROM jobs").fetchall()
    database.close()
    completed = {key: id for key, id, status, _ in rows if status == "completed"}
    films = {entry.name for entry in (jobs / "content").iterdir()}
    wrong = [f"lost: {key}" for key, id in done.items() if completed.get(key) != id]
    wrong += [f"not completed: {id} {status}" for _, id, status, _ in rows if status != "completed"]
    wrong += [f"no film, or one without a job: {id}" for id in films ^ set(completed.values())]
    wrong += [f"another film than without a server: {id}" for id in found["different"]]
    return {
        "jobs": len(rows),
        "acknowledged": len(done),
        "started more than once": sum(attempts > 1 for *_, attempts in rows),
        "most starts of one": max((attempts for *_, attempts in rows), default=0),
        "batches made again and compared": found["groups"],
        "wrong": wrong[:20],
    }


def main() -> int:
    """Run one benchmark; prints JSON; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("load", "kill", "forker"))
    parser.add_argument("--model", default="pocket/base")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--restarts", type=int, default=50)
    parser.add_argument("--window", type=float, default=3.0, help="seconds between ready and the latest kill")
    parser.add_argument("--drain", type=float, default=600, help="seconds to work off what waits at the end")
    parser.add_argument("--steps", type=int, default=2, help="of the sampler")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--queue", type=int, default=64)
    # It is first measured before the first film: what a batch of films and one of answers takes comes on top.
    parser.add_argument("--memory", type=float, default=1024, help="MiB that the server may grow by")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.what == "forker":
        forker(args.model)
        return 0
    with tempfile.TemporaryDirectory(prefix="unireel-serving-") as folder:
        result = (load if args.what == "load" else kill)(args, Path(folder))
    print(json.dumps(result, indent=2))
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
