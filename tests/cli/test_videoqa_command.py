"""``unireel evaluate videoqa``: the known value, what is kept, what it says about bad files, every error."""

import json
import subprocess
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from unireel.cli.main import main
from unireel.clip import Clip

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Serve = Callable[[Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]], str]

QUESTIONS = [
    {
        "question_id": number,
        "video_name": f"v{number % 2}",
        "question": "what",
        "answer": "a cat",
        "type": number % 2,
    }
    for number in range(6)
]
SAID = ["a cat", "cat", "a dog", "a cat", "Cat.", None]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "q.json").write_text(json.dumps(QUESTIONS))
    predictions = [{"question_id": number, "answer": said} for number, said in enumerate(SAID) if said]
    (tmp_path / "p.json").write_text(
        json.dumps([*predictions, {"question_id": 77, "answer": "x"}, {"answer": "y"}])
    )
    return tmp_path


def test_the_known_value_of_activitynet_qa(here: Run, fixtures_dir: Path) -> None:
    options = {"predictions": "pred_val_example", "questions": "val_q", "answers": "val_a"}
    words = [f"--{name}={fixtures_dir}/activitynetqa_{file}.json" for name, file in options.items()]
    result = here("evaluate", "videoqa", *words, "--metric", "exact", "--json", "-")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["scores"]["exact"]["value"] == pytest.approx(0.39844, abs=5e-6)
    assert found["counts"] == {"questions": 18000, "answered": 18000}
    assert found["problems"] == []


def test_what_is_missing_counts_as_wrong_and_is_listed(here: Run, files: Path) -> None:
    words = [
        "--predictions",
        "p.json",
        "--questions",
        "q.json",
        "--metric",
        "exact,normalized",
        "--out",
        "run",
    ]
    result = here("evaluate", "videoqa", *words, "--json", "s.json")
    assert result.returncode == 0, result.stderr
    found = json.loads((files / "s.json").read_text())
    assert found == json.loads((files / "run" / "scores.json").read_text())
    assert found["scores"]["exact"]["value"] == pytest.approx(2 / 6)
    assert found["scores"]["normalized"]["value"] == pytest.approx(4 / 6)
    assert found["scores"]["exact/1"]["n"] == 3
    assert found["problem_counts"] == {
        "bad row": 1,
        "question without prediction": 1,
        "prediction without question": 1,
    }
    assert "5 of 6 questions have a prediction" in result.stdout
    assert "prediction without question: 1\n    77\n" in result.stdout
    items = [json.loads(line) for line in (files / "run" / "items.jsonl").read_text().splitlines()]
    assert [item["exact"] for item in items] == [True, False, False, True, False, False]
    assert items[5]["said"] is None


def test_a_judge_and_its_cost(here: Run, files: Path, serve: Serve) -> None:
    def respond(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        said = json.loads(body["messages"][1]["content"])["given"]
        text = str(
            {"pred": "yes" if "cat" in said.lower() else "no", "score": 5 if "cat" in said.lower() else 2}
        )
        usage = {"prompt_tokens": 1000, "completion_tokens": 100}
        content = json.dumps({"choices": [{"message": {"content": text}}], "usage": usage}).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    words = [
        "evaluate",
        "videoqa",
        "--predictions",
        "p.json",
        "--questions",
        "q.json",
        "--metric",
        "judge",
        "--out",
        "run",
    ]
    words += ["--judge-url", serve(respond), "--judge-model", "m", "--judge-price", "1,10", "--json", "-"]
    found = json.loads(here(*words).stdout)
    assert found["scores"]["judge"]["value"] == pytest.approx(4 / 6)
    assert found["scores"]["judge_score"]["value"] == pytest.approx((4 * 5 + 2 + 0) / 6)
    judge = found["judge"]
    assert (judge["judged"], judge["unanswered"], judge["requests"], judge["cost"]) == (5, 1, 5, 0.01)
    again = json.loads(here(*words).stdout)
    assert again["scores"] == found["scores"]
    assert (again["judge"]["cached"], again["judge"]["requests"], again["judge"]["cost"]) == (5, 0, 0.0)


@pytest.mark.parametrize(
    ("code", "words", "message"),
    [
        (2, "--questions q.json", "name either the --predictions to score, or the --model"),
        (2, "--questions q.json --model m", "--model needs --videos"),
        (2, "--predictions p.json --questions q.json --reflect", "--reflect needs --model"),
        (2, "--predictions p.json --questions q.json --ranker r", "--ranker needs --reflect"),
        (1, "--questions q.json --model pocket/none --videos . --out run", "there is no model"),
        (1, "--questions q.json --model pocket/base --videos no --out run", "there is no folder no"),
        (
            2,
            "--questions q.json --predictions p.json --metric taste",
            "there is no metric 'taste'; accepted: exact,",
        ),
        (2, "--questions q.json --predictions p.json --metric wups", "needs --wordnet"),
        (
            1,
            "--questions q.json --predictions p.json --metric wups --wordnet .",
            "does not hold WordNet's index.noun",
        ),
        (2, "--questions q.json --predictions p.json --metric judge", "needs --judge-url and --judge-model"),
        (
            2,
            "--questions q.json --predictions p.json --metric judge --judge-url http://x --judge-model m",
            "needs --out",
        ),
        (
            2,
            "--questions q.json --predictions p.json --metric judge --judge-url x --judge-model m",
            "not an address",
        ),
        (1, "--questions none --predictions p.json", "cannot read none"),
        (1, "--questions q.json --predictions none", "cannot read none"),
        (
            1,
            "--questions q.json --answers p.json --predictions p.json --json no/x",
            "the folder no does not exist",
        ),
        (2, "--questions q.json --predictions other.json", "no prediction has the id of a question"),
        (2, "--predictions p.json", "the following arguments are required: --questions"),
        (2, "--questions q.json --predictions p.json --dataset imdb", "invalid choice: 'imdb'"),
    ],
)
def test_errors_are_one_line(
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    words: str,
    message: str,
) -> None:
    monkeypatch.chdir(files)
    (files / "other.json").write_text(json.dumps([{"question_id": "z", "answer": "y"}]))
    assert main(["evaluate", "videoqa", *words.split()]) == code
    output, error = capsys.readouterr()
    assert output == ""
    assert len(error.splitlines()) == 1, error
    assert message in error


def test_a_model_answers_with_controls_and_goes_on(
    here: Run, untrained: Path, tmp_path: Path, film: Clip
) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(3):
        film.save(folder / f"f{number}.mp4", scale=4)
    questions = [
        {
            "question_id": f"{n}-{w}",
            "video_name": f"f{n}",
            "question": f"what {w} is the background?",
            "answer": "black",
        }
        for n in range(4)
        for w in ("colour", "zeppelin")
    ]
    (tmp_path / "q.json").write_text(json.dumps(questions))
    words = [
        "evaluate",
        "videoqa",
        "--model",
        untrained,
        "--videos",
        folder,
        "--questions",
        "q.json",
        "--out",
        "run",
    ]
    words += ["--metric", "normalized", "--control-every", 1, "--json", "-"]
    result = here(*words)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["counts"] == {"questions": 6, "answered": 3}
    assert found["problem_counts"] == {"not asked": 2, "refused": 3}
    assert found["scores"]["normalized"]["n"] == 6
    assert {"control/intact", "control/reversed", "drop/frozen", "drop/blank"} < set(found["scores"])
    assert "control/text" not in found["scores"]
    film.save(folder / "f3.mp4", scale=4)
    again = here(*words)
    assert "6 questions are answered, 2 are left" in again.stderr
    assert json.loads(again.stdout)["counts"] == {"questions": 8, "answered": 4}
    other = here(*words, "--frames", 5)
    assert other.returncode == 1
    assert "holds another evaluation (frames: 17, not 5)" in other.stderr


def test_a_model_reflects_and_the_report_shows_what_it_looked_at(
    here: Run, untrained: Path, tmp_path: Path, film: Clip
) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    film.save(folder / "f0.mp4", scale=4)
    questions = [
        {"question_id": 1, "video_name": "f0", "question": "what colour is the star?", "answer": "red"},
        {"question_id": 2, "video_name": "f0", "question": "what zeppelin is it?", "answer": "red"},
    ]
    (tmp_path / "q.json").write_text(json.dumps(questions))
    words = ["evaluate", "videoqa", "--model", untrained, "--videos", folder, "--questions", "q.json"]
    words += ["--out", "run", "--metric", "normalized", "--control-every", 1, "--reflect", "--threshold", 1]
    result = here(*words, "--json", "-")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["problem_counts"] == {"refused": 1}
    assert {"control/reversed", "drop/blank"} < set(found["scores"])
    answers = [json.loads(line) for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()]
    (record,) = [each for each in answers if "said" in each]
    # A static question: 4, 8 and 16 of the film's frames, none of whose answers was good enough.
    assert [len(each["frames"]) for each in record["rounds"]] == [4, 8, 16]
    assert not any(each["accepted"] for each in record["rounds"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<ol class=strip>") == 3
    assert page.count("rejected with a score of") == 3
    assert page.count("<li><img") == 4 + 8 + 16
    identity = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (identity["frames"], identity["reflect"]) == (64, {"threshold": 1.0})
    again = here(*words)
    assert "2 questions are answered, 0 are left" in again.stderr


def test_two_runs_are_compared_on_a_page(here: Run, files: Path) -> None:
    everything = [{"question_id": number, "answer": "a cat"} for number in range(6)]
    (files / "p2.json").write_text(json.dumps(everything))
    for name, predictions in (("A", "p.json"), ("B", "p2.json")):
        words = ["--predictions", predictions, "--questions", "q.json", "--metric", "exact,f1", "--out", name]
        assert here("evaluate", "videoqa", *words).returncode == 0
    result = here("compare", "A", "B", "--page", "c.html", "--json", "c.json")
    assert result.returncode == 0, result.stderr
    assert "6 items in both" in result.stdout
    row = json.loads((files / "c.json").read_text())["scores"]["exact"]
    assert (row["first"], row["second"], row["wins"], row["losses"]) == (pytest.approx(1 / 3), 1, 4, 0)
    assert row["test"] == "permutation"  # three questions about each video
    page = (files / "c.html").read_text()
    assert "http" not in page
    assert page.count("<figure") == 4
    assert "A: a dog" in page
    assert "right would be: a cat" in page
    missing = here("compare", "A", "C")
    assert (missing.returncode, missing.stderr) == (
        1,
        "unireel: error: there is no C\n",
    )
    (files / "C").mkdir()
    empty = here("compare", "A", "C")
    assert (empty.returncode, empty.stderr) == (
        1,
        "unireel: error: C holds no evaluation: it has no items.jsonl, nor results of VBench\n",
    )
