"""Two evaluations side by side: their items matched, every shared score compared with a paired test."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unireel.errors import UserError
from unireel.evaluation.journal import CARD
from unireel.evaluation.paired import Paired, compare_items, holm
from unireel.evaluation.worldbench.ledger import ITEMS_OF_ALL

ITEMS, SCORES = "items.jsonl", "scores.json"
NOT_SCORES = (
    *("part", "index", "seed", "seconds", "confidence", "kind", "unchanged"),
    *("coverage", "steadiness_source"),
)
"""Fields of an item that are numbers or truth values and no scores."""

Key = tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """What an evaluation left: its folder, what it says of itself, and its items by key."""

    folder: Path
    about: dict[str, Any]
    items: dict[Key, dict[str, Any]]

    @property
    def name(self) -> str:
        """The model's name, or the folder's."""
        return str(self.about.get("model") or self.folder.name)


@dataclass(frozen=True)
class Row:
    """A compared score; ``adjusted`` is the p value corrected for the number of rows."""

    name: str
    paired: Paired
    adjusted: float


@dataclass(frozen=True)
class Comparison:
    """All rows, how many items were in both runs, and how many in one only."""

    rows: list[Row]
    shared: int
    only_first: int
    only_second: int


def read_run(folder: Path) -> Run:
    """Read the folder of an evaluation of any benchmark, or what VBench or GenEval wrote.

    Raises:
        UserError: it holds none.
    """
    paths = sorted(folder.glob(ITEMS_OF_ALL)) if folder.is_dir() else []
    if not paths:
        return _of_results(folder)
    items: dict[Key, dict[str, Any]] = {}
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                item = json.loads(line)
                items[_key(item)] = item
            except (ValueError, KeyError, TypeError):
                raise UserError(f"line {number} of {path} is not an item of an evaluation") from None
    about: dict[str, Any] = {}
    for name in (SCORES, CARD):
        if (folder / name).is_file():
            try:
                about |= json.loads((folder / name).read_text(encoding="utf-8"))
            except (ValueError, TypeError):
                raise UserError(f"{folder / name} is damaged") from None
    return Run(folder, about, items)


def _of_results(path: Path) -> Run:
    """The scores of single films in VBench's results (a folder, a file, a zip, or the ``results`` of a run of ours), or
    of single images in GenEval's.

    Raises:
        UserError: they are neither, or have no scores of single items.
    """
    if path.is_file() and path.suffix == ".jsonl":
        found = _images(path)
    elif path.is_dir() and not (path / "results").is_dir() and not any(path.glob("*_eval_results.json")):
        raise UserError(f"{path} holds no evaluation: it has no {ITEMS}, nor results of VBench")
    else:
        found = _films(path / "results" if (path / "results").is_dir() else path)
    card = path / CARD
    about = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    return Run(path, about, {_key(each): each for each in found})


def _films(path: Path) -> list[dict[str, Any]]:
    from unireel.evaluation.vbench.results import read
    from unireel.evaluation.vbench.uncertainty import prompt_of

    found = [
        {"part": dimension, "index": Path(film).name, "score": value, "video": prompt_of(film)}
        for dimension, films in read([path]).films.items()
        for film, value in films
    ]
    if not found:
        raise UserError(f"{path} has no scores of single films, so it cannot be compared item by item")
    return found


def _images(path: Path) -> list[dict[str, Any]]:
    from unireel.evaluation.geneval.summary import read_results

    return [
        {
            "part": each.tag,
            "index": "/".join(Path(each.file).parts[-3:]) or str(number),
            "prompt": each.prompt,
            "video": each.prompt,
            "correct": each.correct,
        }
        for number, each in enumerate(read_results(path))
    ]


def _key(item: dict[str, Any]) -> Key:
    return (item["part"], str(item["index"])) if "part" in item else (str(item["id"]),)


def compare_runs(first: Run, second: Run) -> Comparison:
    """Compare what both runs have.

    Raises:
        UserError: they share no items, an item was another question, or they share no scores.
    """
    shared = [key for key in first.items if key in second.items]
    if not shared:
        raise UserError(f"{first.folder} and {second.folder} have no items in common")
    pairs = [(first.items[key], second.items[key]) for key in shared]
    for one, two in pairs:
        for field in ("question", "prompt", "answer"):
            if one.get(field) != two.get(field):
                raise UserError(
                    f"the runs are of different items: {field} '{one.get(field)}' and '{two.get(field)}'"
                )
    rows = list(_rows(pairs))
    if not rows:
        raise UserError(f"{first.folder} and {second.folder} have no scores in common")
    adjusted = holm({row.name: row.paired.p for row in rows})
    rows = [replace(row, adjusted=adjusted[row.name]) for row in rows]
    return Comparison(rows, len(shared), len(first.items) - len(shared), len(second.items) - len(shared))


def _rows(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> Iterable[Row]:
    fields = dict.fromkeys(
        name
        for one, two in pairs
        for name, value in one.items()
        if isinstance(value, bool | float | int) and name not in NOT_SCORES and name in two
    )
    parts = dict.fromkeys(str(one.get("part", "")) for one, _ in pairs)
    for part in parts:
        for field in fields:
            # What one of the runs could not score is compared in neither.
            found = [
                (one, two)
                for one, two in pairs
                if str(one.get("part", "")) == part
                and one.get(field) is not None
                and two.get(field) is not None
            ]
            if not found:
                continue
            clusters = [str(one.get("video", number)) for number, (one, _) in enumerate(found)]
            paired = compare_items(
                [float(one[field]) for one, _ in found], [float(two[field]) for _, two in found], clusters
            )
            yield Row(f"{part}/{field}" if part else field, paired, paired.p)
