"""``unireel ask`` and ``unireel caption``."""

import json

import numpy as np
import pytest

from unireel.clip import Clip
from unireel.world.facts import Fact
from unireel.world.language import parse

QUESTION = "what is the background?"


@pytest.mark.parametrize(("command", "rest"), [("ask", [QUESTION]), ("caption", [])])
class TestBadFilms:
    def test_missing(self, fails, command, rest):
        assert "there is no film missing.mp4" in fails(1, command, "missing.mp4", *rest)

    def test_not_a_video(self, fails, tmp_path, command, rest):
        (tmp_path / "notes.mp4").write_text("words, not pixels")
        assert "notes.mp4" in fails(1, command, "notes.mp4", *rest)

    def test_empty_file(self, fails, tmp_path, command, rest):
        (tmp_path / "empty.webm").touch()
        assert "empty.webm" in fails(1, command, "empty.webm", *rest)

    def test_empty_folder(self, fails, tmp_path, command, rest):
        (tmp_path / "empty").mkdir()
        assert "empty" in fails(1, command, "empty", *rest)

    def test_unknown_model(self, fails, film_file, command, rest):
        assert "no model 'pocket/nothing'" in fails(1, command, film_file, *rest, "--model", "pocket/nothing")


@pytest.mark.parametrize("question", ["", "   "])
def test_empty_question(fails, film_file, question):
    assert "question is empty" in fails(2, "ask", film_file, question)


FIELDS = ["text", "confidence", "reliable", "note", "evidence"]


def test_ask(unireel, untrained, film_file):
    result = unireel("ask", film_file, QUESTION, "--model", untrained)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    _, confidence, note = result.stdout.splitlines()
    assert confidence.startswith("confidence ") and confidence.endswith("%")
    assert note == "note: the film was resized from 384x384 to 48x48"


def test_ask_json(here, untrained, film_file):
    result = here("ask", film_file, QUESTION, "--json", "--model", untrained)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert list(answer) == ["model", "film", "question", *FIELDS]
    assert answer["question"] == QUESTION and answer["model"] == str(untrained)
    assert 0 <= answer["confidence"] <= 1 and answer["reliable"] is True
    assert answer["evidence"][8] == {"frame": 8, "time": 1.0}


def test_a_film_outside_the_world_is_called_unreliable(here, untrained, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (17, 48, 48, 3), dtype=np.uint8)
    Clip(noise, 8).save(tmp_path / "noise")
    result = here("caption", "noise", "--json", "--model", untrained)
    assert result.returncode == 0, result.stderr
    caption = json.loads(result.stdout)
    assert list(caption) == ["model", "film", *FIELDS]
    assert caption["reliable"] is False
    assert "outside the World" in caption["note"] and "\n" not in caption["note"]


def test_unknown_words_are_named(here, untrained, film_file):
    result = here("ask", film_file, "where is the dinosaur?", "--model", untrained)
    assert result.returncode == 1 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("unireel: error: ") and "'dinosaur'" in line


def test_a_known_film_is_described(here, weights, scene, film_file):
    """The packaged model says of a film of the World what the film shows: at least its background."""
    result = here("caption", film_file, "--model", weights)
    assert result.returncode == 0, result.stderr
    caption, confidence, _ = result.stdout.splitlines()
    assert Fact("background", value=scene.background) in parse(caption)
    assert confidence.startswith("confidence ")
