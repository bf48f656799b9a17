"""Detailed descriptions of films, from real servers on the loopback: kept, resumed, counted, never guessed."""

import base64
import csv
import io
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unireel.backbones.remote import Reply
from unireel.cli.main import main
from unireel.clip import Clip
from unireel.data.captioned import read_captioned
from unireel.data.captioning import MOST_TOKENS, nonsense

Serve = Callable[[Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]], str]
GOOD = "The picture is {} all over and stays so from the first moment to the last while nothing at all moves in it here"


def answer(handler: BaseHTTPRequestHandler, text: str, status: int = 200) -> None:
    usage = {"prompt_tokens": 500, "completion_tokens": 40}
    content = json.dumps({"choices": [{"message": {"content": text}}], "usage": usage}).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def describes(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """Says how bright the pictures are; has nothing to say about dark ones."""
    parts = body["messages"][1]["content"]
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].partition(",")[2])))
        for part in parts[:-1]
    ]
    assert len(pictures) == 3 and {each.size for each in pictures} == {(48, 32)}
    shade = np.mean([np.asarray(each) for each in pictures])
    assert json.loads(parts[-1]["text"]) == {"caption": "a plain film"}
    answer(handler, "Sorry, I cannot." if shade < 50 else GOOD.format("white" if shade > 150 else "gray"))


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A list with three films, one that is not there, and three bad rows."""
    rows = [
        "video,caption",
        "white.mp4,a plain film",
        "gray,a plain film",
        "dark,a plain film",
        "gone,a film",
    ]
    for name, shade in (("white", 220), ("gray", 100), ("dark", 10)):
        Clip(np.full((5, 32, 48, 3), shade, np.uint8), 8).save(tmp_path / f"{name}.mp4")
    path = tmp_path / "films.csv"
    path.write_text("\n".join([*rows, ",without a name", "gray,a plain film"]) + "\n")
    return path


def described(films: Path, url: str, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    words = ["data", "caption", str(films), "--captioner", f"{url}#m", "--frames", "3", "--json", *more]
    capsys.readouterr()
    assert main(words) == 0
    return json.loads(capsys.readouterr().out)


def test_films_are_described_once_and_what_was_not_is_listed(
    serve: Serve, films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = serve(describes)
    found = described(films, url, capsys, "--price", "1,10")
    wanted = {"films": 4, "written": 2, "cached": 0, "failed": 1, "not_asked": 1, "bad_rows": 2}
    assert found["counts"] == wanted
    assert found["cost"]["cost"] == pytest.approx(3 * (500 + 400) / 1e6)
    said = {each["video"]: each["what"] for each in found["problems"]}
    assert said["dark"].startswith("a refusal: Sorry")
    assert "there is no film 'gone'" in said["gone"]
    assert (said["row 5"], said["row 6"]) == ("no video", "another row has the film 'gray'")
    with films.with_name("films-detailed.csv").open(newline="") as file:
        rows = {row["video"]: row for row in csv.DictReader(file)}
    assert rows["white.mp4"]["detailed"] == GOOD.format("white")
    assert rows["gray"] == {"video": "gray", "caption": "a plain film", "detailed": GOOD.format("gray")}
    assert rows["dark"]["detailed"] == ""
    good, bad = read_captioned(films.with_name("films-detailed.csv"), ("video", "caption", "detailed"))
    assert len(good) == len(bad) == 2
    # A killed run loses at most half a line; what is there is not asked about again.
    kept = films.with_name("films-detailed.jsonl")
    kept.write_bytes(kept.read_bytes()[:-9])
    counts = described(films, url, capsys)["counts"]
    assert (counts["written"], counts["cached"], counts["failed"]) == (1, 1, 1)
    Clip(np.full((5, 32, 48, 3), 200, np.uint8), 8).save(films.with_name("gray.mp4"), crf=40)
    assert described(films, url, capsys)["counts"]["written"] == 1


def test_a_captioner_that_is_dead_or_too_dear_is_given_up(
    serve: Serve, films: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = serve(describes)
    assert described(films, url, capsys, "--requests", "1", "--parallel", "1")["counts"]["not_asked"] == 3
    films.write_text("video,caption\n" + "".join(f"f{n},a plain film\n" for n in range(12)))
    for number in range(12):
        films.with_name(f"f{number}.mp4").symlink_to(films.with_name("white.mp4"))
    dead = serve(lambda handler, body: answer(handler, "", 400))
    words = ["data", "caption", str(films), "--captioner", f"{dead}#other", "--parallel", "2"]
    assert main(words) == 1
    assert "no film could be described" in capsys.readouterr().err
    assert (
        "f1," not in films.with_name("films-detailed.csv").read_text()
    )  # what was written before is left alone


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, None),
        ("", "0 words"),
        ("a red car", "3 words"),
        (
            "I can't describe this video, because there is nothing to be seen in it that I could say.",
            "a refusal",
        ),
        ("car " * 40, "it repeats itself"),
        ("```\n" + GOOD + "\n```", "no plain text"),
        ('{"caption": "' + GOOD + '"}', "no plain text"),
    ],
)
def test_what_is_no_description(text: str, reason: str | None) -> None:
    assert nonsense(Reply(text, 0, 10, 0.0)) == reason
    assert nonsense(Reply(text, 0, MOST_TOKENS, 0.0)) == "cut off"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("none.csv --captioner http://localhost:1/v1#m", 1, "cannot read none.csv"),
        ("films.csv --captioner http://localhost:1/v1", 2, "lacks the model's name: write URL#NAME"),
        ("films.csv --captioner nowhere#m", 2, "is not an address of an endpoint"),
        ("films.csv --captioner http://localhost:1/v1#m --folder no", 1, "there is no folder no"),
        ("films.csv --captioner http://localhost:1/v1#m -o x.txt", 2, "a table that ends in .csv"),
        ("films.csv --captioner http://localhost:1/v1#m --price much", 2, "two numbers"),
    ],
)
def test_errors_are_one_line(
    films: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(films.parent)
    assert main(["data", "caption", *words.split()]) == code
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
