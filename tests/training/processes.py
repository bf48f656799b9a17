"""Runs in processes of their own, which a test may kill.

They are forked from a server that has torch loaded and has computed nothing: starting one costs no imports, and none
of the test's own threads or gradients come along.
"""

import multiprocessing
import os
import socket
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from unireel.training import Recipe
from unireel.training import checkpoint as checkpoints

HERE = Path(__file__).parent
SOURCE = HERE.parent.parent / "src"
QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MKL_NUM_THREADS": "1"}


def environment() -> dict[str, str]:
    """The environment in which another process finds the package and the stages."""
    path = os.pathsep.join([str(SOURCE), str(HERE), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, **QUIET, "PYTHONPATH": path}


def member(recipe: Recipe, log: str, variables: dict[str, str]) -> None:
    """Body of one process: its messages into ``log``, then the run."""
    import torch

    from unireel.training import run

    os.environ.update(variables)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 2)
    torch.set_num_threads(1)
    run(recipe)


def start(recipe: Recipe, processes: int = 1) -> list[BaseProcess]:
    """Start a run in as many processes, which know of each other as torchrun's would; see :func:`logs`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["processes", "stages", "film_stage", "unireel.training.sharded", "torch.distributed.fsdp"]
    )
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = environment()["PYTHONPATH"]  # the server is started with the first process
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        started = []
        for rank in range(processes):
            variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            log = f"{recipe.output}.{rank}.log"
            started.append(context.Process(target=member, args=(recipe, log, variables)))
            started[-1].start()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return started


def logs(recipe: Recipe) -> str:
    """What the processes of a run said."""
    return "\n".join(
        path.read_text() for path in sorted(recipe.output.parent.glob(f"{recipe.output.name}.*.log"))
    )


def finish(recipe: Recipe, processes: int = 1) -> None:
    """Run to the end."""
    started = start(recipe, processes)
    try:
        for process in started:
            process.join(300)
        assert [process.exitcode for process in started] == [0] * processes, logs(recipe)
    finally:
        kill(started)


def kill(started: list[BaseProcess]) -> None:
    """SIGKILL every process that still lives."""
    for process in started:
        process.kill()
    for process in started:
        process.join()


def kill_after_checkpoint(recipe: Recipe, started: list[BaseProcess], seconds: float = 0.1) -> int:
    """SIGKILL every process of a run some time after its first checkpoint; the step of that checkpoint."""
    try:
        step = wait_for_checkpoint(recipe, started)
        time.sleep(seconds)
    finally:
        kill(started)
    return step


def wait_for_checkpoint(recipe: Recipe, started: Sequence[BaseProcess] = (), seconds: float = 300) -> int:
    """Wait until a run has written a checkpoint; its step."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = checkpoints.found(recipe.output / "checkpoints")
        if found:
            return found[-1][0]
        assert all(process.is_alive() for process in started), logs(recipe)
        time.sleep(0.005)
    raise AssertionError("no checkpoint in time: " + logs(recipe))
