"""The result tables of the papers that this project builds on, as printed, to the digit.

Each is a CSV file beside this module: a column ``model``, then the paper's columns under the names that the benchmarks
themselves use. Empty cells are printed as a dash or not at all. Misprints are kept: see
:mod:`unireel.evaluation.vbench.published`.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from unireel.errors import UsageError, UserError

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class PaperTable:
    """A printed table: where it stands, what it shows, and in which unit."""

    name: str
    paper: str
    number: int
    about: str
    unit: str


TABLES = {
    table.name: table
    for table in (
        PaperTable("omnivideo_table2", "Omni-Video", 2, "text to image, GenEval", "share"),
        PaperTable("omnivideo_table3", "Omni-Video", 3, "text to video, VBench", "percent"),
        PaperTable("univid_table1", "UniVid", 1, "text to video, VBench", "percent"),
        PaperTable("univid_table2", "UniVid", 2, "video question answering", "percent, and 0 to 5"),
        PaperTable("univid_table3", "UniVid", 3, "ablation of the components, VBench", "percent"),
        PaperTable("univid_table4", "UniVid", 4, "ablation of the attention schedule, VBench", "percent"),
        PaperTable("univid_table5", "UniVid", 5, "ablation of the encoders, VBench", "percent"),
        PaperTable("univid_table6", "UniVid", 6, "stage I against stage III, VBench", "percent"),
        PaperTable("univid_table7", "UniVid", 7, "ablation of understanding", "percent, and 0 to 5"),
        PaperTable("univid_table8", "UniVid", 8, "evaluators and reflectors", "percent, and 0 to 5"),
        PaperTable("univid_table9", "UniVid", 9, "encoders for understanding", "percent, and 0 to 5"),
        PaperTable(
            "univid_table10", "UniVid", 10, "multimodal understanding", "percent; MMBench-Video 0 to 3"
        ),
    )
}

Row = dict[str, str | float | None]
"""A row of a table: the model's name, further words, and numbers (None where nothing is printed)."""


def rows(name: str) -> list[Row]:
    """The rows of a table in :data:`TABLES`.

    Raises:
        UsageError: there is no such table.
    """
    if name not in TABLES:
        raise UsageError(f"there is no table '{name}'; accepted: {', '.join(TABLES)}")
    return read_rows(FOLDER / f"{name}.csv")


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV file with a column ``model``.

    Raises:
        UserError: it has no such column, or cannot be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = [{key: _cell(value) for key, value in row.items()} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a CSV file: {error}") from None
    if not found or "model" not in found[0]:
        raise UserError(f"{path} has no rows with a column 'model'")
    return found


def _cell(text: str) -> str | float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return text
