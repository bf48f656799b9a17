"""The judge protocol against real servers on the loopback: verdicts, nonsense, death, budgets, reruns."""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from unireel.backbones.remote import Endpoint
from unireel.evaluation.journal import Journal
from unireel.evaluation.videoqa.formats import Question
from unireel.evaluation.videoqa.judge import Tally, Verdict, judge_answers, parse_verdict

Serve = Callable[[Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]], str]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("{'pred': 'yes', 'score': 4}", Verdict(True, 4)),
        ('{"pred": "no", "score": 0}', Verdict(False, 0)),
        ("Sure!\n```python\n{'pred': 'Yes', 'score': 4.8}\n```", Verdict(True, 4)),
        ("{'pred': 'maybe', 'score': 4}", None),
        ("{'pred': 'yes', 'score': 6}", None),
        ("{'pred': 'yes', 'score': 'five'}", None),
        ("{'pred': 'yes', 'score': True}", None),
        ("{'pred': 'yes'}", None),
        ("{'pred': 'yes', 'score': 4} or {'pred': 'no', 'score': 1}", None),
        ("yes, 4", None),
        ("{__import__('os')}", None),
        ("", None),
    ],
)
def test_verdicts_are_read_or_refused(reply: str, verdict: Verdict | None) -> None:
    assert parse_verdict(reply) == verdict


def answer(handler: BaseHTTPRequestHandler, text: str, status: int = 200) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    content = json.dumps({"choices": [{"message": {"content": text}}], "usage": usage}).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def fair(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
    """A judge that goes by the first letter, and talks nonsense about answers with an exclamation mark."""
    asked = json.loads(body["messages"][1]["content"])
    if "!" in asked["given"]:
        answer(handler, "I would rather not say")
        return
    right = asked["given"][0] == asked["accepted"][0]
    answer(handler, str({"pred": "yes" if right else "no", "score": 5 if right else 1}))


PAIRS: list[tuple[Question, str | None]] = [
    (Question(str(number), "v", "what?", ("apple",)), said)
    for number, said in enumerate(("ape", "dog", None, "ant!", "art"))
]


def judged(endpoint: Endpoint, cache: Path, pairs: list = PAIRS) -> tuple[list[Any], Tally, list[str]]:
    records: list[dict[str, Any]] = [{"id": question.id} for question, _ in pairs]
    journal = Journal(cache)
    tally, problems = judge_answers(pairs, records, endpoint, "m", journal, parallel=2)
    journal.close()
    assert all(("judge" in record) == ("judge_score" in record) for record in records)
    return [record["judge"] for record in records], tally, [each.kind for each in problems]


def test_answers_are_judged_and_never_asked_twice(serve: Serve, tmp_path: Path) -> None:
    endpoint = Endpoint(serve(fair), "m")
    cache = tmp_path / "judge.jsonl"
    verdicts, tally, problems = judged(endpoint, cache)
    assert verdicts == [True, False, False, None, True]
    assert tally == Tally(judged=3, unanswered=1, failed=1)
    assert problems == ["judge answered nonsense"]
    assert (endpoint.spent.requests, endpoint.spent.prompt_tokens) == (4, 400)
    verdicts, tally, _ = judged(again := Endpoint(endpoint.url, "m"), cache)
    assert verdicts == [True, False, False, None, True]
    assert tally == Tally(cached=3, unanswered=1, failed=1)
    assert again.spent.requests == 1  # only the nonsense is asked again


def test_a_run_killed_in_the_middle_loses_at_most_half_a_line(serve: Serve, tmp_path: Path) -> None:
    cache = tmp_path / "judge.jsonl"
    judged(Endpoint(serve(fair), "m"), cache)
    whole = cache.read_bytes()
    cache.write_bytes(whole[:-20])
    endpoint = Endpoint(serve(fair), "m")
    verdicts, tally, _ = judged(endpoint, cache)
    assert verdicts == [True, False, False, None, True]
    assert tally == Tally(judged=1, cached=2, unanswered=1, failed=1)


def test_the_budget_leaves_the_rest_unjudged(serve: Serve, tmp_path: Path) -> None:
    endpoint = Endpoint(serve(fair), "m", most_requests=2)
    verdicts, tally, problems = judged(endpoint, tmp_path / "judge.jsonl")
    assert (tally.judged, tally.failed, tally.not_asked) == (2, 0, 2)
    assert problems == ["not judged", "not judged"]
    assert verdicts.count(None) == 2
    assert endpoint.spent.requests == 2


def test_a_dead_judge_is_given_up_soon(serve: Serve, tmp_path: Path) -> None:
    pairs = [(Question(str(number), "v", "what?", ("apple",)), "ape") for number in range(40)]
    endpoint = Endpoint(serve(lambda handler, body: answer(handler, "", 500)), "m", attempts=1)
    verdicts, tally, problems = judged(endpoint, tmp_path / "judge.jsonl", pairs)
    assert verdicts == [None] * 40
    assert tally.failed <= 7
    assert tally.failed + tally.not_asked == len(problems) == 40
    assert endpoint.spent.requests <= 7
