"""The web page without a browser: what it refuses, what it shows, what it keeps."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from unireel.clip import Clip
from unireel.serving.errors import ApiError

pytest.importorskip("gradio", reason="the web page's library is not installed")

from unireel.serving.page import edit, fragments, material


@dataclass(frozen=True)
class Said:
    text: str = "<b>twice</b>"
    confidence: float = 0.934
    reliable: bool = True
    note: str | None = None


@dataclass(frozen=True)
class Seen:
    frame: int
    time: float


def film(count: int = 6, side: int = 48, fps: float = 8.0) -> Clip:
    return Clip(
        np.arange(count * side * side * 3, dtype=np.uint32).reshape(count, side, side, 3).astype(np.uint8),
        fps,
    )


def test_text_of_visitors_and_models_is_never_markup() -> None:
    nasty = "<script>alert(1)</script>\"'"
    pieces = [
        fragments.problem(nasty),
        fragments.hint(nasty),
        fragments.player("data:video/mp4;base64,", nasty, name=nasty),
        fragments.cards(
            [fragments.Card(nasty, problem=nasty), fragments.Card(nasty), fragments.Card(nasty, "data:,x")]
        ),
        fragments.trace(
            [
                {
                    "select": {"query": nasty, "times": [0.5]},
                    "actor": {"text": nasty},
                    "evaluator": {"score": 1},
                }
            ]
        ),
    ]
    assert not any("<script" in piece or f'="{nasty}' in piece for piece in pieces)


def test_what_an_answer_says_of_itself_is_shown() -> None:
    assert "&lt;b&gt;twice" in fragments.said(Said())
    assert "93% sure" in fragments.said(Said())
    assert "not reliable" in fragments.said(Said(reliable=False, note="the film is from outside the World"))
    assert "outside the World" in fragments.said(Said(note="the film is from outside the World"))


def test_evidence_names_its_times_and_shows_its_frames() -> None:
    shown = fragments.evidence(film(), [Seen(0, 0.0), Seen(5, 0.625)])
    assert re.findall(r'data-jump="([\d.]+)"', shown) == ["0.000", "0.625"]
    assert shown.count("data:image/png") == 2


def test_long_and_large_films_are_kept_small_and_last_as_long() -> None:
    kept = material.reduced(Clip(np.zeros((200, 40, 800, 3), dtype=np.uint8), 25.0))
    assert (len(kept), kept.height, kept.width) == (64, 19, 384)
    assert kept.duration == pytest.approx(8.0)
    small = film()
    assert material.reduced(small) is small


def test_the_difference_is_black_where_nothing_changed() -> None:
    before = film()
    after = Clip(before.frames.copy(), before.fps)
    after.frames[2, 10:20, 10:20] ^= 128
    apart = edit.difference(before, after)
    assert np.argwhere(apart.frames.any(axis=(1, 2, 3))).tolist() == [[2]]
    assert (apart.frames[2, 10:20, 10:20] == 128).all()
    assert (edit.difference(after, before).frames == apart.frames).all()


def test_edits_are_a_chain_that_is_taken_back() -> None:
    import asyncio

    links = [edit.Link(film()), edit.Link(film(), "make it <b>"), edit.Link(film(), "again")]
    chain, stage, steps = asyncio.run(edit.showing(links))
    assert stage.count("<video") == 3
    assert re.findall("<li>(.*?)</li>", steps) == ["make it &lt;b&gt;", "again"]
    chain, stage, steps = asyncio.run(edit._undo(chain))
    assert [link.instruction for link in chain] == ["", "make it <b>"]
    chain, stage, steps = asyncio.run(edit._undo(asyncio.run(edit._undo(chain))[0]))
    assert (len(chain), stage.count("<video"), steps) == (1, 1, "")


@pytest.fixture
def page(api_on: Callable[..., httpx.Client]) -> Iterator[httpx.Client]:
    yield api_on(page=True)


def test_the_page_and_the_api_live_in_one_house(page: httpx.Client) -> None:
    shown = page.get("/")
    assert shown.status_code == 200 and "Unireel" in shown.text
    assert "default-src 'self'" in shown.headers["content-security-policy"]
    assert page.get("/v1/models").json()["data"][0]["object"] == "model"
    missing = page.get("/v1/nothing")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    sources = re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(https?:)?//([^/"]+)', shown.text)
    assert [host for _, host in sources if not host.startswith("127.0.0.1")] == []
    for path in (
        "/gradio_api/file=/etc/hostname",
        "/gradio_api/file=../../etc/hostname",
        "/file=/etc/hostname",
    ):
        assert page.get(path).status_code in (403, 404)
    assert page.get("/", headers={"Origin": "https://evil.example"}).status_code == 403


def test_an_upload_leaves_nothing_behind(page: httpx.Client, tmp_path: Path) -> None:
    import asyncio

    from unireel.serving.checks import Intake
    from unireel.serving.context import Context
    from unireel.serving.settings import Settings

    settings = Settings()
    context: Any = Context(None, settings, Intake(settings))  # type: ignore[arg-type]
    upload = film().save(tmp_path / "film.gif")
    clip = asyncio.run(material.read_upload(context, str(upload), "any"))
    assert clip is not None and len(clip) == 6
    assert not upload.exists()
    (tmp_path / "words.mp4").write_bytes(b"no film at all, just words")
    with pytest.raises(ApiError, match="not a film or picture"):
        asyncio.run(material.read_upload(context, str(tmp_path / "words.mp4"), "any"))
    assert not (tmp_path / "words.mp4").exists()
