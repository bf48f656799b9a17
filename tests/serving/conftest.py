"""An engine on a real, tiny, untrained model: what a server does does not depend on what the model knows."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unireel.serving.engine import Engine
from unireel.serving.model import ServedModel
from unireel.serving.store import JobStore


@pytest.fixture(scope="session")
def served(untrained: Path) -> ServedModel:
    """The model, loaded once."""
    return ServedModel.load(str(untrained), "cpu")


@pytest.fixture
def engine_on(served: ServedModel, tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """``engine_on(**options)`` makes an engine (not started) on ``tmp_path / "jobs"``; all are stopped at the end."""
    engines: list[Engine] = []

    def make(model: ServedModel = served, folder: Path = tmp_path / "jobs", **options: Any) -> Engine:
        limits = {name: options.pop(name) for name in ("max_queued", "quota") if name in options}
        engines.append(Engine(JobStore(folder, **limits), lambda: model, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.stop(0.0)
