"""Edits over HTTP by a real, tiny, untrained Omni-Video."""

# What a test asserts is there need not be checked for.
# pyright: reportOptionalSubscript=false, reportArgumentType=false

import base64
import io
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from unireel.clip import Clip
from unireel.serving.jobs import FilmRequest
from unireel.serving.model import ServedModel

BLUE = "make the red star blue"
PATIENCE = 120.0
"""Seconds after which a test is broken rather than slow."""


@pytest.fixture(scope="module")
def editing(untrained: Path) -> ServedModel:
    import unireel
    from unireel.systems.omnivideo.building import Sizes
    from unireel.systems.omnivideo.pipeline import OmniVideo
    from unireel.systems.omnivideo.settings import Budgets, Settings

    small = Sizes(head_layers=1, head_ffn=32, expansion=4, adapter_layers=1, adapter_ffn=32, heads=2)
    settings = Settings(budgets=Budgets(visual=20))
    return ServedModel(OmniVideo.from_base(unireel.load(untrained), settings, small), "editing")


def film(count: int = 5, height: int = 48, width: int = 48, seed: int = 0) -> Clip:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return Clip(pixels, 8)


def finished(client: httpx.Client, id: str) -> dict:
    end = time.monotonic() + PATIENCE
    while (job := client.get(f"/v1/videos/{id}").json())["status"] in ("queued", "in_progress"):
        assert time.monotonic() < end
        time.sleep(0.02)
    return job


def test_films_are_edited_as_the_pipeline_edits_them(
    api_on: Callable[..., httpx.Client], editing: ServedModel, tmp_path: Path
) -> None:
    client = api_on(model=editing)
    assert "edit" in client.get("/v1/models").json()["data"][0]["abilities"]
    made = client.post("/v1/videos/sync", json={"prompt": "a red star", "num_frames": 5, "size": "48x48"})
    (tmp_path / "source.mp4").write_bytes(made.content)
    source = Clip.load(tmp_path / "source.mp4")
    alone = editing.pipeline.edit(source, BLUE, seed=3)
    alone.save(tmp_path / "alone.mp4")

    sampling = {"prompt": BLUE, "seed": 3, "size": "48x48"}
    by_id = {"json": {**sampling, "video": {"id": made.headers["x-video-id"]}}}
    by_file = {"data": sampling, "files": {"video": ("../x.mp4", made.content, "video/mp4")}}
    for body in (by_id, by_file):
        job = client.post("/v1/videos/edits", **body).json()
        assert finished(client, job["id"])["status"] == "completed" and job["num_frames"] == 5
        content = client.get(f"/v1/videos/{job['id']}/content").content
        assert content == (tmp_path / "alone.mp4").read_bytes()

    ai = openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0)
    buffer = io.BytesIO()
    film(1).image().save(buffer, format="PNG")
    options = {"seed": 3, "output_format": "png"}
    answer = ai.images.edit(image=("a.png", buffer.getvalue()), prompt=BLUE, size="48x48", extra_body=options)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json))))
    assert np.array_equal(pixels, editing.pipeline.edit(film(1), BLUE, seed=3).frames[0])


def test_what_cannot_be_edited_is_said_before_it_waits(api_on, editing, tmp_path) -> None:
    client = api_on(model=editing)
    for source, words in ((film(6), "it has 6 frames"), (film(5, 36, 48), "it is 48x36")):
        files = {"video": source.save(tmp_path / "film.gif").read_bytes()}
        answer = client.post("/v1/videos/edits", data={"prompt": BLUE}, files=files)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", "video")
        assert words in error["message"]
    assert client.get("/v1/videos").json()["data"] == []


def test_what_only_the_model_can_refuse_is_the_requests_fault(api_on, editing, tmp_path, caplog) -> None:
    client = api_on(model=editing)
    address = "data:image/png;base64," + base64.b64encode(film(1).png_bytes()).decode()
    body = {"prompt": "star " * 300, "image": {"image_url": address}}
    answer = client.post("/v1/images/edits", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_refuses")
    assert "Traceback" not in caplog.text


def test_edits_of_one_length_are_made_together(engine_on, watched, editing) -> None:
    watched, go = type(watched)(editing), threading.Event()

    def load() -> ServedModel:
        assert go.wait(PATIENCE)
        return watched

    engine = engine_on(load=load)
    engine.start()
    engine._model = watched  # so that all is taken in before any is made
    blue = FilmRequest(BLUE, seed=1, frames=5, steps=2, edit=True)
    pending = engine.make([blue], film(seed=1)) | engine.make([replace(blue, seed=2)], film(seed=2))
    longer = engine.make([replace(blue, frames=9)], film(9))
    go.set()
    clips = [future.result(PATIENCE) for future in pending.values()]
    # A pipeline is for one thread: nothing is asked of it here before the engine is done with all.
    assert [len(future.result(PATIENCE)) for future in longer.values()] == [9]
    assert watched.batches == [list(pending), list(longer)]
    for clip, seed in zip(clips, (1, 2), strict=True):
        alone = editing.pipeline.edit(film(seed=seed), BLUE, seed=seed, steps=2).frames.astype(int)
        assert np.abs(clip.frames - alone).max() <= 1, (
            "what an edit is made with changes its last bit, no more"
        )
