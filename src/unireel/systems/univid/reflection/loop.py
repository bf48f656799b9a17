"""Pyramid Reflection (UniVid, algorithm 1): look at a few frames, answer, judge, and look again at better ones."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unireel.clip import Clip
from unireel.errors import UsageError
from unireel.systems.univid.reflection import selection
from unireel.systems.univid.reflection.cache import FilmCache
from unireel.systems.univid.reflection.journal import Journal
from unireel.systems.univid.reflection.pool import LONGEST_SIDE, POOL_FRAMES, Pool
from unireel.systems.univid.reflection.rankers import Ranker
from unireel.systems.univid.reflection.roles import Kind, Roles, Route, Verdict, View
from unireel.systems.univid.reflection.talkers import Said


@dataclass(frozen=True)
class ReflectionConfig:
    """Numbers of the loop; the defaults are the paper's.

    Attributes:
        pool: frames that are taken from the film.
        side: longest side of the pool's frames, pixels.
        seeds: frames that the global caption is made from.
        expand: working-set sizes of static questions, rising; shrink: of dynamic ones, falling. One for each round.
        threshold: score in [0, 1] at which an answer is accepted.
        mode: "auto" lets the router decide between static (expand) and dynamic (shrink).
        policy: "similarity" is eq. 8 and 9; "soft" draws from eq. 7; "even" needs no ranker and spreads frames.
        balance: lambda of eq. 9 in [0, 1], 1 for relevance only.
        temperature: tau of eq. 7; seed: of its draws.
    """

    pool: int = POOL_FRAMES
    side: int = LONGEST_SIDE
    seeds: int = 16
    expand: tuple[int, ...] = (4, 8, 16)
    shrink: tuple[int, ...] = (64, 32, 16)
    threshold: float = 0.7
    mode: Literal["auto", "static", "dynamic"] = "auto"
    policy: Literal["similarity", "soft", "even"] = "similarity"
    balance: float = 0.5
    temperature: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pool < 1 or self.side < 16 or not 1 <= self.seeds <= self.pool:
            raise ValueError(
                f"pool={self.pool}, side={self.side}, seeds={self.seeds}: 1 or more, 16 or more, 1 to pool"
            )
        for name, sizes, falling in (("expand", self.expand, False), ("shrink", self.shrink, True)):
            if not sizes or min(sizes) < 1 or list(sizes) != sorted(set(sizes), reverse=falling):
                raise ValueError(
                    f"{name}={sizes}: sizes above 0, each {'less' if falling else 'more'} than the last"
                )
        if not 0 <= self.threshold <= 1 or not 0 <= self.balance <= 1 or not self.temperature > 0:
            raise ValueError(
                f"threshold={self.threshold}, balance={self.balance}, temperature={self.temperature}:"
                " 0 to 1, 0 to 1, above 0"
            )

    def sizes(self, kind: Kind, count: int) -> list[int]:
        """Working-set sizes of the rounds on ``count`` frames; a round that could change nothing is left out."""
        steps = self.expand if kind == "static" else self.shrink
        return list(dict.fromkeys(min(each, count) for each in steps))


@dataclass(frozen=True)
class Evidence:
    """A frame that an answer rests on: its number in the film, its time in seconds, its likeness to the search text."""

    frame: int
    time: float
    score: float | None = None


@dataclass(frozen=True)
class Reflected:
    """The answer to a question about a film.

    Attributes:
        text: the answer.
        confidence: in [0, 1], the evaluator's score of it; of an answer from the caption, its own probability.
        reliable: whether the evaluator accepted it and the model gave no warning; ``note`` says why not.
        evidence: the frames that the actor saw when it gave this answer, or that the caption was made from.
        trace: everything that happened, see :class:`~unireel.systems.univid.reflection.journal.Journal`.
    """

    text: str
    confidence: float
    reliable: bool
    note: str | None
    evidence: tuple[Evidence, ...]
    trace: dict[str, Any]

    @classmethod
    def from_trace(cls, trace: dict[str, Any]) -> Reflected:
        """The finished answer that a trace holds."""
        result = trace["result"]
        evidence = tuple(Evidence(**each) for each in result["evidence"])
        values = {name: result[name] for name in ("text", "confidence", "reliable", "note")}
        return cls(**values, evidence=evidence, trace=trace)


@dataclass(frozen=True)
class Selected:
    """A working set: numbers in the pool, in the film, times and scores of its frames, and what was searched."""

    query: str
    pool: list[int]
    frames: list[int]
    times: list[float]
    scores: list[float] | None
    text_seconds: float
    selection_seconds: float


class PyramidReflection:
    """Answers questions about films of any length with any model that looks at a few frames.

    Args:
        roles: who answers, judges and refines.
        ranker: finds frames by words; needed unless the policy is "even".
        config: numbers of the loop.
        cache: where pools, vectors and captions are kept, by default in the user's cache folder.
    """

    def __init__(
        self,
        roles: Roles,
        ranker: Ranker | None = None,
        config: ReflectionConfig | None = None,
        cache: FilmCache | None = None,
    ) -> None:
        self.roles, self.ranker = roles, ranker
        self.config = config or ReflectionConfig()
        self.cache = cache or FilmCache()
        if ranker is None and self.config.policy != "even":
            raise UsageError(
                f"policy '{self.config.policy}' needs a ranker; give one, or choose policy 'even'"
            )

    def ask(
        self,
        film: Path | Clip,
        question: str,
        trace: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Reflected:
        """Answer one question.

        Args:
            trace: a JSON file that grows with every step; what a broken run left there is not done again.
            progress: called with (rounds done, rounds at most).

        Raises:
            UsageError: the question is empty.
            UserError: the film cannot be read, or a role fails; what was done is in the trace.
        """
        if not question.strip():
            raise UsageError("the question is empty; write one, for example 'what colour is the star?'")
        question = question.strip()
        pool = self.cache.pool(film, self.config.pool, self.config.side)
        journal = Journal(trace, self._identity(pool, question))
        if "result" in journal.data:
            return Reflected.from_trace(journal.data)
        return _Run(self, pool, question, journal).play(progress)

    def ask_many(
        self,
        pairs: Sequence[tuple[Path | Clip, str]],
        folder: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Reflected]:
        """Answer questions one after the other, each with a trace of its own in ``folder`` (which must exist).

        A rerun gives back finished answers without asking anybody, and goes on with the one that was broken off.
        """
        for number, (film, question) in enumerate(pairs):
            trace = None
            if folder is not None:
                pool = self.cache.pool(film, self.config.pool, self.config.side)
                identity = repr(self._identity(pool, question.strip())).encode()
                trace = folder / f"{hashlib.blake2b(identity, digest_size=10).hexdigest()}.json"
            yield self.ask(film, question, trace)
            if progress:
                progress(number + 1, len(pairs))

    def _identity(self, pool: Pool, question: str) -> dict[str, Any]:
        return {
            "film": {
                "name": pool.name,
                "key": pool.key,
                "duration": round(pool.duration, 3),
                "pool": len(pool),
            },
            "question": question,
            "settings": asdict(self.config),
            "roles": self.roles.names(),
            "ranker": None if self.ranker is None else f"{self.ranker.name}/{self.ranker.key}",
        }


class _Run:
    """One question on its way: the state (search text, working set, caption) of algorithm 1."""

    def __init__(self, owner: PyramidReflection, pool: Pool, question: str, journal: Journal) -> None:
        self.roles, self.ranker, self.config, self.cache = (
            owner.roles,
            owner.ranker,
            owner.config,
            owner.cache,
        )
        self.pool, self.question, self.journal = pool, question, journal
        self.queries = [question]
        start = time.perf_counter()
        even = self.config.policy == "even" or self.ranker is None
        self.vectors = None if even else self.cache.vectors(pool, self.ranker)  # type: ignore[arg-type]
        journal.data.setdefault("encode_seconds", round(time.perf_counter() - start, 6))

    def play(self, progress: Callable[[int, int], None] | None) -> Reflected:
        """The rounds, and what is answered when none is accepted."""
        step = self.journal.step
        route = self._route()
        sizes = self.config.sizes(route.kind, len(self.pool))
        chosen = np.array([], dtype=np.int64)
        tried: list[tuple[Said, Verdict, Selected]] = []
        for number, size in enumerate(sizes):
            entry = self.journal.round(number)
            selected = step(entry, "select", Selected, self._select, route.kind, chosen, size)
            chosen = np.array(selected.pool, dtype=np.int64)
            answer = step(entry, "actor", Said, self._act, chosen)
            verdict = step(entry, "evaluator", Verdict, self._judge, answer, len(chosen))
            tried.append((answer, verdict, selected))
            if progress:
                progress(number + 1, len(sizes))
            if verdict.score >= self.config.threshold:
                return self._finish(answer, verdict.score, True, None, _evidence(selected))
            if number + 1 < len(sizes):
                refined = step(entry, "reflector", Said, self._refine, answer, verdict)
                self.queries.append(refined.text.strip() or self.queries[-1])
        return self._fall_back(tried)

    def _route(self) -> Route:
        def decide() -> Route:
            if self.config.mode != "auto":
                return Route(self.config.mode, "as asked for")
            return self.roles.router.route(self.question)

        return self.journal.step(self.journal.data, "router", Route, decide)

    def _select(self, kind: Kind, chosen: np.ndarray, size: int) -> Selected:
        """The next working set; only numbers change, nothing is decoded or encoded but the search text."""
        query, count = self.queries[-1], len(self.pool)
        start = time.perf_counter()
        text = None if self.ranker is None or self.vectors is None else self.ranker.text_vector(query)
        middle = time.perf_counter()
        scores = None
        if kind == "dynamic" and len(chosen) == 0:
            new = selection.spread(count, size)
            if self.vectors is not None and text is not None:
                scores = selection.similarities(self.vectors, text)
        elif self.vectors is None or text is None:
            new = (
                selection.expand_evenly(chosen, count, size)
                if kind == "static"
                else chosen[selection.spread(len(chosen), size)]
            )
        else:
            scores = selection.similarities(self.vectors, text)
            new = self._chosen(kind, chosen, scores, self.vectors, size)
        end = time.perf_counter()
        return Selected(
            query=query,
            pool=new.tolist(),
            frames=self.pool.numbers[new].tolist(),
            times=[round(float(each), 3) for each in self.pool.times[new]],
            scores=None if scores is None else [round(float(each), 5) for each in scores[new]],
            text_seconds=round(middle - start, 6),
            selection_seconds=round(end - middle, 6),
        )

    def _chosen(
        self, kind: Kind, chosen: np.ndarray, scores: np.ndarray, vectors: np.ndarray, size: int
    ) -> np.ndarray:
        """The next working set by similarity (eq. 8, 9), or drawn from the soft policy (eq. 7)."""
        if self.config.policy == "soft":
            draw = selection.expand_softly if kind == "static" else selection.shrink_softly
            # A generator for each round, so that a run that goes on draws what an unbroken one draws.
            random = np.random.default_rng([self.config.seed, len(self.queries)])
            return draw(chosen, scores, size, self.config.temperature, random)
        if kind == "static":
            return selection.expand(chosen, scores, size)
        return selection.shrink(chosen, scores, vectors, size, self.config.balance)

    def _act(self, chosen: np.ndarray) -> Said:
        caption = self._caption() if self.roles.actor.reads_caption else ""
        return self.roles.actor.answer(self._view(chosen), self.question, caption)

    def _judge(self, answer: Said, frames: int) -> Verdict:
        caption = self._caption() if self.roles.evaluator.reads_caption else ""
        return self.roles.evaluator.judge(self.question, caption, answer, frames)

    def _refine(self, answer: Said, verdict: Verdict) -> Said:
        caption = self._caption() if self.roles.reflector.reads_caption else ""
        return self.roles.reflector.refine(self.question, caption, answer, verdict, self.queries)

    def _caption(self) -> str:
        """C_g, made when somebody first asks for it and kept with the film; empty without a captioner."""
        captioner = self.roles.captioner
        if captioner is None:
            return ""

        def keep(name: str, make: Callable[[], Said]) -> Said:
            stored = self.cache.note(self.pool, f"{captioner}-{self.config.seeds}-{name}")
            if stored is not None:
                return Said(**stored)
            said = make()
            self.cache.keep(self.pool, f"{captioner}-{self.config.seeds}-{name}", asdict(said))
            return said

        def make() -> Said:
            return keep("caption", lambda: captioner.caption(self._view(self._seeds()), keep))

        return self.journal.step(self.journal.data, "caption", Said, make).text

    def _seeds(self) -> np.ndarray:
        return selection.spread(len(self.pool), min(self.config.seeds, len(self.pool)))

    def _view(self, chosen: np.ndarray) -> View:
        return View(self.pool.frames[chosen], self.pool.times[chosen], self.pool.duration)

    def _fall_back(self, tried: list[tuple[Said, Verdict, Selected]]) -> Reflected:
        """The answer from the global caption; if that does not tell, the answer of the best round."""
        answer, verdict, selected = max(tried, key=lambda each: each[1].score)
        caption = self._caption() if self.roles.fallback else ""
        if self.roles.fallback and caption:
            nothing = Said("")
            said = self.journal.step(
                self.journal.data,
                "fallback",
                Said,
                lambda: self.roles.fallback.answer(self.question, caption) or nothing,  # type: ignore[union-attr]
            )
            if said.text:
                seeds = self._seeds()
                pairs = zip(self.pool.numbers[seeds], self.pool.times[seeds], strict=True)
                evidence = tuple(Evidence(int(number), round(float(at), 3)) for number, at in pairs)
                sure = verdict.score if said.confidence is None else said.confidence
                note = "no answer from frames was accepted; this one is from the caption of the whole film"
                return self._finish(said, sure, False, note, evidence)
        note = f"no answer was accepted; this is the best of {len(tried)}"
        return self._finish(answer, verdict.score, False, note, _evidence(selected))

    def _finish(
        self,
        answer: Said,
        confidence: float,
        accepted: bool,
        note: str | None,
        evidence: tuple[Evidence, ...],
    ) -> Reflected:
        self.journal.data["result"] = {
            "text": answer.text,
            "confidence": round(confidence, 6),
            "reliable": accepted and answer.warning is None,
            "note": "; ".join(each for each in (answer.warning, note) if each) or None,
            "rounds": len(self.journal.data["rounds"]),
            "evidence": [asdict(each) for each in evidence],
            **_spent(self.journal.data),
        }
        self.journal.save()
        return Reflected.from_trace(self.journal.data)


def _evidence(selected: Selected) -> tuple[Evidence, ...]:
    scores = selected.scores or [None] * len(selected.frames)
    return tuple(Evidence(*each) for each in zip(selected.frames, selected.times, scores, strict=True))


def _spent(data: dict[str, Any]) -> dict[str, Any]:
    """Seconds and tokens of all steps of a trace."""
    steps = [data.get(name) for name in ("router", "caption", "fallback")]
    steps += [step for entry in data["rounds"] for step in entry.values()]
    known = [step for step in steps if step]
    return {
        "seconds": round(data["encode_seconds"] + sum(step.get("seconds", 0.0) for step in known), 6),
        "tokens_in": sum(step.get("tokens_in", 0) for step in known),
        "tokens_out": sum(step.get("tokens_out", 0) for step in known),
    }
