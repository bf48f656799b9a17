"""``unireel batch``: rows are done once, exactly as one by one, and what is wrong with one stops no other."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import unireel
from unireel.cli.main import main
from unireel.clip import Clip

PROMPTS = ("a red star jumps twice", "a blue ring stays still", "two squares")


def rows(path: Path, *content: dict) -> str:
    path.write_text("".join(json.dumps(each) + "\n" for each in content))
    return str(path)


def results(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A folder with two films."""
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(2):
        frames = np.random.default_rng(number).integers(0, 256, (5, 48, 48, 3), dtype=np.uint8)
        Clip(frames, 8).save(folder / f"{number}.mp4")
    return folder


def test_films_are_those_of_the_model_and_made_once(untrained, tmp_path, capsys):
    given = [{"prompt": prompt, "seed": seed, "frames": 5} for seed, prompt in enumerate(PROMPTS)]
    path, out = rows(tmp_path / "rows.jsonl", *given), tmp_path / "out"
    command = ["batch", "generate", path, "-o", str(out), "--model", str(untrained), "--device", "cpu"]
    assert main(command) == 0
    assert "3 of 3 rows done" in capsys.readouterr().out
    made = {each["prompt"]: out / each["film"] for each in results(out)}
    expected = unireel.load(untrained, device="cpu").generate_many(list(PROMPTS), seeds=[0, 1, 2], frames=5)
    for prompt, clip in zip(PROMPTS, expected, strict=True):
        clip.save(tmp_path / "expected.mp4")
        assert np.array_equal(Clip.load(made[prompt]).frames, Clip.load(tmp_path / "expected.mp4").frames)
    times = {prompt: film.stat().st_mtime_ns for prompt, film in made.items()}
    lines = (out / "results.jsonl").read_text().splitlines()
    (out / "results.jsonl").write_text("\n".join(lines[:2]) + "\n" + lines[2][:20])  # killed while it wrote
    assert main(command) == 0
    again = {prompt for prompt, film in made.items() if film.stat().st_mtime_ns != times[prompt]}
    assert again == {json.loads(lines[2])["prompt"]}
    assert {each["prompt"] for each in map(json.loads, lines)} == set(PROMPTS)
    assert main(command) == 0, "nothing is left to do"


def test_answers_are_counted_and_a_bad_film_stops_no_other(untrained, films, capsys):
    model = unireel.load(untrained, device="cpu")
    question = "how many objects are there?"
    said = [model.ask(Clip.load(films / f"{number}.mp4"), question).text for number in range(2)]
    given = [
        {"film": "0.mp4", "question": question, "answer": said[0].upper()},
        {"film": "none.mp4", "question": question},
        {"film": "1.mp4", "question": question, "answer": f"not {said[1]}"},
    ]
    path, out = rows(films / "rows.jsonl", *given), films / "out"
    command = ["batch", "ask", path, "-o", str(out), "--model", str(untrained), "--device", "cpu"]
    assert main(command) == 1
    shown = capsys.readouterr()
    assert "2 of 3 rows done" in shown.out and "right: 0.500" in shown.out
    assert "line 2: " in shown.err and "none.mp4" in shown.err
    (films / "1.mp4").rename(films / "none.mp4")
    assert main(command) == 0, "what was refused is tried again, and what is done is not"
    assert "3 of 3 rows done" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message", "code"),
    [
        ('{"prompt": "a star", "sed": 1}', "line 1: 'sed' is none of prompt, seed, frames", 2),
        ('{"seed": 1}', "line 1: 'prompt' must be there as text", 2),
        ('{"prompt": "a star", "seed": true}', "'seed' must be there as a number", 2),
        ("[]", "line 1: not a JSON object", 2),
        ("\n", "has no rows", 1),
    ],
)
def test_rows_that_cannot_be_are_refused_before_a_model_is_loaded(tmp_path, content, message, code, capsys):
    (tmp_path / "rows").write_text(content)
    assert main(["batch", "generate", str(tmp_path / "rows"), "-o", str(tmp_path / "out")]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_ray_and_processes_say_the_same(untrained, films, monkeypatch):
    pytest.importorskip("ray.data", reason="Ray is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "600")
    path = rows(films / "rows.jsonl", {"film": "0.mp4"}, {"film": "1.mp4"})
    found = []
    for name, options in (("ray", ["--ray", "--workers", "2"]), ("alone", [])):
        out = films / name
        command = ["batch", "caption", path, "-o", str(out), "--model", str(untrained), "--device", "cpu"]
        assert main([*command, "--at-once", "1", *options]) == 0
        found.append({each["film"]: each["caption"] for each in results(out)})
    assert found[0] == found[1] and len(found[0]) == 2
