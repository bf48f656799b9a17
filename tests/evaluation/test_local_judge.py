"""A judge that runs here: a real language model of two layers that has learned one verdict by heart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from unireel.backbones.remote import RemoteError
from unireel.cli.main import main
from unireel.errors import UserError
from unireel.evaluation.videoqa.formats import Question
from unireel.evaluation.videoqa.judge import messages_for, parse_verdict
from unireel.evaluation.videoqa.local_judge import LocalJudge

VERDICT = "{'pred': 'yes', 'score': 4}"
TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}>"


def save_model(folder: Path, verdict: str | None, template: str | None = TEMPLATE) -> Path:
    """A model of bytes that says ``verdict`` after everything, or, untrained, anything at all."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {each: number for number, each in enumerate([*symbols, "</s>"])}
    bytes_of = Tokenizer(models.BPE(vocabulary, []))
    bytes_of.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    bytes_of.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_of, eos_token="</s>")
    tokenizer.chat_template = template
    torch.manual_seed(0)
    network = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(vocabulary),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            eos_token_id=vocabulary["</s>"],
        )
    )
    if verdict is not None:
        ids = torch.tensor([[*tokenizer(f">{verdict}").input_ids, vocabulary["</s>"]]])
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
        for _ in range(80):
            loss = network(input_ids=ids, labels=ids).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss < 0.05
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("judges")
    # The template of the judge that has learned shows it the mark alone: it is judged by form, not by wisdom.
    return {
        "fair": save_model(folder / "fair", VERDICT, ">"),
        "untrained": save_model(folder / "untrained", None, None),
    }


def test_a_verdict_comes_with_its_cost(folders: dict[str, Path]) -> None:
    judge = LocalJudge(str(folders["fair"]), "cpu")
    reply = judge.chat(messages_for(Question("1", "v", "what?", ("red",)), "red"), max_tokens=64)
    verdict = parse_verdict(reply.text)
    assert reply.text == VERDICT
    assert verdict is not None
    assert (verdict.right, verdict.score) == (True, 4)
    assert (reply.prompt_tokens, reply.completion_tokens) == (1, len(VERDICT) + 1)
    assert judge.spent.requests == 1
    assert judge.model.startswith("fair@")
    assert judge.model != LocalJudge(str(folders["untrained"]), "cpu").model


def test_what_does_not_fit_is_a_failure_of_that_question(folders: dict[str, Path]) -> None:
    judge = LocalJudge(str(folders["untrained"]), "cpu")
    with pytest.raises(RemoteError, match=r"has \d+ tokens; the judge takes 2048"):
        judge.chat([{"role": "user", "content": "a" * 2100}], max_tokens=8)


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be loaded"):
        LocalJudge(str(tmp_path), "cpu")


def test_the_command_judges_and_keeps_its_verdicts(folders: dict[str, Path], tmp_path: Path) -> None:
    questions = [
        {"question_id": str(n), "video_name": "v", "question": "what?", "answer": "red"} for n in range(3)
    ]
    (tmp_path / "q.json").write_text(json.dumps(questions))
    (tmp_path / "p.json").write_text(
        json.dumps([{"question_id": str(n), "prediction": "red"} for n in range(2)])
    )

    def judged(name: str, out: str) -> dict:
        words = ["--predictions", "p.json", "--questions", "q.json", "--metric", "judge", "--out", out]
        words = [str(tmp_path / each) if "." in each or each == out else each for each in words]
        words += ["--judge-local", str(folders[name]), "--judge-device", "cpu", "--json", str(tmp_path / "s")]
        assert main(["evaluate", "videoqa", *words]) == 0
        return json.loads((tmp_path / "s").read_text())

    found = judged("fair", "one")
    assert found["scores"]["judge"]["value"] == pytest.approx(2 / 3)
    assert (found["judge"]["judged"], found["judge"]["unanswered"], found["judge"]["url"]) == (2, 1, "local")
    again = judged("fair", "one")
    assert (again["judge"]["cached"], again["judge"]["requests"]) == (2, 0)
    other = judged("untrained", "one")  # another judge: its own verdicts, and nonsense is not guessed at
    assert (other["judge"]["judged"], other["judge"]["cached"], other["judge"]["failed"]) == (0, 0, 2)
    assert other["problem_counts"]["judge answered nonsense"] == 2
    assert other["scores"]["judge"] == {
        "value": 0.0,
        "low": 0.0,
        "high": pytest.approx(0.79, abs=0.01),
        "n": 1,
    }
    assert (tmp_path / "one" / "report.html").is_file()


def test_options_of_an_endpoint_do_not_go_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--predictions", "p", "--questions", "q", "--metric", "judge", "--out", "o"]
    assert main(["evaluate", "videoqa", *words, "--judge-local", "x", "--judge-price", "1,2"]) == 2
    assert "--judge-price is for a judge behind an endpoint" in capsys.readouterr().err
