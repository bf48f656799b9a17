"""What an edit kept: PSNR and SSIM inside and outside of a mask, and how steadily it changes over time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.quality import psnr, ssim
from unireel.evaluation.vbench.flickering import temporal_flickering

HALF = 128
"""Brightness from which a pixel of a mask counts as to be edited."""


@dataclass(frozen=True)
class Preservation:
    """Means over frames; None where no frame has anything to compare.

    Attributes:
        psnr, ssim: of whole frames.
        psnr_outside, ssim_outside: of what should stay as it was (mask 0); ``coverage`` is the share of these pixels.
        psnr_inside, ssim_inside: of what was to be edited.
        steadiness: the edited film's own :func:`temporal_flickering`, and the source's for comparison.
        drift: mean absolute difference between the two films' changes from frame to frame, outside of the mask, in
            [0, 1]: 0 if the edit adds no motion or flicker of its own there.
    """

    psnr: float | None
    ssim: float | None
    psnr_outside: float | None
    ssim_outside: float | None
    psnr_inside: float | None
    ssim_inside: float | None
    coverage: float | None
    steadiness: float | None
    steadiness_source: float | None
    drift: float | None


def preservation(source: Clip, edited: Clip, mask: Clip | None = None) -> Preservation:
    """Compare an edited film with its source.

    Unlike benchmarks that multiply both films with the mask and average over the whole frame, which lets large masks
    look well preserved, pixels that do not count are left out altogether.

    Args:
        source, edited: as many frames of the same size.
        mask: bright where the edit may change the film; one frame for all, or one for each.

    Raises:
        UserError: sizes or lengths differ.
    """
    _check(source, edited, mask)
    regions = None if mask is None else _outside(mask, len(source))
    pairs = list(zip(source.frames, edited.frames, strict=True))
    moving = len(source) > 1
    return Preservation(
        _mean(psnr, pairs, None),
        _mean(ssim, pairs, None),
        None if regions is None else _mean(psnr, pairs, regions),
        None if regions is None else _mean(ssim, pairs, regions),
        None if regions is None else _mean(psnr, pairs, ~regions),
        None if regions is None else _mean(ssim, pairs, ~regions),
        None if regions is None else float(regions.mean()),
        temporal_flickering(edited) if moving else None,
        temporal_flickering(source) if moving else None,
        _drift(source, edited, regions) if moving else None,
    )


def _outside(mask: Clip, count: int) -> np.ndarray:
    """Where the film should stay as it was: bool (F, H, W)."""
    outside = mask.frames.max(3) < HALF
    return np.broadcast_to(outside, (count, *outside.shape[1:])) if len(mask) == 1 else outside


def _mean(
    measure: Callable[[np.ndarray, np.ndarray, np.ndarray | None], float | None],
    pairs: list[tuple[np.ndarray, np.ndarray]],
    regions: np.ndarray | None,
) -> float | None:
    values = [
        measure(one, two, None if regions is None else regions[number])
        for number, (one, two) in enumerate(pairs)
    ]
    known = [each for each in values if each is not None]
    return float(np.mean(known)) if known else None


def _drift(source: Clip, edited: Clip, regions: np.ndarray | None) -> float | None:
    values = []
    for number, ((s0, s1), (e0, e1)) in enumerate(
        zip(pairwise(source.frames), pairwise(edited.frames), strict=True)
    ):
        change = np.abs((e1.astype(np.int16) - e0) - (s1.astype(np.int16) - s0))
        if regions is not None:
            change = change[regions[number] & regions[number + 1]]
        if change.size:
            values.append(change.mean() / 255)
    return float(np.mean(values)) if values else None


def _check(source: Clip, edited: Clip, mask: Clip | None) -> None:
    if source.frames.shape != edited.frames.shape:
        raise UserError(
            f"the source is {source} and the edited film {edited}; "
            "films are compared frame by frame and pixel by pixel (--fit brings the edited one to the source's)"
        )
    if mask is not None and (
        mask.frames.shape[1:3] != source.frames.shape[1:3] or len(mask) not in (1, len(source))
    ):
        raise UserError(
            f"the mask is {mask} and the film {source}; it needs the same size, and 1 frame or as many"
        )
