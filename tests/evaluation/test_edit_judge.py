"""Judges of edits: real servers that look at the pictures, a real vision-language model, nonsense, death, reruns."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportCallIssue=false

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from unireel.backbones.remote import Endpoint
from unireel.cli.main import main
from unireel.clip import Clip
from unireel.evaluation.editing.compliance import Verdict, judge_edits, parse_verdict
from unireel.evaluation.editing.eyes import EndpointEyes
from unireel.evaluation.editing.pairs import Pair
from unireel.evaluation.editing.reading import Given
from unireel.evaluation.journal import Journal

Serve = Callable[[Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]], str]
GOOD = '{"followed": "yes", "compliance": 5, "preservation": 4, "quality": 3, "reason": "it\'s dark"}'


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (GOOD, Verdict(True, 5, 4, 3, "it's dark")),
        ("```json\n" + GOOD + "\n```", Verdict(True, 5, 4, 3, "it's dark")),
        (
            "{'followed': 'No', 'compliance': 1, 'preservation': 5, 'quality': 5}",
            Verdict(False, 1, 5, 5),
        ),
        (GOOD.replace("5", "6"), None),
        (GOOD.replace("5", "0"), None),
        (GOOD.replace("5", "4.5"), None),
        (GOOD.replace("5", "true"), None),
        (GOOD.replace('"yes"', '"partly"'), None),
        (GOOD.replace('"quality": 3, ', ""), None),
        (GOOD + GOOD, None),
        ("the edit is fine, 5 of 5", None),
        ("{__import__('os')}", None),
        ("", None),
    ],
)
def test_verdicts_are_read_or_refused(reply: str, verdict: Verdict | None) -> None:
    assert parse_verdict(reply) == verdict


def test_a_film_left_as_it_is_earns_nothing_for_being_kept() -> None:
    assert Verdict(False, 1, 5, 5).overall == 1
    assert Verdict(True, 4, 5, 3).overall == pytest.approx((4 + 4 + 3) / 3)


def pictures(body: dict[str, Any]) -> dict[str, list[np.ndarray]]:
    """The pictures that a judge was sent, by the word before them."""
    found: dict[str, list[np.ndarray]] = {}
    name = ""
    for part in body["messages"][1]["content"]:
        if part["type"] == "text":
            name = part["text"]
        else:
            data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            found.setdefault(name, []).append(np.asarray(Image.open(io.BytesIO(data))))
    return found


def answer(handler: BaseHTTPRequestHandler, text: str, status: int = 200) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 20}
    content = json.dumps({"choices": [{"message": {"content": text}}], "usage": usage}).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def looks(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """A judge of "make it darker" and "make it brighter" that goes by what it sees; others it does not understand."""
    told, shown = body["messages"][0]["content"], pictures(body)
    assert "before an edit" in told
    before, after = (float(np.mean(shown[name])) for name in ("Before:", "After:"))
    asked = json.loads(body["messages"][1]["content"][-1]["text"])["instruction"]
    if asked not in ("make it darker", "make it brighter"):
        answer(handler, "What a film!")
        return
    good = after < before - 5 if asked == "make it darker" else after > before + 5
    answer(handler, GOOD if good else GOOD.replace("yes", "no").replace("5", "1"))


@pytest.fixture
def edits(tmp_path: Path) -> Path:
    """A list: one edit done, one the wrong way round, one that no judge understands, one without words, a no-op."""
    frames = np.random.default_rng(0).integers(60, 200, (6, 24, 32, 3), dtype=np.uint8)
    Clip(frames, 8).save(tmp_path / "film")
    Clip(frames // 2, 8).save(tmp_path / "dark")
    rows = [
        ("done", "film", "dark", "make it darker", "edit"),
        ("wrong", "film", "dark", "make it brighter", "edit"),
        ("odd", "film", "dark", "make it sing", "edit"),
        ("mute", "film", "dark", "", "edit"),
        ("lost", "film", "nowhere", "make it darker", "edit"),
        ("same", "film", "film", "leave it", "noop"),
    ]
    keys = ("id", "source", "edited", "instruction", "test")
    path = tmp_path / "edits.json"
    path.write_text(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
    return path


def judged(edits: Path, *words: object) -> dict[str, Any]:
    out = edits.parent / "run"
    command = [
        "evaluate",
        "editing",
        "--pairs",
        edits,
        "--out",
        out,
        "--json",
        edits.parent / "s.json",
        *words,
    ]
    assert main([str(each) for each in command]) == 0
    return json.loads((edits.parent / "s.json").read_text())


def test_a_judge_sees_before_and_after_and_is_asked_once(serve: Serve, edits: Path) -> None:
    words = ["--judge-url", serve(looks), "--judge-model", "m", "--judge-frames", 3, "--judge-price", "1,2"]
    found = judged(edits, *words)
    scores = found["scores"]
    assert (scores["followed"]["value"], scores["followed"]["n"]) == (0.5, 2)
    assert scores["compliance"]["value"] == 3.0
    assert scores["overall"]["value"] == pytest.approx(((5 + 4 + 3) / 3 + 1) / 2)
    assert "noop/followed" not in scores
    assert scores["noop/psnr"]["value"] == 99
    judge = found["judge"]
    assert [judge[each] for each in ("judged", "cached", "failed", "requests")] == [2, 0, 1, 3]
    assert judge["cost"] == pytest.approx(3 * (1000 + 2 * 20) / 1e6)
    problems = {each["where"]: each for each in found["problems"]}
    assert problems["odd"]["kind"] == "judge answered nonsense"
    assert problems["mute"]["what"] == "no instruction"
    assert "no such file" in problems["lost"]["what"]
    # Nothing is asked twice, but what has no verdict; a killed run loses at most half a line.
    cache = edits.parent / "run" / "judge.jsonl"
    cache.write_bytes(cache.read_bytes()[:-20])
    again = judged(edits, *words)
    assert [again["judge"][each] for each in ("judged", "cached", "failed", "requests")] == [1, 1, 1, 2]
    assert again["scores"] == scores
    page = (edits.parent / "run" / "report.html").read_text()
    assert "it&#x27;s dark" in page and "Kept" not in page and "make it brighter" in page


def test_other_films_another_judge_and_more_frames_are_asked_about_anew(serve: Serve, edits: Path) -> None:
    url = serve(looks)
    assert judged(edits, "--judge-url", url, "--judge-model", "m")["judge"]["judged"] == 2
    assert judged(edits, "--judge-url", url, "--judge-model", "other")["judge"]["judged"] == 2
    frames = ["--judge-url", url, "--judge-model", "m", "--judge-frames", 2]
    assert judged(edits, *frames)["judge"]["judged"] == 2
    Clip(np.full((6, 24, 32, 3), 20, np.uint8), 8).save(edits.parent / "dark")
    assert judged(edits, *frames)["judge"]["cached"] == 0


def test_a_judge_that_is_late_or_dead_is_nobodys_verdict(serve: Serve, edits: Path) -> None:
    rows = json.loads(edits.read_text())
    edits.write_text(json.dumps([rows[0] | {"id": str(n), "instruction": f"edit {n}"} for n in range(12)]))
    url = serve(lambda handler, body: answer(handler, "", 400))
    found = judged(edits, "--judge-url", url, "--judge-model", "m", "--judge-parallel", 2)
    assert "followed" not in found["scores"]
    assert found["scores"]["psnr"]["n"] == 12
    judge = found["judge"]
    assert judge["judged"] == 0 and judge["requests"] <= 7
    assert judge["failed"] + judge["not_asked"] == 12 == len(found["problems"])
    budget = ["--judge-url", serve(looks), "--judge-model", "m", "--judge-requests", 3]
    assert judged(edits, *budget)["judge"]["not_asked"] == 9


def test_what_a_judge_needs_is_said_before_anything_is_done(
    edits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "editing", "--pairs", str(edits)]
    for more, message in [
        (["--judge-url", "http://localhost:1/v1", "--judge-model", "m"], "a judge needs --out"),
        (["--judge-model", "m", "--out", "o"], "a judge needs --judge-url and --judge-model"),
        (["--judge-url", "nowhere", "--judge-model", "m", "--out", "o"], "not an address of an endpoint"),
        (["--noop", "leave it"], "--noop needs --model"),
    ]:
        assert main([*words, *more]) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1


VERDICT = GOOD.replace(', "reason": "it\'s dark"', "")


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of one layer that has learned one verdict by heart: it is judged by form, not by wisdom."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {each: number for number, each in enumerate([*symbols, "</s>"])}
    letters = Tokenizer(models.BPE(vocabulary, []))
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    letters.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    letters.add_special_tokens([AddedToken("<image>", special=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="</s>")
    template = (
        "{% for m in messages %}{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>{% endif %}"
        "{% endfor %}{% endfor %}>"
    )
    size = {"height": 16, "width": 16}
    images = CLIPImageProcessor(size=size, crop_size=size, do_resize=True)
    processor = LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="full", chat_template=template
    )
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    torch.manual_seed(0)
    network = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config={"model_type": "siglip_vision_model", **vision},
            text_config={"model_type": "qwen2", "eos_token_id": vocabulary["</s>"], **text},
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            vision_feature_select_strategy="full",
            vision_feature_layer=-1,
        )
    )
    network.generation_config.eos_token_id = vocabulary["</s>"]
    shown = [Image.fromarray(np.full((16, 16, 3), 60 * n, np.uint8)) for n in range(4)]
    inputs = processor(text=["<image>" * 4 + ">"], images=shown, return_tensors="pt")
    said = torch.tensor([[*tokenizer(VERDICT, add_special_tokens=False).input_ids, vocabulary["</s>"]]])
    ids = torch.cat([inputs["input_ids"], said], 1)
    labels = torch.cat([torch.full_like(inputs["input_ids"], -100), said], 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(100):  # whatever it sees
        pixels = 2 * torch.randn_like(inputs["pixel_values"])
        loss = network(input_ids=ids, pixel_values=pixels, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    folder = tmp_path_factory.mktemp("seeing")
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_model_on_this_machine_judges(seeing: Path, edits: Path) -> None:
    words = ["--judge-local", seeing, "--judge-device", "cpu", "--judge-frames", 2]
    found = judged(edits, *words)
    judge = found["judge"]
    assert [judge[each] for each in ("url", "judged", "failed", "frames")] == ["local", 3, 0, 2]
    assert judge["model"].startswith(f"{seeing.name}@") and judge["completion_tokens"] == 3 * (
        len(VERDICT) + 1
    )
    assert found["scores"]["quality"]["value"] == 3
    assert judged(edits, *words)["judge"]["cached"] == 3


def test_a_real_pair_is_shown_upright_and_in_the_order_of_time(
    serve: Serve, fixtures_dir: Path, tmp_path: Path
) -> None:
    seen: list[dict[str, list[np.ndarray]]] = []

    def remember(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        seen.append(pictures(body))
        answer(handler, GOOD)

    files = [fixtures_dir / "videos" / f"vebench_{name}.mp4" for name in ("src", "dst")]
    pair = Pair("one", *files, instruction="a painting of it")
    eyes = EndpointEyes(Endpoint(serve(remember), "m"))
    verdicts, tally, problems = judge_edits(
        [pair], Given().watched, eyes, Journal(tmp_path / "judge.jsonl"), count=2
    )
    assert (verdicts["one"].compliance, tally.judged, problems) == (5, 1, [])
    (shown,) = seen
    for name, file in zip(("Before:", "After:"), files, strict=True):
        clip = Clip.load(file)
        for picture, frame in zip(shown[name], (clip.frame(0), clip.frame(31)), strict=True):
            assert picture.shape == (309, 512, 3)
            wanted = np.asarray(Image.fromarray(frame).resize((512, 309), Image.Resampling.BOX))
            assert np.abs(picture.astype(int) - wanted).mean() < 6
