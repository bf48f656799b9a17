"""Lists of edits to measure, in the benchmarks' own columns, and what comes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.editing.preservation import preservation
from unireel.evaluation.films import read_plainly
from unireel.evaluation.intervals import Score, mean
from unireel.evaluation.journal import Journal
from unireel.evaluation.tables import rows_of

TESTS = ("edit", "noop", "inverse")
"""``edit``: an edit as asked; ``noop``: the instruction asks for nothing, so everything should stay; ``inverse``: the
edited film is the result of an edit and its undoing, so everything should be as at first."""

COLUMNS = {
    "source": (
        "source",
        "original_video_path",
        "original_video",
        "source_video",
        "source_path",
        "src_video",
        "source_file_name",
        "original_file_name",
        "input_file_name",
        "src_file_name",
    ),
    "edited": (
        "edited",
        "edited_video_path",
        "edited_video",
        "target_video",
        "edited_path",
        "tgt_video",
        "edited_file_name",
        "target_file_name",
        "output_file_name",
        "tgt_file_name",
    ),
    "mask": ("mask", "semantic_mask_path", "mask_path"),
    "instruction": ("instruction", "prompt", "target_prompt", "edit_prompt"),
    "kind": ("kind", "edited_type", "edit_type", "editing_type_id", "type"),
    "test": ("test",),
    "id": ("id", "file_id", "name"),
}
"""What a column is called in EditBoard, OpenVE-Bench, Ditto, Kiwi-Edit, image folders of the hub, and here."""

COMPARED = (
    "psnr",
    "ssim",
    "psnr_outside",
    "ssim_outside",
    "psnr_inside",
    "ssim_inside",
    "steadiness",
    "drift",
)


@dataclass(frozen=True)
class Pair:
    """A film before and after an edit; ``mask`` is bright where it may change."""

    id: str
    source: Path
    edited: Path
    mask: Path | None = None
    instruction: str = ""
    kind: str = ""
    test: str = "edit"


def read_pairs(path: Path) -> tuple[list[Pair], list[tuple[str, str]]]:
    """The pairs of a list, and its bad rows with what is wrong with them. Paths are relative to the list.

    Raises:
        UserError: the list cannot be read, or no row is good.
    """
    pairs: list[Pair] = []
    bad: list[tuple[str, str]] = []
    for number, row in enumerate(rows_of(path), 1):
        try:
            pairs.append(_pair(row, number, path.parent))
        except UserError as error:
            bad.append((f"row {number}", str(error)))
    if not pairs:
        raise UserError(f"{path} names no pair of films: {bad[0][1] if bad else 'it is empty'}")
    return pairs, bad


def _pair(row: Any, number: int, folder: Path) -> Pair:
    if not isinstance(row, dict):
        raise UserError("not a row of columns")

    def cell(name: str) -> str:
        return next((str(row[column]).strip() for column in COLUMNS[name] if row.get(column)), "")

    missing = [name for name in ("source", "edited") if not cell(name)]
    if missing:
        raise UserError(f"no {' and no '.join(missing)} film")
    test = cell("test") or "edit"
    if test not in TESTS:
        raise UserError(f"unknown test '{test}'; accepted: {', '.join(TESTS)}")
    mask = folder / cell("mask") if cell("mask") else None
    return Pair(
        cell("id") or f"{number:05d}",
        folder / cell("source"),
        folder / cell("edited"),
        mask,
        cell("instruction"),
        cell("kind"),
        test,
    )


def measure(
    pairs: Sequence[Pair], journal: Journal, fit: bool, advance: Callable[[int, int, str], None] | None = None
) -> None:
    """Compare every pair that ``journal`` has no result of; a pair that cannot be compared is recorded with why.

    Args:
        fit: bring edited films of another size to the source's, and cut the longer of two films.
        advance: called with (pairs done, pairs left, id).
    """
    todo = [pair for pair in pairs if pair.id not in journal or "error" in journal[pair.id]]
    for number, pair in enumerate(todo, 1):
        record: dict[str, Any] = {"id": pair.id, "test": pair.test, "kind": pair.kind}
        try:
            record |= _compared(pair, fit)
        except UserError as error:
            record["error"] = str(error)
        journal.append([record])
        if advance:
            advance(number, len(todo) - number, pair.id)


def _compared(pair: Pair, fit: bool) -> dict[str, float | None]:
    source, edited = read_plainly(pair.source), read_plainly(pair.edited)
    mask = None if pair.mask is None else read_plainly(pair.mask)
    if fit:
        count = min(len(source), len(edited))
        source, edited = source[:count], _fitted(edited[:count], source)
        if mask is not None:
            mask = _fitted(mask[:count] if len(mask) > 1 else mask, source)
    return asdict(preservation(source, edited, mask))


def _fitted(clip: Clip, like: Clip) -> Clip:
    same = (clip.height, clip.width) == (like.height, like.width)
    return clip if same else clip.resized(like.height, like.width)


def scores(journal: Journal) -> dict[str, Score]:
    """Means over pairs: of edits under the plain names, of the other tests under ``noop/`` and ``inverse/``."""
    good = [record for record in journal if "error" not in record]
    found: dict[str, Score] = {}
    for test in TESTS:
        prefix = "" if test == "edit" else f"{test}/"
        for name in COMPARED:
            values = [r[name] for r in good if r["test"] == test and r.get(name) is not None]
            if values:
                found[prefix + name] = mean(values)
    return found
