"""WorldBench with real models, untrained ones: each is asked for what its system can do, and for nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import unireel
from unireel.cli.main import main
from unireel.evaluation.worldbench import runner
from unireel.systems.base.pipeline import BasePipeline
from unireel.systems.omnivideo.building import Sizes
from unireel.systems.omnivideo.pipeline import OmniVideo
from unireel.systems.omnivideo.settings import Budgets, Settings

SMALL = Sizes(head_layers=1, head_ffn=32, expansion=4, adapter_layers=1, adapter_ffn=32, heads=2)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHECKER_FILMS", 2)


def test_a_model_that_edits_is_judged(untrained: Path, tmp_path: Path) -> None:
    editor = OmniVideo.from_base(unireel.load(untrained), Settings(budgets=Budgets(visual=20)), SMALL)
    editor.save_pretrained(tmp_path / "editor")
    words = ["--model", str(tmp_path / "editor"), "--categories", "edit/recolour,edit/background", "--n", "1"]
    words += ["--steps", "1", "--out", str(tmp_path / "run"), "--json", str(tmp_path / "scores.json")]
    assert main(["evaluate", "worldbench", *words]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())["scores"]
    assert scores["edit/overall"]["n"] == 2
    assert scores["edit/overall"]["value"] == 0
    assert 0 < scores["edit/preserve_psnr"]["value"] < 25
    records = [json.loads(line) for line in (tmp_path / "run" / "items.jsonl").read_text().splitlines()]
    assert [each["part"] for each in records] == ["edit/recolour", "edit/background"]
    assert all((tmp_path / "run" / "films" / each["film"]).is_file() for each in records)


def test_a_model_that_does_not_edit_is_not_asked_to(
    untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "worldbench", "--model", str(untrained), "--n", "1", "--out", str(tmp_path / "run")]
    assert main([*words, "--categories", "qa/style,edit"]) == 1
    assert "cannot do 'edit'; leave it out of --categories" in capsys.readouterr().err


def test_the_film_that_the_model_believes_in_is_judged(
    untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    honest = BasePipeline.best_of_many

    def watched(self: BasePipeline, prompts: list[str], count: int, **options: object) -> list:
        asked.append(count)
        return honest(self, prompts, count, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(BasePipeline, "best_of_many", watched)
    words = [
        "evaluate",
        "worldbench",
        "--model",
        str(untrained),
        "--n",
        "1",
        "--steps",
        "1",
        "--categories",
        "i2v",
    ]
    words += ["--out", str(tmp_path / "run"), "--best-of", "2", "--fast"]
    assert main(words) == 0
    assert asked == [2]
    identity = json.loads((tmp_path / "run" / "run.json").read_text())
    assert '"best_of": 2' in json.dumps(identity) and '"fast": true' in json.dumps(identity)
    capsys.readouterr()
    assert main(["evaluate", "worldbench", *words[2:-3]]) != 0  # another run: the folder is taken
    assert main(["evaluate", "worldbench", "--model", "world:oracle", "--n", "1", "--best-of", "2",
                 "--categories", "t2v/overall", "--out", str(tmp_path / "other")]) != 0  # fmt: skip
