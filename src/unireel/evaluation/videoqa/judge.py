"""The judge protocol of Video-ChatGPT: a language model says whether an answer means the same as the accepted one.

The instruction is worded anew, so figures compare with each other and not to the digit with those of other programs;
every result names the judge and a hash of the instruction. Replies are kept: a rerun asks nothing twice.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from unireel.backbones.asking import Dead, ask_each
from unireel.backbones.remote import BudgetSpent, Reply
from unireel.errors import UserError
from unireel.evaluation.journal import Journal
from unireel.evaluation.videoqa.formats import Problem, Question
from unireel.evaluation.videoqa.scoring import Record

INSTRUCTION = """You grade answers to questions about videos. You see a question, the accepted answer, and the answer \
that a system gave. Decide whether the given answer means the same as the accepted one. Synonyms, paraphrases and more \
detail are fine as long as nothing contradicts the accepted answer; wording, grammar and length do not matter.
Reply with one Python dictionary and nothing else: the key 'pred' holds 'yes' or 'no', the key 'score' an integer from \
0 (nothing in common) to 5 (the same meaning)."""
MOST_TOKENS = 64
HIGHEST = 5


class Judge(Protocol):
    """A chat model."""

    def chat(self, messages: Sequence[dict[str, Any]], *, max_tokens: int = ...) -> Reply:
        """The reply to ``messages`` in OpenAI's form."""
        ...


@dataclass(frozen=True)
class Verdict:
    """Whether the answer is right, and how right, 0 to 5."""

    right: bool
    score: int


def instruction_hash() -> str:
    """Eight digits that change with the wording of the instruction."""
    return hashlib.sha256(INSTRUCTION.encode()).hexdigest()[:8]


def messages_for(question: Question, said: str) -> list[dict[str, Any]]:
    """What the judge is asked; the answer is quoted as JSON so that it cannot pose as part of the instruction."""
    asked = {"question": question.text, "accepted": question.answers[0], "given": said}
    return [
        {"role": "system", "content": INSTRUCTION},
        {"role": "user", "content": json.dumps(asked, ensure_ascii=False)},
    ]


def parse_verdict(reply: str) -> Verdict | None:
    """The verdict in a reply, None if there is not exactly one that keeps to the form.

    A score with a fraction is cut off (4.8 counts 4), as in the original protocol.
    """
    found = re.findall(r"\{[^{}]*\}", reply)
    if len(found) != 1:
        return None
    try:
        data = ast.literal_eval(found[0])
        right, score = str(data["pred"]).strip().lower(), data["score"]
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        return None
    number = isinstance(score, int | float) and not isinstance(score, bool)
    if right not in ("yes", "no") or not number or not 0 <= score <= HIGHEST:
        return None
    return Verdict(right == "yes", int(score))


@dataclass
class Tally:
    """How the questions were judged."""

    judged: int = 0
    cached: int = 0
    unanswered: int = 0
    failed: int = 0
    not_asked: int = 0


def judge_answers(
    pairs: Sequence[tuple[Question, str | None]],
    records: Sequence[Record],
    judge: Judge,
    name: str,
    cache: Journal,
    parallel: int = 4,
    advance: Callable[[int, int], None] | None = None,
) -> tuple[Tally, list[Problem]]:
    """Put ``judge`` (bool) and ``judge_score`` (0 to 5) into the records; None where there is no verdict.

    A question without prediction is wrong without asking. Nonsense and failures are listed, not guessed, and asked
    again by the next run.

    Args:
        name: what the judge is called; verdicts of other judges in the cache do not count.
        cache: verdicts by the hash of what was asked.
        parallel: questions asked at once.
        advance: called with (asked, still to ask).
    """
    tally, problems = Tally(), []
    waiting: list[tuple[Record, list[dict[str, Any]], str]] = []
    for (question, said), record in zip(pairs, records, strict=True):
        record["judge"], record["judge_score"] = None, None
        if said is None:
            _put(record, Verdict(False, 0))
            tally.unanswered += 1
            continue
        messages = messages_for(question, said)
        key = hashlib.sha256(json.dumps([name, messages]).encode()).hexdigest()[:32]
        if key in cache:
            _put(record, Verdict(cache[key]["right"], cache[key]["score"]))
            tally.cached += 1
        else:
            waiting.append((record, messages, key))

    def ask(item: tuple[Record, list[dict[str, Any]], str]) -> Reply:
        return judge.chat(item[1], max_tokens=MOST_TOKENS)

    for asked, ((record, _, key), outcome) in enumerate(ask_each(waiting, ask, parallel), 1):
        if isinstance(outcome, BudgetSpent | Dead):
            tally.not_asked += 1
            problems.append(Problem("not judged", record["id"], str(outcome)))
        elif isinstance(outcome, UserError):
            tally.failed += 1
            problems.append(Problem("judge failed", record["id"], str(outcome)))
        elif (verdict := parse_verdict(outcome.text)) is None:
            tally.failed += 1
            problems.append(Problem("judge answered nonsense", record["id"], outcome.text[:200]))
        else:
            tally.judged += 1
            _put(record, verdict)
            cache.append(
                [{"id": key, "question": record["id"], "right": verdict.right, "score": verdict.score}]
            )
        if advance:
            advance(asked, len(waiting) - asked)
    return tally, problems


def _put(record: Record, verdict: Verdict) -> None:
    record["judge"], record["judge_score"] = verdict.right, float(verdict.score)
