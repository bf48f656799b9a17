"""Lists of edits to measure, in the benchmarks' own columns, and what comes of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.editing.preservation import preservation
from unireel.evaluation.intervals import Score, clustered
from unireel.evaluation.journal import Journal, Record
from unireel.evaluation.tables import read_table

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
    "undo": ("undo", "inverse_instruction"),
    "kind": ("kind", "edited_type", "edit_type", "editing_type_id", "type"),
    "test": ("test",),
    "id": ("id", "file_id", "name"),
}
"""What a column is called in EditBoard, OpenVE-Bench, Ditto, Kiwi-Edit, image folders of the hub, and here."""

SUFFIXES = (".mp4", ".webm", ".gif", ".mov", ".avi", ".mkv", ".png", ".jpg")
"""What the files of films and masks may end in where a list leaves it out."""

JUDGED = ("followed", "overall", "compliance", "preservation", "quality")
"""What a judge says of an edit: a truth value, then ratings from 1 to 5."""

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
    """A film before and after an edit; ``mask`` is bright where it may change.

    ``undo`` is the instruction that takes an edit back, of which a model's inverse test is made.
    """

    id: str
    source: Path
    edited: Path
    mask: Path | None = None
    instruction: str = ""
    kind: str = ""
    test: str = "edit"
    undo: str = ""


@dataclass(frozen=True)
class Place:
    """Where the films of a list are.

    Attributes:
        videos: the folder of sources and masks.
        made: the folder of films that a model edits, one for each id; None: the list names edited films.
    """

    videos: Path
    made: Path | None = None


def read_pairs(
    path: Path, videos: Path | None = None, made: Path | None = None, noop: str | None = None
) -> tuple[list[Pair], list[tuple[str, str]]]:
    """The pairs of a list, and its bad rows with what is wrong with them.

    A list is a table with a row for each edit, or TGVE's mapping ``{video: {"edit_KIND": instruction}}``.

    Args:
        videos: the folder that paths are relative to, the list's own by default; suffixes may be left out.
        made: see :class:`Place`.
        noop: also a test "noop" with this instruction on every source film (of edits that a model makes).

    Raises:
        UserError: the list cannot be read, or no row is good.
    """
    place = Place(path.parent if videos is None else videos, made)
    found: dict[str, Pair] = {}
    bad: list[tuple[str, str]] = []
    table = read_table(path)
    for number, row in enumerate(_tgve_rows(table) if isinstance(table, dict) else table, 1):
        try:
            pair = _pair(row, number, place)
            if pair.id in found:
                raise UserError(f"another row has the id '{pair.id}'")
            found[pair.id] = pair
        except UserError as error:
            bad.append((f"row {number}", str(error)))
    if not found:
        raise UserError(f"{path} names no pair of films: {bad[0][1] if bad else 'it is empty'}")
    pairs = list(found.values())
    return pairs + (_noops(pairs, noop, place) if noop is not None else []), bad


def _tgve_rows(table: dict[str, Any]) -> list[Any]:
    """TGVE's mapping (as InsV2V distributes its instructions) as rows."""
    rows: list[Any] = []
    for video, edits in table.items():
        if not isinstance(edits, dict):
            rows.append(edits)
            continue
        for name, instruction in edits.items():
            kind = str(name).removeprefix("edit_")
            rows.append({"id": f"{video}/{kind}", "source": video, "instruction": instruction, "kind": kind})
    return rows


def _noops(pairs: Sequence[Pair], instruction: str, place: Place) -> list[Pair]:
    assert place.made is not None
    sources = {pair.source: pair.mask for pair in pairs}
    return [
        Pair(name, source, place.made / name, None, instruction, "noop", "noop")
        for number, source in enumerate(sources, 1)
        for name in [f"noop/{number:05d}"]
    ]


def _pair(row: Any, number: int, place: Place) -> Pair:
    if not isinstance(row, dict):
        raise UserError("not a row of columns")

    def cell(name: str) -> str:
        return next((str(row[column]).strip() for column in COLUMNS[name] if row.get(column)), "")

    wanted = ("source", "edited") if place.made is None else ("source",)
    missing = [name for name in wanted if not cell(name)]
    if missing:
        raise UserError(f"no {' and no '.join(missing)} film")
    test = cell("test") or "edit"
    if test not in TESTS:
        raise UserError(f"unknown test '{test}'; accepted: {', '.join(TESTS)}")
    name = cell("id") or f"{number:05d}"
    if place.made is not None:
        _check_makable(name, test, cell("instruction"), cell("undo"))
    return Pair(
        name,
        _film(place.videos, cell("source")),
        place.videos / cell("edited") if place.made is None else place.made / name,
        _film(place.videos, cell("mask")) if cell("mask") else None,
        cell("instruction"),
        cell("kind"),
        test,
        cell("undo"),
    )


def _check_makable(name: str, test: str, instruction: str, undo: str) -> None:
    """Raise a :class:`UserError` if a model cannot be given this row."""
    if not instruction:
        raise UserError("no instruction")
    if test == "inverse" and not undo:
        raise UserError("a test 'inverse' needs an instruction 'undo' that takes the edit back")
    parts = name.split("/")
    if any(part in ("", ".", "..") or not re.fullmatch(r"[\w .,+@=()-]{1,200}", part) for part in parts):
        raise UserError(f"the id '{name}' cannot be the name of a folder")


def _film(folder: Path, name: str) -> Path:
    """The file that a list names, with or without its suffix; as it is named if there is none."""
    path = folder / name
    candidates = (path, *(path.with_name(path.name + suffix) for suffix in SUFFIXES))
    return next((each for each in candidates if each.exists()), path)


def measure(
    pairs: Sequence[Pair],
    journal: Journal,
    films: Callable[[Pair], tuple[Clip, Clip, Clip | None]],
    advance: Callable[[int, int, str], None] | None = None,
) -> None:
    """Compare every pair that ``journal`` has no result of; a pair that cannot be compared is recorded with why.

    Args:
        films: gives the films of a pair before and after, and the mask.
        advance: called with (pairs done, pairs left, id).
    """
    todo = [pair for pair in pairs if pair.id not in journal or "error" in journal[pair.id]]
    for number, pair in enumerate(todo, 1):
        # As in other benchmarks, "part" and "index" say what is compared with what, and "video" what belongs together.
        record: dict[str, Any] = {"id": pair.id, "part": pair.test, "index": pair.id, "kind": pair.kind}
        record |= {"video": pair.source.name, "prompt": pair.instruction}
        try:
            record |= asdict(preservation(*films(pair)))
        except UserError as error:
            record["error"] = str(error)
        journal.append([record])
        if advance:
            advance(number, len(todo) - number, pair.id)


def scores(records: Iterable[Record]) -> dict[str, Score]:
    """Means over pairs: of edits under the plain names, of the other tests under ``noop/`` and ``inverse/``.

    Where several edits are of one film, whole films are resampled for the intervals.
    """
    good = [record for record in records if "error" not in record]
    found: dict[str, Score] = {}
    for test in TESTS:
        prefix = "" if test == "edit" else f"{test}/"
        for name in (*JUDGED, *COMPARED):
            known = [each for each in good if each["part"] == test and each.get(name) is not None]
            if known:
                values, videos = [each[name] for each in known], [each["video"] for each in known]
                found[prefix + name] = clustered(values, videos)
    return found


def by_kind(records: Iterable[Record], name: str) -> dict[str, Score]:
    """The score ``name`` of edits by their kind, where there is more than one."""
    known = [
        each
        for each in records
        if each.get("part") == "edit" and each.get(name) is not None and each.get("kind")
    ]
    kinds = dict.fromkeys(each["kind"] for each in known)
    if len(kinds) < 2:
        return {}
    return {
        f"{name}/{kind}": clustered(
            [each[name] for each in known if each["kind"] == kind],
            [each["video"] for each in known if each["kind"] == kind],
        )
        for kind in kinds
    }
