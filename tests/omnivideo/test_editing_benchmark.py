"""The benchmark of edits with a model: lists without edited films, tests of no-op and inverse, shards, reruns."""

import json
from pathlib import Path

import numpy as np
import pytest

from unireel.cli.main import main
from unireel.clip import Clip

EDIT, UNDO, LEAVE = "make the background navy", "make the background gray", "make it plain style"


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "editor"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def films(clip, tmp_path) -> Path:
    """A film of the World, and a wider and longer one, which has to be brought to what the model takes."""
    clip.save(tmp_path / "square")
    wide = np.repeat(np.concatenate([clip.frames, clip.frames[:3]]), 2, axis=2)
    Clip(np.ascontiguousarray(wide), clip.fps).save(tmp_path / "wide")
    return tmp_path


@pytest.fixture
def run(folder, films, monkeypatch, capfd):
    monkeypatch.chdir(films)

    def call(*words) -> tuple[int, dict, str]:
        capfd.readouterr()
        options = ["--model", folder, "--steps", 1, "--device", "cpu", "--json", "-"]
        code = main([str(each) for each in ("evaluate", "editing", *options, *words)])
        out, err = capfd.readouterr()
        return code, json.loads(out) if out else {}, err

    return call


def test_edits_are_made_in_shards_measured_and_not_made_twice(run, films, folder):
    rows = [
        {"id": "a", "source": "square", "instruction": EDIT, "kind": "background"},
        {"id": "back", "source": "square", "instruction": EDIT, "test": "inverse", "undo": UNDO},
        {"id": "odd", "source": "square", "instruction": "paint a dog"},
        {"id": "wide", "source": "wide", "instruction": EDIT},
        {"id": "../x", "source": "square", "instruction": EDIT},
        {"id": "half", "source": "square", "instruction": EDIT, "test": "inverse"},
        {"id": "mute", "source": "square"},
    ]
    (films / "list.json").write_text(json.dumps(rows))
    words = ["--pairs", "list.json", "--noop", LEAVE, "--frames", 17, "--size", "48x48"]
    code, first, _ = run(*words, "--out", "run", "--shard", "2/2")
    assert (code, first["counts"]) == (0, {"pairs": 6, "missing": 3})
    made = {path: path.stat().st_mtime_ns for path in (films / "run" / "samples").rglob("*.png")}
    assert len(made) == 3 * 17
    code, found, err = run(*words, "--out", "run")
    assert code == 0 and "going on in run: 3 films are done, 3 are left" in err
    assert all(path.stat().st_mtime_ns == time for path, time in made.items())
    assert found["counts"] == {"pairs": 6, "bad_rows": 3, "failed": 1}
    said = {each["where"]: each["what"] for each in found["problems"]}
    assert "'paint', 'dog'" in said["odd"]
    assert [said[f"row {n}"] for n in (6, 7)] == [
        "a test 'inverse' needs an instruction 'undo' that takes the edit back",
        "no instruction",
    ]
    assert "cannot be the name of a folder" in said["row 5"]
    scores = found["scores"]
    assert [scores[name]["n"] for name in ("psnr", "inverse/psnr", "noop/psnr")] == [2, 1, 2]
    # The undoing begins with the edited film; shards and one run make the same.
    import unireel
    from unireel.evaluation.sampling import seed_of

    model, clip = unireel.load(folder, device="cpu"), Clip.load(films / "square")
    edited = model.edit(clip, EDIT, seed=seed_of(0, "back", 0), steps=1)
    undone = model.edit(edited, UNDO, seed=seed_of(0, "back", 1), steps=1)
    kept = Clip.load(films / "run" / "samples" / "back")
    assert np.abs(undone.frames.astype(int) - kept.frames).max() <= 1
    report = (films / "run" / "report.html").read_text()
    assert report.count("data:image/webp") == 5 * 2
    assert report.count("test: noop") == 2 and report.count("test: inverse") == 1
    assert run(*words, "--out", "run", "--seed", 5)[0] == 1


def test_the_public_lists_of_instructions(run, films, fixtures_dir):
    """TGVE's own file: four edits of each of 76 films, of which two are there."""
    (films / "gold-fish").symlink_to(films / "square")
    (films / "drift-turn").symlink_to(films / "wide")
    table = fixtures_dir / "tgve_edit_prompt_dict.json"
    code, found, _ = run("--pairs", table, "--videos", films, "--out", "run")
    assert (code, found) == (1, {})  # pocket models know none of its words
    lines = (films / "run" / "failures.jsonl").read_text().splitlines()
    failed = {json.loads(line)["id"]: json.loads(line) for line in lines}
    assert len(failed) == 76 * 4
    assert failed["gold-fish/style"]["prompt"] == "make the style impressionist"
    assert "'impressionist'" in failed["gold-fish/style"]["error"]
    assert "no such file" in failed["lindy-hop/style"]["error"]


def test_a_model_that_cannot_edit(films, untrained, monkeypatch, capfd):
    monkeypatch.chdir(films)
    (films / "list.json").write_text(json.dumps([{"source": "square", "instruction": EDIT}]))
    words = ["evaluate", "editing", "--pairs", "list.json", "--out", "run", "--model", str(untrained)]
    assert main(words) == 1
    assert "cannot edit" in capfd.readouterr().err
    assert main([*words, "--size", "large"]) == 2
    assert "--size 'large': height and width" in capfd.readouterr().err
