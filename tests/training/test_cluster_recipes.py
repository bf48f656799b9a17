"""The recipe for Slurm starts a real training, passes Slurm's signal on and queues again; SkyPilot's is whole.

There is no Slurm here: ``srun`` and ``scontrol`` are scripts of two lines that do on this machine what a cluster of one
node does. torchrun, the trainer and the signals are real.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from processes import environment, wait_for_checkpoint

from conftest import final
from unireel.config import to_dict

RECIPES = Path(__file__).parents[2] / "recipes" / "scale"
SRUN = '#!/bin/sh\nshift\nexec "$@"\n'
SCONTROL = '#!/bin/sh\n[ "$1" = show ] && echo 127.0.0.1 || echo "$@" >> "$REQUEUED"\n'


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> dict[str, str]:
    """The environment of a job on the first and only node, which has two devices."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    job = {"SLURM_JOB_NODELIST": "node", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_ID": "7"}
    own = {"PATH": path, "PORT": str(port), "REQUEUED": str(tmp_path / "requeued")}
    return {**environment(), **job, **own}


def write(settings, folder: Path) -> str:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(to_dict(settings)))
    return str(path)


def test_slurm_runs_a_training_to_its_end(recipe, tmp_path, cluster):
    settings = recipe("run", steps=4)
    words = ["bash", str(RECIPES / "slurm.sh"), write(settings, tmp_path), "log_every=2"]
    done = subprocess.run(words, env=cluster, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert final(settings).step == 4 and "2 x cpu" in done.stdout + done.stderr
    assert not Path(cluster["REQUEUED"]).exists()


def test_slurms_signal_leaves_a_checkpoint_and_queues_again(recipe, tmp_path, cluster):
    settings = recipe("run", steps=1000, checkpoint_every=2, stage_config={"pause": 0.02})
    with (tmp_path / "log").open("wb") as log:
        words = ["bash", str(RECIPES / "slurm.sh"), write(settings, tmp_path)]
        process = subprocess.Popen(words, env=cluster, stdout=log, stderr=log, start_new_session=True)
    try:
        step = wait_for_checkpoint(settings)
        process.terminate()
        assert process.wait(timeout=60) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert final(settings).step >= step
    assert Path(cluster["REQUEUED"]).read_text().split() == ["requeue", "7"]


def test_a_training_that_fails_is_not_queued_again(recipe, tmp_path, cluster):
    words = ["bash", str(RECIPES / "slurm.sh"), write(recipe("run"), tmp_path), "no_such_key=1"]
    done = subprocess.run(words, env=cluster | {"RESTARTS": "0"}, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "no_such_key" in done.stderr
    assert not Path(cluster["REQUEUED"]).exists()


def test_skypilots_task_runs_what_exists():
    task = yaml.safe_load((RECIPES / "skypilot.yaml").read_text())
    assert {"num_nodes", "resources", "envs", "setup", "run"} <= task.keys()
    assert (RECIPES.parents[1] / task["envs"]["RECIPE"]).is_file()
    assert "-m unireel.cli.main train" in task["run"] and "constraints.txt" in task["setup"]
    for script in (task["setup"], task["run"]):
        checked = subprocess.run([shutil.which("bash") or "bash", "-n"], input=script, text=True)
        assert checked.returncode == 0
