"""Running the command as a person would: in a process of its own."""

# The words of a command are paths and numbers too; they are made text before it runs.
# pyright: reportArgumentType=false, reportReturnType=false

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unireel.cli.main import main
from unireel.clip import Clip
from unireel.hub import packaged_models
from unireel.world.render import render
from unireel.world.sampling import sample_scene
from unireel.world.scene import Scene

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def unireel(tmp_path: Path) -> Run:
    """``unireel(*words)`` runs the command in an empty folder and returns what it printed."""

    def run(*words: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "unireel", *map(str, words)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """As ``unireel``, but in this process, so that tests which load a model import its libraries only once."""

    def run(*words: object) -> "subprocess.CompletedProcess[str]":
        monkeypatch.chdir(tmp_path)
        capfd.readouterr()
        code = main([str(word) for word in words])
        return subprocess.CompletedProcess(words, code, *capfd.readouterr())

    return run


@pytest.fixture
def fails(unireel: Run) -> Callable[..., str]:
    """``fails(code, *words)`` runs a command that must fail with ``code``; returns its one line."""

    def run(code: int, *words: object) -> str:
        result = unireel(*words)
        assert result.returncode == code, result.stderr
        assert result.stdout == ""
        lines = result.stderr.splitlines()
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("unireel: error: ")
        return lines[0]

    return run


@pytest.fixture(scope="session")
def scene() -> Scene:
    """A scene of the World."""
    return sample_scene(seed=0, index=0, split="test", size=48)


@pytest.fixture(scope="session")
def film(scene: Scene) -> Clip:
    """The film of that scene."""
    return render(scene)


@pytest.fixture
def film_file(film: Clip, tmp_path: Path) -> Path:
    """The same in a file, enlarged eight times, which the reader can undo exactly."""
    return film.save(tmp_path / "film.mp4", scale=8)


@pytest.fixture(scope="session")
def weights() -> str:
    """The name of the packaged model; tests that need it are skipped in a checkout that has no weights."""
    if "pocket/base" not in packaged_models():
        pytest.skip("the weights of pocket/base are not in this checkout")
    return "pocket/base"
