"""Talkers: endpoints against a server on this machine, transformers models against their own forward."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

import base64
import io
import json
import math
import threading
import time
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

from unireel.backbones.text import word_tokenizer
from unireel.clip import Clip
from unireel.errors import UsageError, UserError
from unireel.systems.univid.reflection.cache import FilmCache
from unireel.systems.univid.reflection.endpoint import Budget, EndpointTalker
from unireel.systems.univid.reflection.loop import PyramidReflection, ReflectionConfig
from unireel.systems.univid.reflection.roles import Roles
from unireel.systems.univid.reflection.talkers import TransformersTalker
from unireel.world.language import vocabulary

Reply = tuple[int, object] | Callable[[dict], tuple[int, object]]


class Server:
    """A server on this machine that gives one reply after the other, the last one again and again."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.requests: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.retry_after: str | None = None
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.requests.append(body)
                owner.headers.append(dict(self.headers))
                owner.paths.append(self.path)
                reply = owner.replies.pop(0) if len(owner.replies) > 1 else owner.replies[0]
                status, content = reply(body) if callable(reply) else reply
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                if owner.retry_after is not None:
                    self.send_header("Retry-After", owner.retry_after)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:9/elsewhere")
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


def talker(server: Server, **settings) -> EndpointTalker:
    return EndpointTalker(server.address, "judge", **{"pause": 0.0, "seconds": 5.0, **settings})


class TestEndpoint:
    def test_an_answer_with_its_probability(self, server):
        server.replies = [(200, completion(" red ", (math.log(0.9), math.log(0.4))))]
        said = talker(server).say("what colour?", most=7)
        assert said.text == "red" and said.confidence == pytest.approx(0.6)
        assert (said.tokens_in, said.tokens_out) == (12, 3)
        (body,) = server.requests
        assert body["messages"] == [{"role": "user", "content": "what colour?"}]
        assert (body["model"], body["max_tokens"], body["temperature"]) == ("judge", 7, 0)
        assert server.paths == ["/v1/chat/completions"]

    def test_pictures_arrive_as_they_are(self, server):
        server.replies = [(200, completion("red"))]
        pictures = np.random.default_rng(0).integers(0, 255, (2, 6, 5, 3), dtype=np.uint8)
        said = talker(server).say("what?", pictures)
        assert said.confidence is None
        *images, text = server.requests[0]["messages"][0]["content"]
        assert text == {"type": "text", "text": "what?"}
        for image, picture in zip(images, pictures, strict=True):
            kind, _, data = image["image_url"]["url"].partition(",")
            assert kind == "data:image/png;base64"
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), picture)

    def test_the_key_comes_from_the_environment_and_stays_secret(self, server, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
        server.replies = [(200, completion("red"))]
        asked = talker(server)
        asked.say("what?")
        assert server.headers[0]["Authorization"] == "Bearer sk-secret"
        assert "secret" not in asked.name
        assert "word" not in EndpointTalker("http://user:word@host:81/v1", "m").name

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_what_passes_is_asked_again(self, server, status):
        server.replies = [(status, {"error": "busy"}), (200, b"half of {"), (200, completion("red"))]
        asked = talker(server)
        assert asked.say("what?").text == "red" and asked.requests == 3

    def test_the_servers_own_wait_is_kept(self, server):
        server.retry_after = "0.3"
        server.replies = [(429, {}), (200, completion("red"))]
        start = time.monotonic()
        talker(server).say("what?")
        assert time.monotonic() - start >= 0.3

    def test_giving_up(self, server):
        server.replies = [(503, {"error": {"message": "too\nbusy"}})]
        with pytest.raises(UserError, match=r"does not answer after 3 attempts: status 503 \(too busy\)"):
            talker(server, attempts=3).say("what?")
        assert len(server.requests) == 3

    @pytest.mark.parametrize("status", [400, 401, 404, 302])
    def test_what_will_not_pass_is_not_asked_again(self, server, status):
        server.replies = [(status, {"error": {"message": "no such model"}})]
        with pytest.raises(UserError, match=f"refuses: status {status}"):
            talker(server).say("what?")
        assert len(server.requests) == 1

    def test_nobody_there(self, server):
        server.stop()
        with pytest.raises(UserError, match="does not answer after 2 attempts"):
            talker(server, attempts=2).say("what?")

    def test_slow_ones_are_not_waited_for(self, server):
        server.replies = [lambda body: time.sleep(3) or (200, completion("red"))]
        start = time.monotonic()
        with pytest.raises(UserError, match="timed out"):
            talker(server, seconds=0.2, attempts=2).say("what?")
        assert time.monotonic() - start < 3

    @pytest.mark.parametrize("content", [{}, {"choices": []}, [], {"choices": [{"message": "red"}]}])
    def test_something_else_than_a_completion(self, server, content):
        server.replies = [(200, content)]
        with pytest.raises(UserError, match="something else than a chat completion"):
            talker(server).say("what?")

    def test_the_budget_holds(self, server):
        server.replies = [(200, completion("red", used=(40, 10)))]
        few = talker(server, budget=Budget(requests=2))
        few.say("one"), few.say("two")
        with pytest.raises(
            UserError, match=r"budget of judge at 127\.0\.0\.1:[0-9]+ is spent: 2 of 2 requests"
        ):
            few.say("three")
        poor = talker(server, budget=Budget(tokens=60))
        poor.say("one"), poor.say("two")
        with pytest.raises(UserError, match="100 of 60 tokens"):
            poor.say("three")
        assert len(server.requests) == 4

    def test_blind_ones_are_shown_nothing(self, server):
        with pytest.raises(UserError, match="takes words only"):
            talker(server, sees=False).say("what?", [np.zeros((2, 2, 3), np.uint8)])

    @pytest.mark.parametrize(
        "address, model", [("localhost/v1", "m"), ("ftp://host", "m"), ("http://host", " ")]
    )
    def test_addresses_that_are_none(self, address, model):
        with pytest.raises(UsageError, match="no endpoint"):
            EndpointTalker(address, model)


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
        assert model.requests == 1 + 16 + 1 + 3 + 3 + 2 + 1 == len(server.requests)
        assert result.trace["result"]["tokens_in"] == 12 * model.requests
        assert "secret" not in json.dumps(result.trace)

    def test_an_endpoint_that_dies_in_the_middle(self, server, tmp_path):
        """It answers 20 requests, then only errors; when it comes back, none of the 20 is asked again."""
        server.replies = [*[all_roles] * 20, (500, {"error": "out of memory"})]
        with pytest.raises(UserError, match="does not answer after 2 attempts: status 500"):
            self.ask(server, tmp_path, "what colour is it?", attempts=2)
        answered = 20
        assert len(server.requests) == answered + 2
        server.replies = [all_roles]
        result, model = self.ask(server, tmp_path, "what colour is it?")
        assert result.text == "It becomes brighter." and model.requests == 27 - answered


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


def language_model() -> TransformersTalker:
    torch.manual_seed(0)
    tokenizer = chat_tokenizer()
    model = Qwen2ForCausalLM(Qwen2Config(**LANGUAGE, vocab_size=len(tokenizer), pad_token_id=0))
    return TransformersTalker(model, tokenizer, "small")


def seeing_model() -> TransformersTalker:
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
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=image)
    )
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    return TransformersTalker(model, processor, "seeing")


def likeliest(talker: TransformersTalker, inputs: dict, most: int) -> tuple[list[int], list[float]]:
    """Greedy decoding without a cache, by whole forwards."""
    ids, logs = inputs["input_ids"], []
    for _ in range(most):
        rest = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with torch.no_grad():
            scores = talker.model(**rest).logits[0, -1].float().log_softmax(-1)
        token = int(scores.argmax())
        logs.append(float(scores[token]))
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
        if token == 3:
            break
    return ids[0, inputs["input_ids"].shape[1] :].tolist(), logs


class TestTransformers:
    def test_a_language_model(self):
        talker = language_model()
        assert not talker.sees
        inputs = talker._inputs("what colour is the star", [])
        words = talker.processor.decode(inputs["input_ids"][0])
        assert words.replace(" .", ".") == "what colour is the star."
        ids, logs = likeliest(talker, inputs, 6)
        said = talker.say("what colour is the star", most=6)
        assert said.text == talker.processor.decode(ids, skip_special_tokens=True).strip()
        assert said.confidence == pytest.approx(math.exp(sum(logs) / len(logs)), rel=1e-4)
        assert (said.tokens_in, said.tokens_out) == (inputs["input_ids"].shape[1], len(ids))

    def test_a_model_that_sees(self):
        talker = seeing_model()
        assert talker.sees
        pictures = list(np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), dtype=np.uint8))
        inputs = talker._inputs("what colour is the star", pictures)
        assert inputs["pixel_values"].shape == (3, 3, 16, 16)
        ids, logs = likeliest(talker, inputs, 5)
        said = talker.say("what colour is the star", pictures, most=5)
        assert said.text == talker.processor.decode(ids, skip_special_tokens=True).strip()
        assert said.confidence == pytest.approx(math.exp(sum(logs) / len(logs)), rel=1e-4)

    def test_folders_come_back(self, tmp_path):
        for number, talker in enumerate((language_model(), seeing_model())):
            folder = tmp_path / str(number)
            talker.model.save_pretrained(folder)
            talker.processor.save_pretrained(folder)
            copy = TransformersTalker.load(folder)
            assert type(copy.model) is type(talker.model) and copy.sees == talker.sees
            # Auto classes read a Qwen2 model's tokenizer as Qwen2's own, which a tokenizer of words is not.
            copy.processor = talker.processor
            assert copy.say("where is the star", most=4) == talker.say("where is the star", most=4)

    def test_what_cannot_be_asked(self, tmp_path):
        with pytest.raises(UserError, match="cannot be loaded"):
            TransformersTalker.load(tmp_path)
        with pytest.raises(UserError, match="takes words only"):
            language_model().say("what", [np.zeros((4, 4, 3), np.uint8)])
        with pytest.raises(UserError, match="takes 256 tokens; the question with its 0 pictures has 301"):
            language_model().say("star " * 300)
        talker = language_model()
        talker.processor.chat_template = None
        with pytest.raises(UserError, match="no chat template"):
            TransformersTalker(talker.model, talker.processor, "small")
