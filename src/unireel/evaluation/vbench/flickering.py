"""Temporal flickering, the one dimension of VBench that needs no network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.films import read_plainly
from unireel.evaluation.vbench.results import Results

DIMENSION = "temporal_flickering"


def temporal_flickering(clip: Clip) -> float:
    """How alike neighbouring frames are: 1 minus their mean absolute difference in units of full scale, in [0, 1].

    The protocol measures it on films of scenes that hardly move; on others it measures motion as well.

    Raises:
        UserError: the film has one frame only.
    """
    if len(clip) < 2:
        raise UserError("temporal flickering needs at least two frames")
    frames = clip.frames
    # One pair at a time: the differences of a whole film would take several times its memory.
    differences = [np.abs(one.astype(np.int16) - two).mean() for one, two in pairwise(frames)]
    return float(1 - np.mean(differences) / 255)


def measure(paths: Sequence[Path]) -> tuple[Results, list[tuple[Path, str]]]:
    """Temporal flickering of films, and those that could not be measured with the reason.

    Raises:
        UserError: none could be measured.
    """
    results, failed = Results(), []
    films: list[tuple[str, float]] = []
    for path in paths:
        try:
            films.append((str(path), temporal_flickering(read_plainly(path))))
        except UserError as error:
            failed.append((path, str(error)))
    if not films:
        first = f": {failed[0][1]}" if failed else ""
        raise UserError(f"none of {len(failed)} films could be measured{first}")
    results.films[DIMENSION] = films
    results.raw[DIMENSION] = float(np.mean([value for _, value in films]))
    results.source[DIMENSION] = "measured"
    return results, failed


def upstream(results: Results) -> dict[str, list[object]]:
    """Results as VBench writes them: ``{dimension: [aggregate, [{video_path, video_results}]]}``."""
    return {
        name: [value, [{"video_path": path, "video_results": each} for path, each in results.films[name]]]
        for name, value in results.raw.items()
    }


def films_in(folder: Path) -> Iterator[Path]:
    """The films below ``folder`` that VBench would take, in order."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".mp4", ".gif") and path.is_file():
            yield path
