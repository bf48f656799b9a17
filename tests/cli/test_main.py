"""The command itself: help, start-up time, exit codes, and no traceback for anything a person can type."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from unireel.cli.main import COMMANDS
from unireel.version import VERSION

HEAVY = ("torch", "diffusers", "transformers", "numpy", "av", "scipy")


def test_help_lists_every_command(unireel):
    result = unireel("--help")
    assert result.returncode == 0 and result.stderr == ""
    for name, command in COMMANDS.items():
        assert f"    {name} " in result.stdout
        assert command.summary.split(";")[0] in result.stdout


@pytest.mark.parametrize("name", ["generate", "ask", "caption", "demo"])
def test_command_help(unireel, name):
    result = unireel(name, "--help")
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.startswith(f"usage: unireel {name} ")


def test_version(unireel):
    assert unireel("--version").stdout == f"unireel {VERSION}\n"


def test_help_starts_fast():
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "unireel", "--help"], check=True, capture_output=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.3


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(words):
    program = (
        "import sys; from unireel.cli.main import main\n"
        f"try: main({words!r})\n"
        "except SystemExit: pass\n"
        f"print('imported:', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert output.splitlines()[-1].strip() == "imported:"


def test_package_import_is_light():
    check = f"assert not [name for name in {HEAVY!r} if name in sys.modules]"
    program = f"import sys, unireel; {check}; print(dir(unireel))"
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert "'Clip'" in output and "'load'" in output


def test_no_command_prints_help(unireel):
    result = unireel()
    assert result.returncode == 2
    assert result.stdout == "" and "commands:" in result.stderr


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["nonsense"], "no command 'nonsense'"),
        (["generate"], "PROMPT"),
        (["generate", "a red star"], "-o/--output"),
        (["generate", "a red star", "-o", "x.mp4", "--colour"], "--colour"),
        (["ask", "film.mp4"], "QUESTION"),
        (["caption"], "FILM"),
        (["demo", "--out"], "--out"),
    ],
)
def test_usage_errors(fails, words, part):
    assert part in fails(2, *words)


def test_debug_shows_the_traceback(unireel):
    result = unireel("caption", "missing.mp4", "--debug")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("unireel: error: ")


def test_closed_pipe_is_quiet():
    read, write = os.pipe()
    os.close(read)
    program = [sys.executable, "-m", "unireel", "generate", "--help"]
    result = subprocess.run(program, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert result.stderr == ""


def test_interrupt_is_one_line(tmp_path):
    """The model's card is a named pipe that nobody writes to: there the command waits for the interrupt."""
    (tmp_path / "model").mkdir()
    card = tmp_path / "model" / "unireel.json"
    os.mkfifo(card)
    words = ["generate", "a red star", "-o", "star.mp4", "--model", "model"]
    process = subprocess.Popen(
        [sys.executable, "-m", "unireel", *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background ignores interrupts, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    pipe = open_when_read(card, process)
    for _ in range(12):  # a signal that comes just before the wait begins does not end it: once more, then
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
            break
    _, errors = process.communicate(timeout=5)
    os.close(pipe)
    assert process.returncode == 130
    assert errors == "unireel: interrupted\n"


def open_when_read(pipe, process: subprocess.Popen) -> int:
    """Open the writing end of a named pipe as soon as ``process`` reads it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the command never came to read the model's card")
