"""What the adapters share, with the packaged model itself; and the plug-ins where their programs are installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unireel.adapters.answering import Answering, Request, Shown, cut, film_of_pictures
from unireel.clip import Clip
from unireel.errors import UsageError, UserError
from unireel.world.language import questions_for
from unireel.world.render import render
from unireel.world.sampling import sample_scene

needs_lmms_eval = pytest.mark.skipif(
    importlib.util.find_spec("lmms_eval") is None, reason="lmms-eval is not installed (extra 'lmms-eval')"
)
needs_vlmevalkit = pytest.mark.skipif(
    importlib.util.find_spec("vlmeval") is None, reason="VLMEvalKit is not installed"
)


@pytest.fixture(scope="module")
def answering() -> Answering:
    return Answering("pocket/base", "cpu", batch=4)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Three films on disk with two questions each, one of them twice, and rows with a missing film."""
    folder = tmp_path_factory.mktemp("films")
    rows = []
    for index in range(3):
        scene = sample_scene(7, index, "test")
        path = render(scene).save(folder / f"{index}.mp4")
        for question in list(questions_for(scene, index))[:2]:
            rows.append({"video": str(path), "question": question.text, "answer": question.answer})
    rows.append({"video": str(folder / "gone.mp4"), "question": rows[0]["question"], "answer": "red"})
    rows.append({"video": rows[0]["video"], "question": "who is the president?", "answer": "nobody"})
    return rows


@pytest.fixture(scope="module")
def said(answering: Answering, asked: list[dict[str, str]]) -> list[str]:
    """What the pipeline itself answers, film by film; nothing to the two bad rows."""
    model = answering.model
    return [model.ask(Clip.load(row["video"], num_frames=17), row["question"]).text for row in asked[:-2]] + [
        "",
        "",
    ]


def test_answers_are_the_pipelines_own_and_bad_rows_are_told(
    answering: Answering, asked: list[dict[str, str]], said: list[str]
) -> None:
    told: list[str] = []
    answering.warn = told.append
    requests = [Request(row["question"], Shown(row["video"])) for row in asked]
    assert answering.answer(requests) == said
    assert all(said[:-2])
    assert len(told) == 2
    assert "gone.mp4" in told[0]
    assert "president" in told[1]


def test_part_of_a_film_is_that_part(answering: Answering, asked: list[dict[str, str]]) -> None:
    whole = answering._film(Shown(asked[0]["video"]))
    part = answering._film(Shown(asked[0]["video"], 1.0, 2.0))
    assert part.duration < whole.duration
    assert np.abs(part.frame(0).astype(int) - whole.frame(8)).mean() < 2


def test_pictures_become_a_film(tmp_path: Path) -> None:
    red, blue = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
    blue.resize((16, 12)).save(tmp_path / "blue.png")
    film = film_of_pictures([red, tmp_path / "blue.png", np.asarray(red)])
    assert film.frames.shape == (3, 6, 8, 3)
    assert film.frames[:, 0, 0].tolist() == [[255, 0, 0], [0, 0, 255], [255, 0, 0]]
    with pytest.raises(UserError, match="without a film"):
        film_of_pictures([])


def test_answers_end_where_the_task_says() -> None:
    assert cut("red\n\nQuestion: what else?", ("\n\n", "")) == "red"
    assert cut(" blue ", ()) == "blue"


def test_the_plug_in_is_announced() -> None:
    found = entry_points(group="lmms_eval.models")
    if not found:
        pytest.skip("the package was installed before the plug-in; install it again")
    assert [each.value for each in found] == ["unireel.adapters.lmms_eval:manifests"]


def test_vlmevalkit_is_missing_in_one_line() -> None:
    if importlib.util.find_spec("vlmeval") is not None:
        pytest.skip("VLMEvalKit is installed")
    command = [sys.executable, "-m", "unireel.adapters.vlmevalkit", "pyproject.toml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "VLMEvalKit cannot be imported" in done.stderr


TASK = """
task: unireel_world
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}, cache_dir: {cache}}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visual
doc_to_text: !function utils.text
doc_to_target: answer
process_results: !function utils.results
generation_kwargs: {{max_new_tokens: 8, until: ["."]}}
metric_list:
  - {{metric: right, aggregation: mean, higher_is_better: true}}
"""
UTILS = """
def visual(doc): return [doc["video"]]
def text(doc, lmms_eval_specific_kwargs=None): return doc["question"]
def results(doc, said): return {"right": float(said[0] == doc["answer"])}
"""


@needs_lmms_eval
def test_lmms_eval_finds_the_model_and_scores_its_answers(
    asked: list[dict[str, str]], said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    evaluator, tasks = import_module("lmms_eval.evaluator"), import_module("lmms_eval.tasks")
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in asked))
    (folder / "world.yaml").write_text(TASK.format(rows=rows, cache=tmp_path / "cache"))
    (folder / "utils.py").write_text(UTILS)
    found: Any = evaluator.simple_evaluate(
        model="unireel",
        model_args="pretrained=pocket/base,num_frames=17",
        tasks=["unireel_world"],
        task_manager=tasks.TaskManager("ERROR", str(folder)),
        batch_size=4,
        device="cpu",
        log_samples=True,
    )
    answers = [each["filtered_resps"][0] for each in found["samples"]["unireel_world"]]
    assert answers == said
    right = sum(row["answer"] == answer for row, answer in zip(asked, said, strict=True))
    assert found["results"]["unireel_world"]["right,none"] == pytest.approx(right / len(asked))


@needs_lmms_eval
def test_lmms_eval_hears_what_cannot_be_done() -> None:
    from unireel.adapters.lmms_eval import Unireel, read_messages

    with pytest.raises(UsageError, match="no argument 'frames'"):
        Unireel(frames=3)
    with pytest.raises(UsageError, match="not 'audio'"):
        read_messages([{"role": "user", "content": [{"type": "audio", "url": "a.wav"}]}])
    film = {"type": "video", "url": {"url": "a.mp4", "video_start": 1.0, "video_end": 2.0}}
    words = [{"type": "text", "text": " what? "}, {"type": "text", "text": ""}]
    system = {"role": "system", "content": [{"type": "text", "text": "be brief"}]}
    assert read_messages([system, {"role": "user", "content": [film, *words]}]) == (
        "what?",
        Shown("a.mp4", 1.0, 2.0),
    )


@needs_vlmevalkit
def test_vlmevalkit_gets_the_pipelines_answers(asked: list[dict[str, str]], said: list[str]) -> None:
    from unireel.adapters.vlmevalkit.model import register

    register("pocket/base", device="cpu")
    model = import_module("vlmeval.config").supported_VLM["unireel"]()
    for row, answer in [(asked[0], said[0]), (asked[3], said[3]), (asked[-1], "")]:
        message = [{"type": "video", "value": row["video"]}, {"type": "text", "value": row["question"]}]
        assert model.generate(message, dataset="MVBench") == answer
