"""Reading raw scores: VBench's own result files, folders and zips of them, and plain ``{"dimension": number}``."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unireel.errors import UserError
from unireel.evaluation.vbench.dimensions import DIMENSIONS

MOST_BYTES = 256 * 2**20
"""Largest result file that is read."""


@dataclass
class Results:
    """Raw scores by dimension, where each was read, and, as far as the files have them, the scores of single films."""

    raw: dict[str, float] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    films: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    def add(self, name: str, value: Any, source: str) -> None:
        """Take one entry of a file: a number, or VBench's ``[aggregate, [one object for each film]]``."""
        plain = name.strip().replace(" ", "_")
        if plain not in DIMENSIONS:
            raise UserError(f"{source}: VBench has no dimension '{name}'")
        number = value[0] if isinstance(value, list) and value else value
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise UserError(f"{source}: '{name}' has no number but {json.dumps(value)[:60]}")
        if plain in self.raw and self.raw[plain] != number:
            raise UserError(
                f"{plain} is {self.raw[plain]:g} in {self.source[plain]} and {number:g} in {source}; keep one"
            )
        self.raw[plain], self.source[plain] = float(number), source
        self.films[plain] = list(_films(value[1])) if isinstance(value, list) and len(value) > 1 else []


def read(paths: Sequence[Path], percent: bool = False) -> Results:
    """Raw scores from files, folders and zips.

    Args:
        paths: JSON files, folders of them (``*_eval_results.json``, or all JSON files if there are none), or zips.
        percent: values are 0 to 100 instead of 0 to 1.

    Raises:
        UserError: nothing to read, damaged or foreign files, or two values for one dimension.
    """
    results = Results()
    for name, content in _documents(paths):
        try:
            data = json.loads(content)
        except ValueError:
            raise UserError(f"{name} is not JSON") from None
        if isinstance(data, list):
            results.ignored.append(name)  # VBench's list of what it was asked to measure
            continue
        if not isinstance(data, dict):
            raise UserError(f"{name} has no dimensions")
        for key, value in data.items():
            results.add(key, value, name)
    if not results.raw:
        raise UserError(f"there are no VBench results in {', '.join(map(str, paths))}")
    if percent:
        results.raw = {name: value / 100 for name, value in results.raw.items()}
    return results


def _documents(paths: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        if not path.exists():
            raise UserError(f"there is no {path}")
        if path.is_dir():
            found = sorted(path.rglob("*_eval_results.json")) or sorted(path.rglob("*.json"))
            if not found:
                raise UserError(f"the folder {path} has no JSON files")
            for each in found:
                yield str(each), _content(each)
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    if info.filename.endswith(".json") and not info.is_dir():
                        if info.file_size > MOST_BYTES:
                            raise UserError(f"{path}: {info.filename} is larger than {MOST_BYTES} bytes")
                        yield f"{path}:{info.filename}", archive.read(info)
        else:
            yield str(path), _content(path)


def _content(path: Path) -> bytes:
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"{path} is larger than {MOST_BYTES} bytes")
    return path.read_bytes()


def _films(entries: Any) -> Iterator[tuple[str, float]]:
    for entry in entries if isinstance(entries, list) else ():
        value = entry.get("video_results") if isinstance(entry, dict) else None
        if isinstance(value, int | float):
            yield str(entry.get("video_path", "")), float(value)
