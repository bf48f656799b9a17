"""Traces of Pyramid Reflection for pages: round after round the frames that were looked at, as strips of pictures.

A trace (``docs/reflection.md``) is a JSON document. Of it evaluations keep the rounds in their records, plain JSON
without pictures: ``[{"query", "frames", "times", "scores", "said", "score", "reason", "accepted"}]``. Pictures are
drawn from the film again when a page is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unireel.evaluation.page import Frame, Picture, Strip
from unireel.evaluation.pictures import photo, png
from unireel.media.resize import resize_frame

SIDE = 112
"""Longest side of a frame in a strip, in pixels; smaller frames keep their size."""

Round = dict[str, Any]


def rounds_of(trace: Mapping[str, Any]) -> list[Round]:
    """The rounds of a trace that have been judged, as an evaluation keeps them."""
    threshold = trace["settings"]["threshold"]
    return [
        {
            "query": entry["select"]["query"],
            "frames": entry["select"]["frames"],
            "times": entry["select"]["times"],
            "scores": entry["select"]["scores"],
            "said": entry["actor"]["text"],
            "score": round(entry["evaluator"]["score"], 4),
            "reason": entry["evaluator"]["reason"],
            "accepted": entry["evaluator"]["score"] >= threshold,
        }
        for entry in trace["rounds"]
        if "evaluator" in entry
    ]


def strips(
    rounds: Sequence[Round],
    draw: Callable[[int], np.ndarray],
    evidence: tuple[int, int] | None = None,
) -> tuple[Strip, ...]:
    """One strip for each round.

    Args:
        rounds: from :func:`rounds_of`.
        draw: gives a frame (H, W, 3) uint8 of the film by its number.
        evidence: first and last frame in which what was asked about shows, where that is known; frames within are
            marked.
    """
    return tuple(_strip(number, each, draw, evidence) for number, each in enumerate(rounds, 1))


def _strip(
    number: int, found: Round, draw: Callable[[int], np.ndarray], evidence: tuple[int, int] | None
) -> Strip:
    scores = found["scores"] or [None] * len(found["frames"])
    frames = tuple(
        Frame(
            _thumbnail(draw(frame), f"frame {frame} at {time:.2f} s"),
            f"{time:.2f} s" + ("" if score is None else f" · {score:.2f}"),
            evidence is not None and evidence[0] <= frame <= evidence[1],
        )
        for frame, time, score in zip(found["frames"], found["times"], scores, strict=True)
    )
    count = len(frames)
    heading = f"Round {number}: {count} frame{'s' if count > 1 else ''}, sought “{found['query']}”"
    verdict = "accepted" if found["accepted"] else "rejected"
    said = f"{found['said'] or 'no answer'}: {verdict} with a score of {found['score']:.2f}"
    reason = f" ({found['reason']})" if found["reason"] else ""
    return Strip(heading, frames, found["accepted"], said + reason)


def _thumbnail(frame: np.ndarray, shows: str) -> Picture:
    """A frame as it is if it is small, else a photograph of :data:`SIDE` pixels."""
    height, width = frame.shape[:2]
    longest = max(height, width)
    if longest <= SIDE:
        return Picture(png(frame), "image/png", shows, "film")
    size = max(1, round(height * SIDE / longest)), max(1, round(width * SIDE / longest))
    return Picture(photo(resize_frame(frame, *size)), shows=shows, look="photo")
