"""``unireel serve`` as a process, and small versions of ``benchmarks/serving.py``."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from unireel.cli.main import main
from unireel.errors import UsageError

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "serving.py"
PATIENCE = 900.0


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["--host", "0.0.0.0"], "on 0.0.0.0 others can come: name the variable of a key", 2),
        (["--api-key-env", "UNIREEL_NO_SUCH_KEY"], "UNIREEL_NO_SUCH_KEY holds no key", 2),
        (["--model", "pocket/none"], "there is no model 'pocket/none'", 1),
        (["--host", "192.0.2.1", "--open"], "cannot listen on 192.0.2.1:8000", 1),
        (["--allow-remote", "https://x/"], "remote host 'https://x/'", 2),
        (["--batch", "0"], "0 is outside 1 to 256", 2),
        (["--jobs", "/proc/none"], "cannot use /proc/none for jobs", 1),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(words, message, code, tmp_path, capsys):
    jobs = ["--no-page"] if "--jobs" in words else ["--no-page", "--jobs", str(tmp_path / "jobs")]
    assert main(["serve", *words, *jobs]) == code
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert UsageError.exit_code == 2


def test_without_its_libraries(tmp_path):
    code = (
        "import sys; sys.modules['fastapi'] = None\n"
        f"from unireel.cli.main import main; sys.exit(main(['serve', '--jobs', {str(tmp_path / 'jobs')!r}]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr == (
        "unireel: error: serving needs fastapi, which is not installed: pip install 'unireel[serve]'\n"
    )


def test_a_server_from_its_start_to_its_stop(untrained, tmp_path):
    command = [sys.executable, "-m", "unireel", "serve", "--model", str(untrained), "--no-page"]
    command += ["--port", "0", "--jobs", str(tmp_path / "jobs"), "--api-key-env", "KEY", "--grace", "5"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=os.environ | {"KEY": "secret-key"}, **pipes) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert found, said
            # The port answers before the model is there.
            retrying = httpx.HTTPTransport(retries=10)  # the address is said just before the port is open
            with httpx.Client(transport=retrying, timeout=PATIENCE) as client:
                assert client.get(f"{found[0]}/health").status_code == 200
            assert httpx.get(f"{found[0]}/v1/models", timeout=PATIENCE).status_code == 401
        finally:
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert "GET /health 200" in err and "Traceback" not in err
    assert out == "" and "secret-key" not in err


def measured(*words: str, model: Path) -> dict:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, str(BENCHMARK), *words, "--model", str(model)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment,
    )
    assert run.returncode in (0, 1), run.stderr
    result = json.loads(run.stdout)
    assert result["wrong"] == [] and run.returncode == 0
    return result


def test_many_clients_at_once(untrained):
    result = measured("load", "--clients", "24", "--seconds", "5", "--queue", "8", model=untrained)
    assert result["films"] > 0 and set(result["statuses"]) <= {"200", "400", "429"}


def test_killed_again_and_again(untrained):
    words = ("--restarts", "6", "--window", "0.7", "--queue", "12")
    result = measured("kill", *words, model=untrained)
    assert result["restarts"] == 6 and result["acknowledged"] > 0
    assert result["batches made again and compared"] > 0
