"""``unireel ask`` and ``unireel caption``."""

import json

import pytest

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


def test_ask(unireel, weights, film_file):
    result = unireel("ask", film_file, QUESTION)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].strip()
    assert lines[1].startswith("confidence ") and lines[1].endswith("%")


def test_ask_json(unireel, weights, film_file):
    result = unireel("ask", film_file, QUESTION, "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert list(answer) == ["model", "film", "question", "text", "confidence", "reliable", "note"]
    assert answer["question"] == QUESTION and answer["model"] == weights
    assert 0 <= answer["confidence"] <= 1
    assert answer["reliable"] is True


def test_caption_json(unireel, weights, film_file):
    result = unireel("caption", film_file, "--json")
    assert result.returncode == 0, result.stderr
    caption = json.loads(result.stdout)
    assert list(caption) == ["model", "film", "text", "confidence", "reliable", "note"]
    assert caption["text"].strip() and 0 <= caption["confidence"] <= 1


def test_a_film_outside_the_world_is_called_unreliable(unireel, weights, tmp_path):
    import numpy as np

    from unireel.clip import Clip

    noise = np.random.default_rng(0).integers(0, 256, (17, 48, 48, 3), dtype=np.uint8)
    Clip(noise, 8).save(tmp_path / "noise")
    result = unireel("caption", "noise", "--json")
    assert result.returncode == 0, result.stderr
    caption = json.loads(result.stdout)
    assert caption["reliable"] is False
    assert caption["note"] and "\n" not in caption["note"]
