"""Profiles: how the system behaves where the paper and its release differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from unireel.errors import UsageError

GuidanceRule = Literal["standard", "released"]


@dataclass(frozen=True)
class Profile:
    """What the paper says, or what the release computes.

    Attributes:
        name: "paper" or "released".
        rule: of guidance. "standard" is ``uncond + g (cond - uncond)``, with scales of their own for text and source;
            "released" is ``cond + g (cond - uncond)``, which is a scale of 1 + g.
        masked: whether the decoder is kept from looking at padding. The release's looks: its padding is part of its
            numerics.
        length: tokens that every context is padded to; None pads to the longest of a batch.
        positions: whether source tokens carry their places.
        first_frame_only: whether the language model sees only the first frame of a source film; the release encodes
            eight and uses one.
        own_times: whether sampling times are Wan's own, see :func:`~unireel.systems.omnivideo.sampling.unipc`.
        marks: whether the release's learned marks stand around the segments of the context.
    """

    name: str
    rule: GuidanceRule
    masked: bool
    length: int | None
    positions: bool
    first_frame_only: bool
    own_times: bool
    marks: bool


PROFILES = {
    "paper": Profile("paper", "standard", True, None, True, False, False, False),
    "released": Profile("released", "released", False, 2560, False, True, True, True),
}


def profile_of(name: str) -> Profile:
    """The profile called ``name``.

    Raises:
        UsageError: there is none.
    """
    if name not in PROFILES:
        raise UsageError(f"there is no profile '{name}'; accepted: {', '.join(PROFILES)}")
    return PROFILES[name]
