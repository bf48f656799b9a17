"""The public benchmarks' commands: layouts are filled and resumed, published tables and known values come out."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unireel.cli.main import main

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PROMPTS = ["a red star", "a blue ring", "a green square moves right"]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite in VBench's format, one of whose prompts the pocket model refuses."""
    entries = [
        {"prompt_en": PROMPTS[0], "dimension": ["temporal_flickering"]},
        {"prompt_en": PROMPTS[1], "dimension": ["color"], "auxiliary_info": {"color": {"color": "blue"}}},
        {"prompt_en": "a fantasy landscape", "dimension": ["color"]},
    ]
    path = tmp_path / "suite.json"
    path.write_text(json.dumps(entries))
    return path


def document(result: "subprocess.CompletedProcess[str]") -> dict:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_vbench_films_are_made_in_shards_and_measured(
    here: Run, untrained: Path, suite: Path, tmp_path: Path
) -> None:
    words = ["evaluate", "vbench", "--model", untrained, "--suite", suite, "--out", "run", "--samples", 2]
    words += ["--frames", 5, "--batch", 2]
    samples = tmp_path / "run" / "samples"
    first = document(here(*words, "--shard", "1/2", "--json", "-"))
    assert first["counts"] == {"films": 2, "missing": 4, "refused": 1}
    assert (samples / "temporal_flickering" / "a red star-0.mp4").exists()
    second = here(*words, "--shard", "2/2", "--json", "-")
    refused = document(second)["problems"]
    assert [each["id"] for each in refused] == [
        "color/a fantasy landscape-0.mp4",
        "color/a fantasy landscape-1.mp4",
    ]
    assert "fantasy" in refused[0]["error"]
    assert "2 films were refused, the first: 'a fantasy landscape'" in second.stderr
    before = {path: path.stat().st_mtime_ns for path in samples.rglob("*.mp4")}
    assert len(before) == 4
    again = here(*words, "--dimensions", "temporal-flickering", "--json", "-")
    assert "2 films are done, 0 are left" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in samples.rglob("*.mp4")} == before
    score = document(again)["scores"]["temporal_flickering"]
    assert 0 < score["value"] <= 1
    assert score["n"] == 2
    measured = document(here("evaluate", "vbench", "--films", samples / "temporal_flickering", "--json", "-"))
    assert measured["scores"] == document(again)["scores"]
    aggregated = here("evaluate", "aggregate", "vbench", tmp_path / "run" / "results")
    assert aggregated.returncode == 1
    assert "15 of the 16 dimensions are missing" in aggregated.stderr


def test_shards_and_one_run_make_the_same_films(
    here: Run, untrained: Path, suite: Path, tmp_path: Path
) -> None:
    words = [
        "evaluate",
        "vbench",
        "--model",
        untrained,
        "--suite",
        suite,
        "--dimensions",
        "temporal_flickering",
    ]
    words += ["--samples", 2, "--frames", 5, "--seed", 5, "--batch", 1]
    assert here(*words, "--out", "whole").returncode == 0
    for which in ("2/2", "1/2"):
        assert here(*words, "--out", "parts", "--shard", which).returncode == 0
    for sample in (0, 1):
        name = f"samples/temporal_flickering/a red star-{sample}.mp4"
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    assert here(*words, "--out", "whole", "--steps", 1).stderr.endswith("name a new folder with --out\n")


FAKE_VBENCH = """
import json
import os

class VBench:
    def __init__(self, device, full_info, output):
        self.full_info, self.output = full_info, output
    def evaluate(self, videos_path, name, dimension_list, local, read_frame, mode):
        assert mode == "vbench_standard" and len(dimension_list) == 1
        films = sorted(os.listdir(videos_path))
        if dimension_list == ["scene"]:
            raise RuntimeError("no weights here")
        rows = [{"video_path": f, "video_results": 0.5} for f in films]
        with open(f"{self.output}/{name}_eval_results.json", "w") as file:
            json.dump({dimension_list[0]: [0.5, rows]}, file)
"""


def test_an_installed_vbench_does_the_rest(
    here: Run, untrained: Path, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "vbench.py").write_text(FAKE_VBENCH)
    (site / "torch.py").write_text("def device(name):\n    return name\ndistributed = None\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    suite.write_text(
        json.dumps([each for each in json.loads(suite.read_text()) if "fantasy" not in each["prompt_en"]])
    )
    words = ["evaluate", "vbench", "--model", untrained, "--suite", suite, "--out", "run", "--samples", 1]
    words += ["--frames", 5, "--vbench-python", sys.executable, "--vbench-device", "cpu", "--json", "-"]
    scores = document(here(*words))["scores"]
    assert scores["color"] == {"value": 0.5, "low": 0.5, "high": 0.5, "n": 1}
    assert set(scores) == {"color", "temporal_flickering"}
    suite.write_text(json.dumps([{"prompt_en": PROMPTS[0], "dimension": ["scene"]}]))
    failed = here(*words)
    assert failed.returncode == 1
    assert "VBench could not compute scene: RuntimeError: no weights here" in failed.stderr


def test_geneval_images_are_made_in_its_layout(here: Run, untrained: Path, tmp_path: Path) -> None:
    lines = [
        {"tag": "colors", "include": [], "prompt": text} for text in (*PROMPTS[:2], "a photo of a bench")
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    words = [
        "evaluate",
        "geneval",
        "--model",
        untrained,
        "--metadata",
        "m.jsonl",
        "--out",
        "run",
        "--images",
        2,
    ]
    found = document(here(*words, "--json", "-"))
    assert found["counts"] == {"prompts": 3, "images": 4, "missing": 2, "refused": 2}
    folder = tmp_path / "run" / "samples"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png")) == [
        f"0000{i}/samples/000{j}.png" for i in (0, 1) for j in (0, 1)
    ]
    assert json.loads((folder / "00002" / "metadata.jsonl").read_text()) == lines[2]
    assert "4 of 6 images" in here(*words).stdout


def test_the_printed_tables_are_checked_by_a_command(here: Run) -> None:
    sound = document(here("evaluate", "aggregate", "vbench", "--table", "omnivideo_table3", "--json", "-"))
    assert [row["follows"] for row in sound["rows"]] == [True] * 9
    said = here("evaluate", "aggregate", "vbench", "--table", "univid_table1").stdout
    assert "4 of 11 rows follow from their own columns" in said
    assert "Gen-3                     does not follow: total (dimensions) +0.32, quality +0.40" in said


def test_sixteen_printed_numbers_give_the_total(here: Run, tmp_path: Path) -> None:
    from unireel.evaluation.papers import rows
    from unireel.evaluation.vbench.dimensions import DIMENSIONS

    row = rows("omnivideo_table3")[-1]
    (tmp_path / "r.json").write_text(json.dumps({name: row[name] for name in DIMENSIONS}))
    scores = document(here("evaluate", "aggregate", "vbench", "r.json", "--percent", "--json", "-"))["scores"]
    for name in ("total", "quality", "semantic"):
        printed = row[name]
        assert isinstance(printed, float)
        assert 100 * scores[name]["value"] == pytest.approx(printed, abs=0.01)


def test_a_real_pair_of_edited_films(here: Run, fixtures_dir: Path) -> None:
    words = [
        f"{option}={fixtures_dir / 'videos' / name}"
        for option, name in (("--source", "vebench_src.mp4"), ("--edited", "vebench_dst.mp4"))
    ]
    scores = document(here("evaluate", "editing", *words, "--json", "-"))["scores"]
    assert scores["psnr"]["value"] == pytest.approx(17.837, abs=0.001)
    assert scores["ssim"]["value"] == pytest.approx(0.595, abs=0.0005)


@pytest.mark.parametrize(
    ("code", "words", "message"),
    [
        (2, "vbench", "name either the --suite whose films to make, or --films"),
        (1, "vbench --films none.mp4", "there is no none.mp4"),
        (1, "vbench --suite none.json", "cannot read none.json"),
        (2, "vbench --suite suite.json --dimensions taste", "VBench has no dimension 'taste'"),
        (2, "vbench --suite suite.json --shard 3/2", "'3/2' is not a shard"),
        (1, "vbench --suite suite.json --model pocket/none", "there is no model 'pocket/none'"),
        (1, "vbench --suite suite.json --out no/such", "the folder no does not exist"),
        (1, "geneval --metadata suite.json", "line 1 of suite.json is not a prompt of GenEval"),
        (2, "editing --source a.mp4", "name either --source and --edited"),
        (
            1,
            "editing --source a.mp4 --edited b.mp4",
            "no pair could be compared: b.mp4: a.mp4: there is no such file",
        ),
        (1, "aggregate vbench suite.json", "there are no VBench results"),
        (2, "aggregate vbench", "name either results to add up, or a --table"),
        (2, "aggregate vbench --table table9", "there is no table 'table9'"),
        (1, "aggregate vbench --table univid_table2", "'univid_table2' has no VBench scores"),
        (1, "aggregate geneval none.jsonl", "cannot read none.jsonl"),
        (1, "aggregate vbench suite.json --json no/x.json", "the folder no does not exist"),
    ],
)
def test_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    suite: Path,
    code: int,
    words: str,
    message: str,
) -> None:
    monkeypatch.chdir(suite.parent)
    assert main(["evaluate", *words.split()]) == code
    output, error = capsys.readouterr()
    assert output == ""
    assert len(error.splitlines()) == 1, error
    assert message in error
    assert sorted(path.name for path in suite.parent.iterdir()) == ["suite.json"]
