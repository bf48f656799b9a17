"""GenEval's figures from the results that its ``evaluate_images.py`` writes, one image a line."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unireel.errors import UserError
from unireel.evaluation.intervals import Score, averaged, clustered

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


@dataclass(frozen=True)
class Judged:
    """One image: the prompt's tag, the prompt, whether everything asked for was found, and the image's file."""

    tag: str
    prompt: str
    correct: bool
    file: str = ""


def read_results(path: Path) -> list[Judged]:
    """The lines of a results file.

    Raises:
        UserError: it cannot be read, or a line is not a result; the line is named.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
            judged = Judged(data["tag"], data["prompt"], data["correct"], str(data.get("filename", "")))
        except (ValueError, KeyError, TypeError):
            raise UserError(f"line {number} of {path} is not a result of GenEval") from None
        if judged.tag not in TAGS or not isinstance(judged.correct, bool):
            raise UserError(
                f"line {number} of {path}: unknown tag '{judged.tag}', or 'correct' is no truth value"
            )
        found.append(judged)
    if not found:
        raise UserError(f"{path} has no results")
    return found


def summary(results: Sequence[Judged]) -> dict[str, Score]:
    """All figures, intervals by resampling prompts.

    Returns:
        ``overall``: the unweighted mean of the six tags' shares of correct images; each tag; ``images``: the share of
        all images; ``prompts``: the share of prompts with at least one correct image.

    Raises:
        UserError: a tag has no images: an overall score of fewer would not be GenEval's.
    """
    missing = [tag for tag in TAGS if all(each.tag != tag for each in results)]
    if missing:
        raise UserError(
            f"there are no images of {', '.join(missing)}; GenEval's overall score is the mean of 6 tags"
        )
    by_tag = {tag: [each for each in results if each.tag == tag] for tag in TAGS}
    scores = {
        tag: clustered([each.correct for each in found], [each.prompt for each in found])
        for tag, found in by_tag.items()
    }
    solved: defaultdict[tuple[str, str], bool] = defaultdict(bool)
    for each in results:
        solved[each.tag, each.prompt] |= each.correct
    groups = [([e.correct for e in found], [e.prompt for e in found]) for found in by_tag.values()]
    return {
        "overall": averaged(groups),
        **scores,
        "images": clustered([e.correct for e in results], [f"{e.tag}\0{e.prompt}" for e in results]),
        "prompts": clustered(list(solved.values()), [f"{tag}\0{prompt}" for tag, prompt in solved]),
    }
