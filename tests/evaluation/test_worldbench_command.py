"""``unireel evaluate worldbench``: the happy path, resuming after a kill, the report, and every error."""

import json
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from unireel.cli.main import main
from unireel.evaluation.worldbench import runner

ORACLE = ("evaluate", "worldbench", "--model", "world:oracle")


@pytest.fixture(autouse=True)
def quick_and_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "CHECKER_FILMS", 4)


def test_scores_and_report_are_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = main([*ORACLE, "--categories", "colour,i2v,qa/style,caption", "--n", "2", "--json", "scores"])
    output, progress = capsys.readouterr()
    assert code == 0, progress
    scores = json.loads(Path("scores").read_text())
    assert (scores["model"], scores["split"], scores["seed"]) == ("world:oracle", "test", 0)
    assert scores["scores"]["t2v/colour"]["value"] == 1
    assert set(scores["checker"]) == {"agreement", "rejection"}
    assert "t2v/colour" in output
    assert "checker, measured in this run: agreement" in output
    assert "left" in progress
    folder = tmp_path / "worldbench" / "world-oracle-test-0"
    assert json.loads((folder / "scores.json").read_text()) == scores
    assert str(Path("worldbench") / "world-oracle-test-0" / "report.html") in output


def test_a_dash_prints_nothing_but_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ORACLE, "--categories", "qa/style", "--n", "1", "--json", "-", "--out", "run"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"]["qa/style"]["n"] == 1


class Page(HTMLParser):
    """Collects what a page refers to, and checks that its tags are closed in order."""

    VOID = ("meta", "img", "br")
    OPTIONAL = ("html",)

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_carries_everything_and_shows_failures() -> None:
    words = [*ORACLE[:-1], "world:shuffled", "--categories", "colour,i2v,qa/style,caption", "--n", "6"]
    assert main([*words, "--out", "run", "--guidance", "3.5"]) == 0
    content = Path("run/report.html").read_text()
    page = Page()
    page.feed(content)
    assert page.open == []
    assert len(page.sources) > 12
    assert all(
        each.startswith(("data:image/webp;base64,", "data:image/png;base64,")) for each in page.sources
    )
    assert "http" not in content
    assert "prefers-color-scheme: dark" in content
    records = [json.loads(line) for line in Path("run/items.jsonl").read_text().splitlines()]
    wrong = next(each for each in records if each["part"] == "t2v/colour" and not each["right"])
    assert wrong["prompt"] in page.text
    assert all(text in page.text for _, text, holds in wrong["facts"] if not holds)
    assert "--model world:shuffled --split test --n 6 --seed 0 --categories" in page.text
    assert "--guidance 3.5" in page.text


def test_a_killed_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*ORACLE, "--categories", "single-object", "--n", "40", "--batch", "2", "--out", "run"]
    process = subprocess.Popen([sys.executable, "-m", "unireel", *words], stderr=subprocess.DEVNULL)
    items = Path("run/items.jsonl")
    while process.poll() is None and (not items.exists() or items.stat().st_size == 0):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = items.read_bytes().count(b"\n")
    assert 0 < done < 40
    assert main(words) == 0
    assert f"going on in run: {done} items are done, {40 - done} are left" in capsys.readouterr().err
    records = [json.loads(line) for line in items.read_text().splitlines()]
    assert [each["index"] for each in records] == list(range(40))
    assert json.loads(Path("run/scores.json").read_text())["scores"]["t2v/single object"]["n"] == 40


def test_shards_give_what_one_run_gives(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "worldbench", "--model", "world:shuffled", "--categories", "t2i/colour,qa/existence"]
    words += ["--n", "7", "--batch", "3"]
    assert main([*words, "--out", "whole"]) == 0
    assert main([*words, "--out", "parts", "--shard", "2/3"]) == 0
    capsys.readouterr()
    assert main([*words, "--out", "parts", "--shard", "1/3", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == {"scores": {}, "counts": {"items": 10, "missing": 4}}
    assert not Path("parts/scores.json").exists()
    assert main([*words, "--out", "parts", "--shard", "1/3"]) == 0
    output, progress = capsys.readouterr()
    assert "going on in parts: 6 items are done, 0 are left" in progress
    assert "this shard is done; 4 items of others are still to be done" in output
    assert main([*words, "--out", "parts", "--shard", "3/3"]) == 0
    assert json.loads(Path("parts/scores.json").read_text()) == json.loads(
        Path("whole/scores.json").read_text()
    )
    assert Path("parts/report.html").exists()
    capsys.readouterr()
    assert main(["compare", "whole", "parts", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"shared": 14, "only_first": 0, "only_second": 0}
    assert all(row["difference"]["value"] == 0 for row in found["scores"].values())
    assert main([*words, "--out", "parts"]) == 0  # everything is there
    assert "14 items are done, 0 are left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "words", "message"),
    [
        (2, ["--categories", "teleport"], "unknown category 'teleport'; accepted: "),
        (2, ["--categories", ""], "unknown category ''"),
        (2, ["--n", "0"], "0 is outside 1 to 1000000"),
        (2, ["--n", "many"], "'many' is not a whole number"),
        (2, ["--split", "train"], "invalid choice: 'train'"),
        (2, ["--batch", "0"], "0 is outside 1 to 1024"),
        (2, ["--shard", "3/2"], "'3/2' is not a shard; write I/N"),
        (2, ["--guidance", "nan"], "nan is outside 0 to 100"),
        (
            2,
            ["--model", "world:god"],
            "there is no model 'world:god'; accepted: world:oracle, world:shuffled",
        ),
        (1, ["--model", "pocket/none"], "there is no model 'pocket/none'"),
        (1, ["--out", "no/such/folder"], "the folder no/such does not exist"),
        (1, ["--out", "file"], "cannot write file: it is a file; name a new folder"),
        (1, ["--out", "taken"], "the folder holds other files"),
        (1, ["--json", "taken"], "cannot write taken: it is a folder"),
        (1, ["--json", "no/such.json"], "the folder no does not exist"),
        (1, ["--out", "other", "--seed", "1"], "holds another evaluation (seed: 0, not 1)"),
    ],
)
def test_errors_are_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, code: int, words: list[str], message: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thing").write_text("")
    (tmp_path / "other").mkdir()
    identity = {"model": "world:oracle", "split": "test", "seed": 0, "steps": None, "guidance": None}
    (tmp_path / "other" / "run.json").write_text(json.dumps(identity))
    assert main([*ORACLE, *words]) == code
    output, error = capsys.readouterr()
    assert output == ""
    assert len(error.splitlines()) == 1, error
    assert error.startswith("unireel: error: ")
    assert message in error
    assert not (tmp_path / "worldbench").exists()
