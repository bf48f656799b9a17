"""Reading annotation files of any kind the benchmarks use: JSON, JSON lines, CSV, tab-separated, Parquet.

What a file is follows from its content, not its name: TGIF-QA's ``.csv`` files are separated by tabs.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

from unireel.errors import UserError

Table = list[Any]
"""Rows, normally mappings from column to value; whoever uses them checks that."""


def read_table(path: Path) -> Table | dict[str, Any]:
    """The rows of a file, or the mapping that it is.

    Raises:
        UserError: there is no such file, or it is none of the kinds.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if content.startswith(b"PAR1"):
        return _parquet(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is neither text (UTF-8) nor Parquet") from None
    if not text.strip():
        raise UserError(f"{path} is empty")
    if text.lstrip()[0] in "[{":
        return _json(text, path)
    return _separated(text, path)


def rows_of(path: Path) -> Table:
    """As :func:`read_table`, for files that must be a list of rows."""
    found = read_table(path)
    if not isinstance(found, list):
        raise UserError(f"{path} is not a list of rows")
    return found


def _json(text: str, path: Path) -> Table | dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        return _json_lines(text, path, str(error))
    return found if isinstance(found, list | dict) else [found]


def _json_lines(text: str, path: Path, reason: str) -> Table:
    """One value a line; a line that is not JSON is kept as text, for whoever lists bad rows."""
    lines = [line for line in text.splitlines() if line.strip()]
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            found.append(line)
    if sum(isinstance(each, dict | list) for each in found) * 2 <= len(found):
        raise UserError(f"{path} is not JSON: {reason}")
    return found


def _separated(text: str, path: Path) -> Table:
    """CSV or tab-separated values with a header."""
    delimiter = "\t" if "\t" in text.split("\n", 1)[0] else ","
    # TGIF-QA has quotation marks that belong to the text; with tabs between fields nothing is quoted.
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)
        found: Table = list(reader)
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as a table: {error}") from None
    if len(reader.fieldnames or ()) < 2:
        raise UserError(f"{path} is none of JSON, JSON lines, CSV, tab-separated values or Parquet")
    return found


def _parquet(path: Path) -> Table:
    try:
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(f"{path} is a Parquet file; reading it needs 'pip install pyarrow'") from None
    return parquet.read_table(path).to_pylist()
