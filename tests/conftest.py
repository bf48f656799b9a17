"""What every test shares: quiet threads, no network, hypothesis without deadlines, the folder of fixtures."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportReturnType=false

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Before anything imports torch: threads that wait by spinning slow down whatever else runs on the machine,
# and more than a few threads gain nothing at the sizes that tests use.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

settings.register_profile("unireel", deadline=None, print_blob=True)
settings.load_profile("unireel")


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """The folder of real inputs that ``UNIREEL_FIXTURES`` names; tests that need it are skipped without."""
    name = os.environ.get("UNIREEL_FIXTURES")
    if not name:
        pytest.skip("UNIREEL_FIXTURES is not set")
    folder = Path(name)
    assert folder.is_dir(), f"UNIREEL_FIXTURES names {name}, which is not a folder"
    return folder


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole but tiny and untrained model: what commands do does not depend on what it knows."""
    import torch

    from unireel.backbones.text import pocket_text_encoder, word_tokenizer
    from unireel.backbones.vae import pocket_autoencoder
    from unireel.backbones.vlm import pocket_vlm
    from unireel.backbones.wan import pocket_transformer
    from unireel.systems.base.pipeline import BasePipeline
    from unireel.world.language import vocabulary

    torch.manual_seed(0)
    tokenizer = word_tokenizer(vocabulary())
    model = BasePipeline(
        vae=pocket_autoencoder(encoder_width=16, decoder_width=16, latent_channels=4, layers=1),
        text_encoder=pocket_text_encoder(len(tokenizer), width=32, layers=1, heads=4),
        tokenizer=tokenizer,
        transformer=pocket_transformer(64, 1, heads=2, ffn=64, latent_channels=4, patch=2, text_width=32),
        vlm=pocket_vlm(tokenizer, width=64, layers=1, heads=2, ffn=64, vision=64, depth=1),
        steps=2,
    )
    folder = tmp_path_factory.mktemp("models") / "untrained"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]], str]]:
    """``serve(respond)`` starts an HTTP server on the loopback whose POSTs ``respond`` answers; returns its address."""
    servers = []

    def start(respond: Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                respond(self, body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/v1"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
