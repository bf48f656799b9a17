"""Asking models about videos: each video once, controls, missing videos, refusals, resuming."""

import base64
import io
import json
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unireel.backbones.remote import Endpoint, RemoteError
from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.journal import Journal
from unireel.evaluation.videoqa.askers import Ask, ChatModel, words_for
from unireel.evaluation.videoqa.datasets import DATASETS
from unireel.evaluation.videoqa.formats import Question
from unireel.evaluation.videoqa.metrics import SIMPLE
from unireel.evaluation.videoqa.running import Setting, control_scores, find_video, read_names, results, run

Serve = Callable[[Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]], str]
ALL = Setting(frames=5, control_every=1)


class Watcher:
    """Says whether a film grows brighter or darker, and refuses to speak of ducks."""

    without_film = True
    batch = 8

    def __init__(self) -> None:
        self.asked = 0

    def ask(self, asks: Sequence[Ask]) -> list[str]:
        if any("duck" in question.text for _, question in asks):
            raise UserError("the word 'duck' is unknown")
        self.asked += len(asks)
        return [self.answer(clip) for clip, _ in asks]

    def answer(self, clip: Clip | None) -> str:
        change = 0 if clip is None else int(clip.frames[-1].mean()) - int(clip.frames[0].mean())
        return "brighter" if change > 20 else "darker" if change < -20 else "neither"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Two films that grow brighter, one that grows darker."""
    folder = tmp_path / "videos"
    folder.mkdir()
    ramp = np.linspace(20, 220, 5).astype(np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    Clip(ramp, 8).save(folder / "a.mp4")
    Clip(ramp, 8).save(folder / "v_b.mp4")
    Clip(ramp[::-1], 8).save(folder / "c.gif")
    return folder


QUESTIONS = [
    Question("1", "a", "how does it change", ("brighter",)),
    Question("2", "c", "how does it change", ("darker",)),
    Question("3", "a", "what does the duck do", ("brighter",)),
    Question("4", "gone", "how does it change", ("darker",)),
    Question("5", "b", "how does it change", ("darker",)),
]


def answered(asker: Any, videos: Path, journal: Journal, setting: Setting = ALL) -> None:
    run(
        asker,
        QUESTIONS,
        lambda name: find_video(name, videos, DATASETS["activitynet-qa"], {}),
        setting,
        journal,
    )


def test_answers_controls_and_what_is_missing(videos: Path, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "answers.jsonl")
    answered(Watcher(), videos, journal)
    pairs, problems = results(QUESTIONS, journal)
    assert {question.id: said for question, said in pairs} == {
        "1": "brighter",
        "2": "darker",
        "3": None,
        "5": "brighter",
    }
    assert [(each.kind, each.where) for each in problems] == [("refused", "3"), ("not asked", "4")]
    assert "there is no video 'gone'" in problems[1].what
    scores = control_scores(pairs, journal, SIMPLE["exact"])
    assert scores["control/intact"].value == pytest.approx(2 / 3)
    # Reversed, the third film shows what is (wrongly) taken for right; blank, frozen or absent films show no change.
    assert scores["control/reversed"].value == pytest.approx(1 / 3)
    assert scores["drop/reversed"].value == pytest.approx(1 / 3)
    for name in ("frozen", "blank", "text"):
        assert scores[f"control/{name}"].value == 0
        assert scores[f"drop/{name}"].value == pytest.approx(2 / 3)
        assert scores[f"drop/{name}"].n == 3


def test_a_rerun_asks_only_what_failed(videos: Path, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    answered(Watcher(), videos, Journal(path))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 5])  # killed while the last record was written
    lost = json.loads(whole.splitlines()[-1])["id"]
    Clip(np.zeros((5, 32, 32, 3), np.uint8), 8).save(videos / "gone.mp4")
    watcher = Watcher()
    journal = Journal(path)
    assert lost not in journal
    answered(watcher, videos, journal)
    assert results(QUESTIONS, journal)[1][0].kind == "refused"
    assert "error" not in journal["4"]
    assert watcher.asked == 2 * 5 if lost != "4" else 5
    answered(again := Watcher(), videos, journal)
    assert again.asked == 0


def test_every_fourth_question_has_controls_and_always_the_same() -> None:
    chosen = [number for number in range(1000) if Setting().controlled(Question(str(number), "v", "q"))]
    assert 200 < len(chosen) < 300
    assert not Setting(control_every=0).controlled(Question("1", "v", "q"))


def test_names_of_files(tmp_path: Path, videos: Path) -> None:
    mapping = tmp_path / "youtube_mapping.txt"
    mapping.write_text("a vid1\nc vid20\n")
    names = read_names(mapping)
    assert find_video("20", videos, DATASETS["msvd-qa"], names).name == "c.gif"
    assert find_video("vid1", videos, DATASETS["msvd-qa"], names).name == "a.mp4"
    assert find_video("b", videos, DATASETS["activitynet-qa"], {}).name == "v_b.mp4"
    (tmp_path / "secret.mp4").write_bytes(b"x")
    with pytest.raises(UserError, match="lies outside"):
        find_video("../secret", videos, DATASETS["any"], {})


def test_a_chat_model_sees_frames_and_options(videos: Path, tmp_path: Path, serve: Serve) -> None:
    seen: list[str] = []

    def respond(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        parts = body["messages"][0]["content"]
        seen.append(parts[-1]["text"])
        pictures = [base64.b64decode(each["image_url"]["url"].partition(",")[2]) for each in parts[:-1]]
        light = [np.asarray(Image.open(io.BytesIO(each))).mean() for each in pictures]
        change = light[-1] - light[0] if light else 0
        said = "A" if change > 20 else "B" if change < -20 else "C"
        content = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    question = Question("1", "a", "what happens", ("brighter",), "", ("brighter", "darker", "nothing"), 0)
    journal = Journal(tmp_path / "answers.jsonl")
    asker = ChatModel(Endpoint(serve(respond), "m"))
    run(asker, [question], lambda name: videos / "a.mp4", ALL, journal)
    assert journal["1"] == {
        "id": "1",
        "said": "A",
        "controls": {"reversed": "B", "frozen": "C", "blank": "C", "text": "C"},
    }
    assert seen == [words_for(question)] * 5
    assert words_for(question).startswith("What happens?\nA. brighter\nB. darker\n")
    assert control_scores([(question, "A")], journal, SIMPLE["choice"])["drop/text"].value == 1


def test_an_endpoint_that_is_dead_ends_the_run_and_loses_nothing(videos: Path, tmp_path: Path) -> None:
    many = [Question(str(number), f"x{number}", "what", ("y",)) for number in range(20)]
    journal = Journal(tmp_path / "answers.jsonl")
    journal.append([{"id": "0", "said": "y"}])
    asker = ChatModel(Endpoint("http://127.0.0.1:9", "m", attempts=1))
    with pytest.raises(RemoteError, match=r"gave up after 5 videos without any answer: .*refused"):
        run(asker, many, lambda name: videos / "a.mp4", Setting(5, 0), journal)
    assert journal["0"] == {"id": "0", "said": "y"}
    assert sum("error" in record for record in journal) == 5
