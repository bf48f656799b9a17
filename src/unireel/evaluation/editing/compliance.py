"""Whether edits were carried out: a model that sees is shown frames of before and after, and the instruction.

The ratings and how they are put together are those of OpenVE-Bench (arXiv 2512.07826): 1 to 5 for doing what was
asked, for keeping the rest, and for quality, of which the last two count as the first at most, so that a film which
was left as it is earns nothing for being well preserved. The instruction is worded anew, so figures compare among one
judge and one wording only; every result names both.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unireel.backbones.asking import Dead, ask_each
from unireel.backbones.remote import BudgetSpent, Reply
from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.editing.eyes import Eyes, Look
from unireel.evaluation.editing.pairs import Pair
from unireel.evaluation.journal import Journal
from unireel.evaluation.videoqa.formats import Problem

INSTRUCTION = """You judge edits of videos. You see frames of a video from before an edit and frames from after it, \
each in the order of time, and read the instruction that the edit should have carried out. Compare them, and judge \
three things apart. Compliance: is what the instruction asks for there, all of it, throughout? Preservation: is \
everything that the instruction does not touch as it was: people and things, their motion, background, composition? \
Quality: is the edited video clear, natural and steady, without artefacts?
Reply with one JSON object and nothing else: "followed" is "yes" if the instruction was carried out and "no" \
otherwise; "compliance", "preservation" and "quality" are integers from 1 (not at all) to 5 (fully); "reason" is one \
short sentence."""
MOST_TOKENS = 200
LOWEST, HIGHEST = 1, 5
SIDE = 512
"""Longest side in pixels of the frames that are shown."""


@dataclass(frozen=True)
class Verdict:
    """What a judge said of an edit: whether it was carried out, and ratings from 1 to 5."""

    followed: bool
    compliance: int
    preservation: int
    quality: int
    reason: str = ""

    @property
    def overall(self) -> float:
        """Mean of the ratings, the last two counting as much as the first at most."""
        most = self.compliance
        return (most + min(self.preservation, most) + min(self.quality, most)) / 3

    def fields(self) -> dict[str, Any]:
        """What a pair's record gets of it."""
        ratings = {each: float(getattr(self, each)) for each in ("compliance", "preservation", "quality")}
        return {"followed": self.followed, "overall": self.overall, **ratings, "seen": self.reason}


@dataclass
class Tally:
    """How the edits were judged."""

    judged: int = 0
    cached: int = 0
    failed: int = 0
    not_asked: int = 0


def instruction_hash() -> str:
    """Eight digits that change with the wording of the instruction."""
    return hashlib.sha256(INSTRUCTION.encode()).hexdigest()[:8]


def parse_verdict(reply: str) -> Verdict | None:
    """The verdict in a reply, None if there is not exactly one that keeps to the form."""
    found = re.findall(r"\{[^{}]*\}", reply)
    if len(found) != 1:
        return None
    data = _mapping(found[0])
    followed = str(data.get("followed")).strip().lower()
    ratings = [data.get(each) for each in ("compliance", "preservation", "quality")]
    good = [
        isinstance(each, int) and not isinstance(each, bool) and LOWEST <= each <= HIGHEST for each in ratings
    ]
    if followed not in ("yes", "no") or not all(good):
        return None
    reason = data.get("reason")
    words = " ".join(reason.split())[:300] if isinstance(reason, str) else ""
    return Verdict(followed == "yes", *ratings, words)  # type: ignore[arg-type]


def _mapping(text: str) -> dict[Any, Any]:
    """A JSON object or a Python dictionary; empty if it is neither."""
    for read in (json.loads, ast.literal_eval):
        try:
            data = read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(data, dict):
            return data
    return {}


def shown(pair: Pair, count: int, source: Clip, edited: Clip) -> Look:
    """``count`` evenly spaced frames of each film, brought to one size of at most :data:`SIDE`, and the question.

    The instruction is quoted as JSON so that it cannot pose as part of what the judge is told.
    """
    factor = min(1.0, SIDE / max(source.height, source.width))
    size = max(1, round(source.height * factor)), max(1, round(source.width * factor))
    before, after = (_frames(clip, count, size) for clip in (source, edited))
    return Look(before, after, INSTRUCTION, json.dumps({"instruction": pair.instruction}, ensure_ascii=False))


def _frames(clip: Clip, count: int, size: tuple[int, int]) -> list[np.ndarray]:
    places = np.linspace(0, len(clip) - 1, min(count, len(clip))).round().astype(int)
    chosen = Clip(np.ascontiguousarray(clip.frames[places]), clip.fps)
    return list(chosen if (clip.height, clip.width) == size else chosen.resized(*size))


def judge_edits(
    pairs: Sequence[Pair],
    films: Callable[[Pair], tuple[Clip, Clip]],
    eyes: Eyes,
    cache: Journal,
    count: int = 4,
    parallel: int = 4,
    advance: Callable[[int], None] | None = None,
) -> tuple[dict[str, Verdict], Tally, list[Problem]]:
    """Have edits judged; verdicts by the pairs' ids.

    What cannot be read, nonsense and failures are listed, not guessed, and asked again by the next run.

    Args:
        pairs: edits with an instruction each.
        films: gives a pair's films before and after.
        cache: verdicts by a hash of the judge, the words and the frames that were shown: other films or another
            judge are asked about anew.
        count: frames that are shown of each film.
        advance: called with the number of pairs done.
    """
    verdicts: dict[str, Verdict] = {}
    tally, problems = Tally(), []

    def waiting() -> Iterator[tuple[Pair, Look, str]]:
        for pair in pairs:
            try:
                look = shown(pair, count, *films(pair))
            except UserError as error:
                problems.append(Problem("not judged", pair.id, str(error)))
                tally.not_asked += 1
                continue
            key = _key(eyes.model, look)
            if key in cache:
                verdicts[pair.id] = Verdict(**cache[key]["verdict"])
                tally.cached += 1
            else:
                yield pair, look, key

    def ask(item: tuple[Pair, Look, str]) -> Reply:
        return eyes.look(item[1], MOST_TOKENS)

    for (pair, _, key), outcome in ask_each(waiting(), ask, parallel):
        if isinstance(outcome, BudgetSpent | Dead):
            tally.not_asked += 1
            problems.append(Problem("not judged", pair.id, str(outcome)))
        elif isinstance(outcome, UserError):
            tally.failed += 1
            problems.append(Problem("judge failed", pair.id, str(outcome)))
        elif (verdict := parse_verdict(outcome.text)) is None:
            tally.failed += 1
            problems.append(Problem("judge answered nonsense", pair.id, outcome.text[:200]))
        else:
            tally.judged += 1
            verdicts[pair.id] = verdict
            cache.append([{"id": key, "pair": pair.id, "verdict": asdict(verdict)}])
        if advance:
            advance(tally.judged + tally.cached + tally.failed + tally.not_asked)
    return verdicts, tally, problems


def _key(name: str, look: Look) -> str:
    digest = hashlib.sha256(json.dumps([name, look.told, look.asked]).encode())
    for frames in (look.before, look.after):
        digest.update(b"film")
        for frame in frames:
            digest.update(np.ascontiguousarray(frame).tobytes())
    return digest.hexdigest()[:32]
