"""Talkers: endpoints against a server on this machine, transformers models against their own forward."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

import base64
import io
import json
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from unireel.backbones.remote import Endpoint
from unireel.backbones.text import word_tokenizer
from unireel.backbones.understanding import ProcessorUnderstanding, Request
from unireel.clip import Clip
from unireel.errors import UserError
from unireel.systems.univid.reflection.cache import FilmCache
from unireel.systems.univid.reflection.loop import PyramidReflection, ReflectionConfig
from unireel.systems.univid.reflection.roles import Roles, RuleRouter, StatementReflector
from unireel.systems.univid.reflection.talkers import (
    EndpointTalker,
    LanguageTalker,
    UnderstandingTalker,
    load_talker,
)
from unireel.world.language import vocabulary

Reply = tuple[int, object] | Callable[[dict], tuple[int, object]]


class Server:
    """A server on this machine that gives one reply after the other, the last one again and again."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.requests: list[dict] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.requests.append(body)
                reply = owner.replies.pop(0) if len(owner.replies) > 1 else owner.replies[0]
                status, content = reply(body) if callable(reply) else reply
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "UNIREEL_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    made = Server()
    yield made
    made.stop()


def completion(text: str, logs: tuple[float, ...] = (), used: tuple[int, int] = (12, 3)) -> dict:
    choice: dict = {"message": {"role": "assistant", "content": text}}
    if logs:
        choice["logprobs"] = {"content": [{"token": "x", "logprob": each} for each in logs]}
    return {"choices": [choice], "usage": {"prompt_tokens": used[0], "completion_tokens": used[1]}}


def talker(server: Server, sees: bool = True, **settings) -> EndpointTalker:
    return EndpointTalker(
        Endpoint(server.address, "judge", **{"pause": 0.0, "timeout": 5.0, **settings}), sees
    )


class TestEndpoint:
    """What is said and read; time-outs, attempts, budgets and keys are those of :mod:`unireel.backbones.remote`."""

    def test_an_answer_with_its_probability(self, server):
        server.replies = [(200, completion(" red ", (math.log(0.9), math.log(0.4))))]
        said = talker(server).say("what colour?", most=7)
        assert said.text == "red" and said.confidence == pytest.approx(0.6)
        assert (said.tokens_in, said.tokens_out) == (12, 3)
        (body,) = server.requests
        assert body["messages"] == [{"role": "user", "content": "what colour?"}]
        assert (body["model"], body["max_tokens"], body["temperature"]) == ("judge", 7, 0)

    @pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": [{"logprob": "?"}]}])
    def test_an_answer_without_probabilities(self, server, logprobs):
        reply = completion("red")
        reply["choices"][0]["logprobs"] = logprobs
        server.replies = [(200, reply)]
        assert talker(server).say("what colour?").confidence is None

    def test_pictures_come_first_and_in_order(self, server):
        server.replies = [(200, completion("red"))]
        pictures = [np.full((16, 24, 3), level, np.uint8) for level in (40, 90, 200)]
        talker(server).say("what?", pictures)
        *images, text = server.requests[0]["messages"][0]["content"]
        assert text == {"type": "text", "text": "what?"}
        for image, picture in zip(images, pictures, strict=True):
            data = base64.b64decode(image["image_url"]["url"].partition(",")[2])
            arrived = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            assert arrived.shape == picture.shape and np.abs(arrived.astype(int) - picture).max() <= 4

    def test_blind_ones_are_shown_nothing(self, server):
        with pytest.raises(UserError, match="takes words only"):
            talker(server, sees=False).say("what?", [np.zeros((2, 2, 3), np.uint8)])

    def test_a_budget_that_is_spent(self, server):
        server.replies = [(200, completion("red"))]
        poor = talker(server, most_requests=1)
        poor.say("one")
        with pytest.raises(UserError, match="budget of 1 requests"):
            poor.say("two")

    def test_names_hide_what_is_secret(self):
        assert EndpointTalker(Endpoint("http://user:word@host:81/v1", "m")).name == "m at host:81"


def all_roles(body: dict) -> tuple[int, object]:
    """A server that plays every role, by what the prompt asks for."""
    content = body["messages"][0]["content"]
    prompt = content if isinstance(content, str) else content[-1]["text"]
    for mark, reply in (
        ('"qtype"', '{"qtype": "static", "rationale": "a colour"}'),
        ("one frame of a video", "A grey field."),
        ("These notes", "A field becomes brighter."),
        ('"score"', '{"score": 0.3, "verdict": "reject", "brief_reason": "vague"}'),
        ('"refined_query"', '{"refined_query": "a bright field"}'),
        ("summary of the video alone", "It becomes brighter."),
        ("The pictures are", "grey"),
    ):
        if mark in prompt:
            return 200, completion(reply, (math.log(0.5),))
    return 400, {"error": "unknown prompt"}


class TestReflectionOverAnEndpoint:
    def film(self) -> Clip:
        frames = np.zeros((40, 16, 16, 3), np.uint8)
        frames[:] = np.arange(0, 200, 5)[:, None, None, None]
        return Clip(frames, 8)

    def ask(self, server: Server, tmp_path: Path, question: str, **settings):
        model = talker(server, **settings)
        loop = PyramidReflection(
            Roles.prompted(model, evaluator=model),
            None,
            ReflectionConfig(policy="even"),
            FilmCache(tmp_path / "cache"),
        )
        return loop.ask(self.film(), question, tmp_path / "trace.json"), model

    def test_all_roles(self, server, tmp_path):
        server.replies = [all_roles]
        result, model = self.ask(server, tmp_path, "what colour is it?")
        assert result.text == "It becomes brighter." and not result.reliable
        assert [each["actor"]["text"] for each in result.trace["rounds"]] == ["grey"] * 3
        assert result.trace["rounds"][1]["select"]["query"] == "a bright field"
        # Router, 16 notes, summary, 3 answers, 3 judgements, 2 refinements, fallback.
        assert model.endpoint.spent.requests == 1 + 16 + 1 + 3 + 3 + 2 + 1 == len(server.requests)
        assert result.trace["result"]["tokens_in"] == 12 * model.endpoint.spent.requests
        assert "secret" not in json.dumps(result.trace)

    def test_an_endpoint_that_dies_in_the_middle(self, server, tmp_path):
        """It answers 20 requests, then only errors; when it comes back, none of the 20 is asked again."""
        server.replies = [*[all_roles] * 20, (500, {"error": "out of memory"})]
        with pytest.raises(UserError, match="no answer in 2 attempts: status 500"):
            self.ask(server, tmp_path, "what colour is it?", attempts=2)
        answered = 20
        assert len(server.requests) == answered + 2
        server.replies = [all_roles]
        result, model = self.ask(server, tmp_path, "what colour is it?")
        assert result.text == "It becomes brighter." and model.endpoint.spent.requests == 27 - answered


TEMPLATE = (
    "{% for message in messages %}{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'image' %}<image> {% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %} ."
)


def chat_tokenizer() -> PreTrainedTokenizerFast:
    base = word_tokenizer([*vocabulary(), "<image>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=base.backend_tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


LANGUAGE = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 2, "eos_token_id": 3}  # fmt: skip


def language_model() -> LanguageTalker:
    torch.manual_seed(0)
    tokenizer = chat_tokenizer()
    model = Qwen2ForCausalLM(Qwen2Config(**LANGUAGE, vocab_size=len(tokenizer), pad_token_id=0))
    return LanguageTalker(model, tokenizer, "small")


def seeing_model() -> UnderstandingTalker:
    torch.manual_seed(0)
    tokenizer = chat_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    image = tokenizer.convert_tokens_to_ids("<image>")
    text = Qwen2Config(**LANGUAGE, vocab_size=len(tokenizer), pad_token_id=0)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=image)
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    model = LlavaForConditionalGeneration(config).eval()
    return UnderstandingTalker(ProcessorUnderstanding(model, processor), "seeing")


class TestModels:
    def test_a_language_model_says_what_whole_forwards_say(self):
        talker = language_model()
        prompt = talker.tokenizer("what colour is the star .", return_tensors="pt")["input_ids"]
        ids, logs = prompt, []
        for _ in range(6):
            with torch.no_grad():
                scores = talker.model(input_ids=ids).logits[0, -1].float().log_softmax(-1)
            logs.append(float(scores.max()))
            ids = torch.cat([ids, scores.argmax().view(1, 1)], dim=1)
            if int(ids[0, -1]) == 3:
                break
        said = talker.say("what colour is the star", most=6)
        expected = talker.tokenizer.decode(ids[0, prompt.shape[1] :], skip_special_tokens=True)
        assert said.text == expected.strip()
        assert said.confidence == pytest.approx(math.exp(sum(logs) / len(logs)), rel=1e-4)
        assert (said.tokens_in, said.tokens_out) == (prompt.shape[1], len(logs))

    def test_a_model_that_sees_is_asked_through_its_interface(self):
        talker = seeing_model()
        pictures = list(np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), dtype=np.uint8))
        (spoken,) = talker.model.chat(
            [Request("what colour is the star", np.stack(pictures))], max_new_tokens=5
        )
        said = talker.say("what colour is the star", pictures, most=5)
        assert said.text == spoken.text.strip() and 0 < (said.confidence or 0) < 1
        assert math.log(said.confidence or 0) == pytest.approx(np.mean(np.log(spoken.probabilities)))
        assert talker.say("what colour is the star", most=5).confidence != said.confidence

    def test_a_model_that_sees_reflects(self, tmp_path):
        talker = seeing_model()
        frames = np.zeros((40, 16, 16, 3), np.uint8)
        frames[:] = np.arange(0, 200, 5)[:, None, None, None]
        roles = Roles.prompted(talker)
        roles = Roles(RuleRouter(), roles.actor, roles.evaluator, StatementReflector())
        config = ReflectionConfig(policy="even", mode="static", expand=(2, 4), pool=8, seeds=2)
        loop = PyramidReflection(roles, None, config, FilmCache(tmp_path / "cache"))
        result = loop.ask(Clip(frames, 8), "what colour is the star?")
        assert 1 <= len(result.trace["rounds"]) <= 2 and result.text
        assert result.trace["roles"]["actor"] == talker.name

    def test_folders_come_back(self, tmp_path):
        talker = language_model()
        talker.model.save_pretrained(tmp_path / "blind")
        talker.tokenizer.save_pretrained(tmp_path / "blind")
        copy = load_talker(tmp_path / "blind")
        assert isinstance(copy, LanguageTalker) and copy.name.endswith(talker.name.split("/")[-1])
        seeing = seeing_model()
        seeing.model.model.save_pretrained(tmp_path / "seeing")  # type: ignore[attr-defined]
        seeing.model.processor.save_pretrained(tmp_path / "seeing")  # type: ignore[attr-defined]
        assert isinstance(load_talker(tmp_path / "seeing"), UnderstandingTalker)

    def test_what_cannot_be_asked(self, tmp_path):
        with pytest.raises(UserError, match="cannot be loaded"):
            load_talker(tmp_path)
        talker = language_model()
        with pytest.raises(UserError, match="takes words only"):
            talker.say("what", [np.zeros((4, 4, 3), np.uint8)])
        with pytest.raises(UserError, match="takes 256 tokens; the prompt has 301"):
            talker.say("star " * 300)
        talker.tokenizer.chat_template = None
        with pytest.raises(UserError, match="no chat template"):
            LanguageTalker(talker.model, talker.tokenizer, "small")
