"""``unireel ask --reflect``."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessorPil

from unireel.backbones.ranker import pocket_ranker, ranker_tokenizer
from unireel.clip import Clip
from unireel.world.language import vocabulary
from unireel.world.render import render_frames
from unireel.world.stories import sample_story

QUESTION = "what is the background?"


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A story of 129 frames in a file."""
    scene = sample_story(0, 0, "test", 129, 48)
    frames = render_frames(scene, list(range(129)))
    return Clip(np.asarray(frames), 8).save(tmp_path_factory.mktemp("films") / "story.mp4", scale=4)


@pytest.fixture(scope="module")
def ranker(tmp_path_factory):
    """A folder with an untrained ranker."""
    torch.manual_seed(0)
    tokenizer, folder = ranker_tokenizer(vocabulary()), tmp_path_factory.mktemp("models") / "ranker"
    pocket_ranker(tokenizer, 32, 1, 2, 24, 1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


def test_without_a_ranker(here, untrained, story, tmp_path):
    result = here("ask", story, QUESTION, "--reflect", "--model", untrained, "--cache", tmp_path / "cache")
    assert result.returncode == 0, result.stderr
    (warning,) = result.stderr.splitlines()
    assert warning.startswith("unireel: warning: there is no ranker")
    lines = result.stdout.splitlines()
    assert lines[1].startswith("confidence ") and lines[-1].startswith("3 rounds in ")
    assert lines[-2].startswith("evidence at 0.00 s, ")


def test_trace_and_picture(here, untrained, story, ranker, tmp_path):
    words = ["ask", story, QUESTION, "--reflect", "--json", "--model", untrained, "--ranker", ranker,
             "--cache", tmp_path / "cache", "--mode", "dynamic", "--threshold", "1",
             "--trace", "trace.json", "--picture", "sheet.png"]  # fmt: skip
    result = here(*words)
    assert result.returncode == 0, result.stderr
    answer, trace = json.loads(result.stdout), json.loads((tmp_path / "trace.json").read_text())
    assert list(answer) == ["model", "film", "question", "text", "confidence", "reliable", "note", "evidence"]
    assert [len(each["select"]["pool"]) for each in trace["rounds"]] == [64, 32, 16]
    assert answer["text"] == trace["result"]["text"] and answer["reliable"] is False
    assert Image.open(tmp_path / "sheet.png").size[0] > 800
    again = here(*words)
    assert again.stdout == result.stdout and json.loads((tmp_path / "trace.json").read_text()) == trace


def test_an_endpoint_that_is_down(here, untrained, story, ranker, tmp_path):
    result = here("ask", story, QUESTION, "--reflect", "--model", untrained, "--ranker", ranker, "--mode", "static",
                  "--cache", tmp_path / "cache", "--trace", "trace.json", "--budget", "5",
                  "--evaluator", "http://127.0.0.1:9/v1#judge")  # fmt: skip
    assert result.returncode == 1 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("unireel: error: http://127.0.0.1:9/v1 gave no answer in 3 attempts")
    assert "actor" in json.loads((tmp_path / "trace.json").read_text())["rounds"][0]


@pytest.mark.parametrize(
    "code, message, words",
    [
        (2, "--trace needs --reflect", ["--trace", "trace.json"]),
        (2, "must end with .json", ["--reflect", "--trace", "trace.txt"]),
        (2, "does not name its model", ["--reflect", "--evaluator", "http://host/v1"]),
        (1, "cannot be loaded", ["--reflect", "--evaluator", "nowhere"]),
        (1, "the folder nowhere does not exist", ["--reflect", "--picture", "nowhere/sheet.png"]),
    ],
)
def test_mistakes(here, untrained, story, tmp_path, monkeypatch, code, message, words):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = here("ask", story, QUESTION, "--model", untrained, *words)
    assert result.returncode == code and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("unireel: error: ") and message in line


def test_no_such_film(here, untrained):
    result = here("ask", "missing.mp4", QUESTION, "--reflect", "--model", untrained)
    assert result.returncode == 1 and "missing.mp4: there is no such file" in result.stderr
