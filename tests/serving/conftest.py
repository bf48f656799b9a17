"""An engine on a real, tiny, untrained model: what a server does does not depend on what the model knows."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from unireel.serving.app import create_app
from unireel.serving.engine import Engine
from unireel.serving.model import ServedModel
from unireel.serving.server import Server, listen
from unireel.serving.settings import Settings
from unireel.serving.store import JobStore

PATIENCE = 120.0
"""Seconds after which a test is broken rather than slow."""


class Watched(ServedModel):
    """The model, whose steps a test can watch and hold."""

    def __init__(self, served: ServedModel) -> None:
        super().__init__(served.pipeline, served.name, served.folder)
        self.batches: list[list[str]] = []
        self.held = threading.Event()
        self.go = threading.Event()
        self.hold_at: int | None = None
        self.fail_on: str | None = None

    def hold(self, step: int) -> None:
        """Stop at ``step`` until :attr:`go` is set; :attr:`held` says that it has."""
        self.hold_at = step
        self.held.clear()
        self.go.clear()

    def films(self, jobs, progress):
        self.batches.append([job.id for job in jobs])
        if self.fail_on in [job.request.prompt for job in jobs]:
            raise RuntimeError("a secret of this machine")

        def step(done: int, total: int) -> None:
            if done == self.hold_at:
                self.hold_at = None
                self.held.set()
                assert self.go.wait(PATIENCE)
            progress(done, total)

        return super().films(jobs, step)


@pytest.fixture(scope="session")
def served(untrained: Path) -> ServedModel:
    """The model, loaded once."""
    return ServedModel.load(str(untrained), "cpu")


@pytest.fixture
def watched(served: ServedModel) -> Watched:
    return Watched(served)


@pytest.fixture
def engine_on(served: ServedModel, tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """``engine_on(**options)`` makes an engine (not started) on ``tmp_path / "jobs"``; all are stopped at the end."""
    engines: list[Engine] = []

    def make(model: ServedModel = served, folder: Path = tmp_path / "jobs", **options: Any) -> Engine:
        limits = {name: options.pop(name) for name in ("max_queued", "quota") if name in options}
        load = options.pop("load", lambda: model)
        engines.append(Engine(JobStore(folder, **limits), load, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.stop(0.0)


@pytest.fixture
def api_on(engine_on: Callable[..., Engine]) -> Iterator[Callable[..., httpx.Client]]:
    """``api_on(settings, **options of engine_on)`` serves on the loopback; returns a client whose ``engine`` it is."""
    running: list[tuple[Server, threading.Thread, httpx.Client]] = []

    def serve(
        settings: Settings | None = None, wait: bool = True, page: bool = False, **options: Any
    ) -> httpx.Client:
        settings = settings or Settings()
        engine = engine_on(**options)
        listening = listen("127.0.0.1", 0)
        port = listening.getsockname()[1]
        server = Server(
            create_app(engine, settings, grace=1.0, page=page), engine, settings, "127.0.0.1", port, grace=1.0
        )
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)
        client.engine, client.server = engine, server  # type: ignore[attr-defined]
        running.append((server, thread, client))
        end = time.monotonic() + PATIENCE
        while not server.started or (wait and engine.state != "ready"):
            assert time.monotonic() < end and thread.is_alive()
            time.sleep(0.01)
        return client

    yield serve
    for server, thread, client in running:
        client.close()
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def imaginative(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    """A tiny, untrained model of Uni-ViGU, saved and loaded: it makes films and their descriptions together."""
    import torch

    from unireel.backbones.uni_wan_files import with_text
    from unireel.systems.base.pipeline import BasePipeline
    from unireel.systems.univigu.pipeline import UniViguPipeline

    torch.manual_seed(0)
    base = BasePipeline.from_pretrained(untrained)
    parts = {name: getattr(base, name) for name in ("vae", "text_encoder", "tokenizer")}
    transformer: Any = with_text(base.transformer, len(base.tokenizer), text_mask=True, text_slots=96)
    with torch.no_grad():
        transformer.text_head.weight.normal_(std=0.3)  # it starts at zero and would say one word for ever
    model = UniViguPipeline(**parts, transformer=transformer, steps=2, caption_slots=10, text_steps=3)
    folder = tmp_path_factory.mktemp("models") / "imaginative"
    model.save_pretrained(folder, torch.float32)
    return ServedModel.load(str(folder), "cpu")
