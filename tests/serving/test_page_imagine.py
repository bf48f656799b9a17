"""The Imagine tab with a real model of Uni-ViGU, spoken to as a browser speaks to the page."""

import json
import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from typing import Any

import httpx
import numpy as np
import pytest

from unireel.serving.engine import Engine
from unireel.serving.errors import ApiError
from unireel.serving.jobs import FilmRequest
from unireel.serving.model import ServedModel
from unireel.systems.base.answering import Answer

pytest.importorskip("gradio", reason="the web page's library is not installed")

from unireel.serving.page import fragments
from unireel.serving.page.fragments import film_address

PATIENCE = 120.0
"""Seconds after which a test is broken rather than slow."""

PROMPT = "a red star jumps"


class Guest:
    """What a browser does with the page: it knows the elements by their ids and gets what they are to show."""

    def __init__(self, client: httpx.Client) -> None:
        self.client, self.visit = client, uuid.uuid4().hex[:10]
        self.config = client.get("/config").json()
        self.ids = {
            part["props"].get("elem_id") or part["props"].get("label"): part["id"]
            for part in self.config["components"]
        }

    def arrive(self) -> dict[int, Any]:
        """Open the page; what its elements are told, by their numbers."""
        return self._call(next(each for each in self.config["dependencies"] if _loads(each)), [])

    def press(self, name: str, values: list[Any]) -> dict[int, Any]:
        """Press the button ``name`` with ``values`` in what it reads."""
        wanted = [self.ids[name], "click"]
        return self._call(next(d for d in self.config["dependencies"] if wanted in d["targets"]), values)

    def _call(self, event: dict[str, Any], values: list[Any]) -> dict[int, Any]:
        call = {"data": values, "fn_index": event["id"], "session_hash": self.visit}
        assert self.client.post("/gradio_api/queue/join", json=call).status_code == 200
        address = f"/gradio_api/queue/data?session_hash={self.visit}"
        with self.client.stream("GET", address) as told:
            for line in told.iter_lines():
                message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    assert message["success"], message
                    return dict(zip(event["outputs"], message["output"]["data"], strict=False))
        raise AssertionError("the answer never ended")


def _loads(event: dict[str, Any]) -> bool:
    return any(kind == "load" for _, kind in event["targets"])


@pytest.fixture
def guest(api_on: Callable[..., httpx.Client], imaginative: ServedModel) -> Guest:
    return Guest(api_on(page=True, model=imaginative))


TABS = ("make", "ask", "edit", "imagine")


def tabs_of(guest: Guest) -> dict[str, bool]:
    """Which tabs a visitor is shown."""
    told = guest.arrive()
    numbers = {p["props"]["id"]: p["id"] for p in guest.config["components"] if p["props"].get("id") in TABS}
    return {name: told[numbers[name]]["visible"] for name in TABS}


def test_the_tab_is_there_if_the_model_can_imagine(guest, api_on, tmp_path):
    assert tabs_of(guest) == {"make": True, "ask": True, "edit": False, "imagine": True}
    card = guest.client.get("/v1/models").json()["data"][0]
    assert card["abilities"] == ["ask", "caption", "generate", "imagine", "reflect"]
    other = Guest(api_on(page=True, folder=tmp_path / "other"))
    assert tabs_of(other) == {"make": True, "ask": True, "edit": False, "imagine": False}


def test_film_and_description_are_those_of_the_pipeline(guest, imaginative):
    shown = guest.press("imagine", [PROMPT, None, "normal", 1, 7, 0])[guest.ids["imagine-results"]]
    alone = imaginative.pipeline.imagine(PROMPT, seed=7)
    assert film_address(alone.clip) in shown and "seed 7" in shown
    (words, sure) = re.findall(r'class="description">(.*?)<small>(\d+)% sure', shown)[0]
    assert unescape(words) == (alone.caption.text or "no words came of it")
    assert int(sure) == round(100 * alone.caption.confidence)
    assert alone.caption.text, "a model that says nothing tests nothing"

    # It is handed over to the Ask tab, under names that the Make tab does not have.
    assert re.findall('data-press="([^"]+)"', shown) == ["imagine-ask-film-0", "imagine-edit-film-0"]
    asked = guest.press("imagine-ask-film-0", [None])
    assert film_address(alone.clip) in asked[guest.ids["stage"]]
    assert guest.press("ask-film-0", [None])[guest.ids["stage"]]["__type__"] == "update", (
        "nothing was made there"
    )


def test_films_of_one_press_have_their_own_descriptions(guest):
    shown = guest.press("imagine", [PROMPT, None, "quick", 2, 3, 0])[guest.ids["imagine-results"]]
    assert shown.count("<video") == shown.count('class="description"') == 2
    assert "seed 3" in shown and "seed 4" in shown
    refused = guest.press("imagine", ["a red qwertz", None, "quick", 2, 3, 0])
    assert (
        "qwertz" in refused[guest.ids["imagine-results"]] and "alert" in refused[guest.ids["imagine-results"]]
    )


def test_imagining_goes_with_imagining_only_and_is_left_at_the_next_step(engine_on, watched, imaginative):
    watched = type(watched)(imaginative)
    go = threading.Event()

    def load() -> ServedModel:
        assert go.wait(PATIENCE)
        return watched

    engine: Engine = engine_on(load=load)
    engine.start()
    engine._model = watched  # so that all is taken in before any is made
    star = FilmRequest(PROMPT, seed=1, frames=5, steps=3)
    with_words, without = engine.imagine([star, replace(star, seed=2)]), engine.make([star])
    watched.hold(2)
    go.set()
    assert watched.held.wait(PATIENCE)
    (first, second), (film,) = with_words, without
    engine.cancel(first)
    watched.go.set()
    made = with_words[second].result(PATIENCE)
    assert made.clip.frames.shape == (5, 48, 48, 3) and made.caption.text
    with pytest.raises(ApiError, match="no video of that id"):
        with_words[first].result(0)
    assert without[film].result(PATIENCE).frames.shape == (5, 48, 48, 3)
    assert watched.batches == [[first, second], [film]]
    assert engine.store.page(9)[0] == []  # nobody can fetch them later, so nothing is kept

    watched.hold(1)
    (alone,) = engine.imagine([replace(star, steps=40)])
    assert watched.held.wait(PATIENCE)
    engine.cancel(alone)
    (after,) = engine.make([star]).values()
    watched.go.set()
    assert np.array_equal(after.result(PATIENCE).frames, without[film].result().frames)


def test_what_a_model_says_of_its_film_is_never_markup():
    said = Answer("<script>alert(1)</script>", 0.5)
    shown = fragments.cards([fragments.Card("seed 0", "data:,x", description=said)], "imagine-")
    assert "<script" not in shown and "&lt;script&gt;" in shown and "50% sure" in shown
