"""The roles of Pyramid Reflection: who routes, describes, answers, judges, refines and falls back.

A role may be a prompt to a talker (the same model for all, or another for each), a rule, or a Unireel model. Talkers
reply in words; what a program needs is read from one line of JSON, and what cannot be read is said in the trace.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.systems.univid.reflection import prompts
from unireel.systems.univid.reflection.rankers import fingerprint
from unireel.systems.univid.reflection.rules import route_by_words, statement
from unireel.systems.univid.reflection.talkers import Said, Talker

Kind = Literal["static", "dynamic"]
Keep = Callable[[str, Callable[[], Said]], Said]
"""``keep(name, make)``: what was said under this name about this film before, or else what ``make`` says now."""


@dataclass(frozen=True)
class View:
    """Frames that an actor is shown: (K, H, W, 3) uint8 in temporal order, their times and the film's duration in s."""

    frames: np.ndarray
    times: np.ndarray
    duration: float


@dataclass(frozen=True)
class Route:
    """Whether a question needs few frames ("static": expand) or many compared ("dynamic": shrink), and why."""

    kind: Kind
    reason: str
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True)
class Verdict:
    """How likely an answer is right, in [0, 1], and why."""

    score: float
    reason: str
    tokens_in: int = 0
    tokens_out: int = 0


class Router(Protocol):
    def route(self, question: str) -> Route: ...


class Captioner(Protocol):
    def caption(self, view: View, keep: Keep) -> Said:
        """The global caption C_g of a film from evenly spread frames of it."""
        ...


class Actor(Protocol):
    @property
    def reads_caption(self) -> bool: ...

    def answer(self, view: View, question: str, caption: str) -> Said: ...


class Evaluator(Protocol):
    @property
    def reads_caption(self) -> bool: ...

    def judge(self, question: str, caption: str, answer: Said, frames: int) -> Verdict: ...


class Reflector(Protocol):
    @property
    def reads_caption(self) -> bool: ...

    def refine(
        self, question: str, caption: str, answer: Said, verdict: Verdict, queries: Sequence[str]
    ) -> Said:
        """A search text for the next round; an empty one keeps the last."""
        ...


class CaptionAnswerer(Protocol):
    def answer(self, question: str, caption: str) -> Said | None:
        """The answer from the global caption alone, or None if that does not tell."""
        ...


@dataclass(frozen=True)
class Roles:
    """One of each; without a ``captioner`` there is no global caption, and nothing to fall back to but rounds."""

    router: Router
    actor: Actor
    evaluator: Evaluator
    reflector: Reflector
    captioner: Captioner | None = None
    fallback: CaptionAnswerer | None = None

    def names(self) -> dict[str, str | None]:
        """What plays each role, for traces."""
        return {name: None if role is None else str(role) for name, role in vars(self).items()}

    @classmethod
    def prompted(
        cls,
        model: Talker,
        evaluator: Talker | None = None,
        reflector: Talker | None = None,
        threshold: float = 0.7,
    ) -> Roles:
        """All roles by prompts to ``model``, which sees; judged by its own confidence unless there is an evaluator.

        As in the paper, the evaluator also routes; the reflector is the evaluator unless another is given.
        """
        critic = evaluator or model
        return cls(
            router=PromptedRouter(critic),
            actor=PromptedActor(model),
            evaluator=PromptedEvaluator(evaluator, threshold) if evaluator else OwnConfidence(),
            reflector=PromptedReflector(reflector or critic),
            captioner=PromptedCaptioner(model, critic),
            fallback=PromptedCaptionAnswerer(critic),
        )

    @classmethod
    def of_model(
        cls,
        model: Any,
        evaluator: Talker | None = None,
        reflector: Talker | None = None,
        threshold: float = 0.7,
    ) -> Roles:
        """The roles around a Unireel model, which answers and captions but takes no instructions.

        Rules stand in for the talkers that are not given.
        """
        critic = reflector or evaluator
        return cls(
            router=PromptedRouter(evaluator) if evaluator else RuleRouter(),
            actor=ModelActor(model),
            evaluator=PromptedEvaluator(evaluator, threshold) if evaluator else OwnConfidence(),
            reflector=PromptedReflector(critic) if critic else StatementReflector(),
            captioner=ModelCaptioner(model),
            fallback=PromptedCaptionAnswerer(evaluator) if evaluator else None,
        )


@dataclass(frozen=True)
class RuleRouter:
    """Routes by the words of an English question."""

    def route(self, question: str) -> Route:
        return Route(*route_by_words(question))

    def __str__(self) -> str:
        return "words of the question"


@dataclass(frozen=True)
class PromptedRouter:
    """Asks a talker; decides by the question's words if the reply cannot be read."""

    talker: Talker

    def route(self, question: str) -> Route:
        said = self.talker.say(prompts.ROUTE.format(question=question), most=64)
        reply = read_json(said.text)
        if reply.get("qtype") in ("static", "dynamic"):
            return Route(reply["qtype"], str(reply.get("rationale", "")), said.tokens_in, said.tokens_out)
        kind, reason = route_by_words(question)
        return Route(kind, f"the reply could not be read; {reason}", said.tokens_in, said.tokens_out)

    def __str__(self) -> str:
        return self.talker.name


@dataclass(frozen=True)
class PromptedCaptioner:
    """Has ``eye`` describe one frame after the other, and ``hand`` join the notes."""

    eye: Talker
    hand: Talker

    def caption(self, view: View, keep: Keep) -> Said:
        said = [
            keep(f"note-{number}", lambda frame=frame: self.eye.say(prompts.DESCRIBE, [frame], most=160))
            for number, frame in enumerate(view.frames)
        ]
        notes = "\n".join(
            f"- {seconds(time)}: {one_line(each.text)}" for time, each in zip(view.times, said, strict=True)
        )
        whole = self.hand.say(prompts.SUMMARISE.format(notes=notes), most=256)
        read = sum(each.tokens_in for each in said) + whole.tokens_in
        return replace(
            whole, tokens_in=read, tokens_out=sum(each.tokens_out for each in said) + whole.tokens_out
        )

    def __str__(self) -> str:
        return f"{self.eye.name}, {self.hand.name}"


@dataclass(frozen=True)
class PromptedActor:
    """Shows the frames to a talker, with their times and the global caption."""

    talker: Talker
    reads_caption: bool = True

    def answer(self, view: View, question: str, caption: str) -> Said:
        wording = prompts.ACT if caption else prompts.ACT_WITHOUT_CAPTION
        prompt = wording.format(
            count=len(view.frames),
            duration=seconds(view.duration),
            times=", ".join(seconds(each) for each in view.times),
            caption=caption,
            question=question,
        )
        return self.talker.say(prompt, list(view.frames), most=96)

    def __str__(self) -> str:
        return self.talker.name


@dataclass(frozen=True)
class OwnConfidence:
    """Takes the probability that the actor gave its own words for its score."""

    reads_caption: bool = False

    def judge(self, question: str, caption: str, answer: Said, frames: int) -> Verdict:
        if answer.confidence is None:
            raise UserError("the model does not say how sure it is of its words; choose another evaluator")
        return Verdict(answer.confidence, "its own probability")

    def __str__(self) -> str:
        return "the actor's own probability"


@dataclass(frozen=True)
class PromptedEvaluator:
    """Asks a talker for a score. What cannot be read is asked once more, and then rejected with a score of 0."""

    talker: Talker
    threshold: float = 0.7
    reads_caption: bool = True

    def judge(self, question: str, caption: str, answer: Said, frames: int) -> Verdict:
        prompt = prompts.EVALUATE.format(
            question=question,
            caption=caption or "(none)",
            answer=answer.text or "(nothing)",
            count=frames,
            threshold=self.threshold,
        )
        read = written = 0
        for _ in range(2):
            said = self.talker.say(prompt, most=96)
            read, written = read + said.tokens_in, written + said.tokens_out
            reply = read_json(said.text)
            score = self._score(reply)
            if score is not None:
                return Verdict(score, one_line(str(reply.get("brief_reason", ""))), read, written)
        return Verdict(0.0, "the evaluator's reply could not be read", read, written)

    def _score(self, reply: dict[str, Any]) -> float | None:
        """The score in [0, 1]; a verdict without one counts as the threshold or 0."""
        score = reply.get("score")
        if isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score):
            return min(1.0, max(0.0, float(score)))
        return {"accept": self.threshold, "reject": 0.0}.get(str(reply.get("verdict")).strip().lower())

    def __str__(self) -> str:
        return self.talker.name


@dataclass(frozen=True)
class StatementReflector:
    """Without a language model: what the question says as a statement, then together with the rejected answer."""

    reads_caption: bool = False

    def refine(
        self, question: str, caption: str, answer: Said, verdict: Verdict, queries: Sequence[str]
    ) -> Said:
        text = statement(question)
        return Said(f"{text}, {answer.text}" if text in queries and answer.text else text)

    def __str__(self) -> str:
        return "the question as a statement"


@dataclass(frozen=True)
class PromptedReflector:
    """Asks a talker for a better search text."""

    talker: Talker
    reads_caption: bool = True

    def refine(
        self, question: str, caption: str, answer: Said, verdict: Verdict, queries: Sequence[str]
    ) -> Said:
        prompt = prompts.REFLECT.format(
            question=question,
            caption=caption or "(none)",
            answer=answer.text or "(nothing)",
            reason=verdict.reason or "(not said)",
            queries="; ".join(queries),
        )
        said = self.talker.say(prompt, most=96)
        text = read_json(said.text).get("refined_query")
        return replace(said, text=one_line(text) if isinstance(text, str) else "")

    def __str__(self) -> str:
        return self.talker.name


@dataclass(frozen=True)
class PromptedCaptionAnswerer:
    """Answers from the global caption."""

    talker: Talker

    def answer(self, question: str, caption: str) -> Said | None:
        said = self.talker.say(
            prompts.ANSWER_FROM_CAPTION.format(question=question, caption=caption), most=96
        )
        unknown = not said.text or prompts.NOT_ENOUGH.lower() in said.text.lower()
        return None if unknown else said

    def __str__(self) -> str:
        return self.talker.name


@dataclass(frozen=True)
class ModelActor:
    """A Unireel model, or anything else with ``ask_view(frames, question)``."""

    model: Any
    reads_caption: bool = False

    def answer(self, view: View, question: str, caption: str) -> Said:
        answer = self.model.ask_view(view.frames, question)
        return Said(answer.text, answer.confidence, warning=None if answer.reliable else answer.note)

    def __str__(self) -> str:
        return _model_name(self.model)


@dataclass(frozen=True)
class ModelCaptioner:
    """A Unireel model with ``caption(clip)``, shown all seed frames as one film."""

    model: Any

    def caption(self, view: View, keep: Keep) -> Said:
        answer = self.model.caption(Clip(np.ascontiguousarray(view.frames), 8.0))
        return Said(answer.text, answer.confidence)

    def __str__(self) -> str:
        return _model_name(self.model)


def _model_name(model: Any) -> str:
    """A Unireel model's class, with what changes when its weights do."""
    understanding = getattr(model, "vlm", None)
    weights = "" if understanding is None else f"/{fingerprint(understanding)}"
    return f"{type(model).__name__}{weights}"


def read_json(text: str) -> dict[str, Any]:
    """The first JSON object in a reply, whatever stands around it; an empty one if there is none."""
    decoder, start = json.JSONDecoder(), text.find("{")
    while start >= 0:
        try:
            value, _ = decoder.raw_decode(text, start)
            if isinstance(value, dict):
                return value
        except ValueError:
            pass
        start = text.find("{", start + 1)
    return {}


def one_line(text: str) -> str:
    """``text`` with every run of white space as one space."""
    return " ".join(text.split())


def seconds(time: float) -> str:
    """A time for people: "3.2 s", "12:05" or "1:02:03"."""
    if time < 60:
        return f"{time:.1f} s"
    minutes, rest = divmod(round(time), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
