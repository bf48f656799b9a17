"""What a model of the system Omni-Video is set to, as its ``unireel.json`` holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from unireel.systems.base.pipeline import TEXT_LENGTH
from unireel.systems.omnivideo.context import SEGMENTS
from unireel.systems.omnivideo.decoder import Route
from unireel.systems.omnivideo.sampling import Sampling

Task = Literal["t2i", "t2v", "i2i", "v2v"]
"""Pictures and films from words, and edits of pictures and films."""


@dataclass(frozen=True)
class Budgets:
    """Tokens of context that each segment may have."""

    source: int = 180
    visual: int = 40
    text: int = TEXT_LENGTH


@dataclass(frozen=True)
class Settings:
    """Of a whole model.

    Beside the base system's settings (``size``, ``steps``, ``guidance``, ``shift``, ``prediction``, ``staged``), which
    say how films are made from words.

    Attributes:
        profile: "paper" or "released", see :mod:`~unireel.systems.omnivideo.profile`.
        route: of source films, see :class:`~unireel.systems.omnivideo.decoder.Decoder`.
        copies: whether a gate says what of a source film is copied.
        sharpness, caution: of the gate: its logits are multiplied by the one, after the other times the flow's time was
            taken from them. Undecided, it mixes source and drawing to what is neither; early it should rather draw,
            since what is drawn like the source can still be copied, but what was copied stays.
        editor: whether edits have a decoder of their own, so that what is made from words stays as it was.
        segments: of the context that are used.
        words_only: whether films from words are made from words alone, as the base model makes them; visual tokens
            then speak of edits only.
        told: the words that the decoder of an edit hears in place of the instruction: "nothing", the plan that was
            "thought" in think mode, or else the one that is "foreseen" by the language model.
        budgets: of the context.
        prompt_length: words and marks of a text, with its end mark; it may be a plan.
        blend: where an edited film and its source, both through the autoencoder, are less than this apart (in pixels
            from -1 to 1), it shows the more of the source's own pixels the nearer they are; 0: none.
        t2i, t2v, i2i, v2v: how these tasks are sampled; where None, by the base system's settings.
    """

    profile: Literal["paper", "released"] = "paper"
    route: Route = "tokens"
    copies: bool = False
    sharpness: float = 1.0
    caution: float = 0.0
    editor: bool = False
    segments: tuple[str, ...] = SEGMENTS
    words_only: bool = False
    told: Literal["nothing", "thought", "foreseen"] = "thought"
    budgets: Budgets = field(default_factory=Budgets)
    prompt_length: int = TEXT_LENGTH
    blend: float = 0.0
    t2i: Sampling | None = None
    t2v: Sampling | None = None
    i2i: Sampling | None = None
    v2v: Sampling | None = None

    def __post_init__(self) -> None:
        unknown = set(self.segments) - set(SEGMENTS)
        if unknown:
            raise ValueError(
                f"segments: there is no {', '.join(sorted(unknown))}; accepted: {', '.join(SEGMENTS)}"
            )
