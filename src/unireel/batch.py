"""Many films at once: made from prompts, described, or asked about; on as many workers as there are, resumably.

Rows come as JSON lines. Results go to ``results.jsonl`` in the output's folder as they are done, one line a row, films
beside it; rows that have a result there are not done again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from unireel import workers
from unireel.errors import UsageError, UserError
from unireel.workers import Workers

Task = Literal["generate", "caption", "ask"]
FIELDS: dict[Task, dict[str, tuple[type, Any]]] = {
    "generate": {"prompt": (str, None), "seed": (int, 0), "frames": (int, 0)},
    "caption": {"film": (str, None)},
    "ask": {"film": (str, None), "question": (str, None), "answer": (str, "")},
}
"""What rows of each task have: type and default; no default means that it must be there."""
RESULTS = "results.jsonl"


@dataclass(frozen=True)
class Order:
    """A row: its place, what identifies it, its fields."""

    line: int
    key: str
    fields: tuple[tuple[str, Any], ...]

    def __getitem__(self, name: str) -> Any:
        return dict(self.fields)[name]


def read_orders(path: Path, task: Task) -> list[Order]:
    """The rows of a file of JSON lines; paths of films are taken from its folder.

    Raises:
        UserError: the file cannot be read, or a row is not what the task takes.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from error
    orders = [_order(line, number, task, path) for number, line in enumerate(lines, start=1) if line.strip()]
    if not orders:
        raise UserError(f"{path} has no rows")
    return orders


def _order(line: str, number: int, task: Task, path: Path) -> Order:
    where = f"{path}, line {number}"
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise UsageError(f"{where}: not a JSON object")
    fields = FIELDS[task]
    if odd := sorted(set(row) - set(fields)):
        raise UsageError(f"{where}: '{odd[0]}' is none of {', '.join(fields)}")
    for name, (kind, default) in fields.items():
        if name not in row and default is not None:
            row[name] = default
        if not isinstance(row.get(name), kind) or isinstance(row[name], bool):
            raise UsageError(f"{where}: '{name}' must be there as {'text' if kind is str else 'a number'}")
    if "film" in row:
        row["film"] = str(path.parent / row["film"])
    content = json.dumps([task, row], sort_keys=True)
    return Order(number, hashlib.sha256(content.encode()).hexdigest()[:16], tuple(sorted(row.items())))


def run(
    task: Task,
    orders: Sequence[Order],
    folder: Path,
    model: str,
    device: str | None = None,
    fast: bool | str | None = None,
    doing: Workers | None = None,
    at_once: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Do the rows that have no result yet; returns the results of all, in their order.

    Args:
        folder: of the results.
        model, device, fast: see :func:`unireel.load`; every worker loads one.
        doing: who does it; this process by default.
        at_once: rows that the model takes together.
        progress: called with rows done and rows in all.

    Raises:
        UserError: the model cannot be loaded, or nothing can be written. What is wrong with one row is its result.
    """
    path = folder / RESULTS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        done = {each["key"]: each for each in _read(path) if "error" not in each}
        unique = list({order.key: order for order in orders if order.key not in done}.values())
        chunks = [unique[start : start + at_once] for start in range(0, len(unique), at_once)]
        before = len(orders) - len(unique)
        with path.open("a", encoding="utf-8") as file:
            for results in workers.run(
                chunks, partial(_Doer, task, folder, model, device, fast), doing or Workers()
            ):
                for each in results:
                    done[each["key"]] = each
                    file.write(json.dumps(each) + "\n")
                file.flush()
                if progress:
                    progress(before + sum(order.key in done for order in unique), len(orders))
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
    return [done[order.key] for order in orders]


def _read(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # the last line of a run that was killed may be cut
                yield json.loads(line)


class _Doer:
    """A worker with a model."""

    def __init__(
        self, task: Task, folder: Path, model: str, device: str | None, fast: bool | str | None, number: int
    ) -> None:
        import torch

        from unireel.hub import load

        if device is None and torch.cuda.is_available():
            device = f"cuda:{number % torch.cuda.device_count()}"
        self.do = {"generate": self._generate, "caption": self._caption, "ask": self._ask}[task]
        self.folder = folder
        self.model: Any = load(model, device=device, fast=fast)

    def __call__(self, orders: list[Order]) -> list[dict[str, Any]]:
        """Results, each with its row; if something is wrong with one, the others are done one by one."""
        try:
            made = self.do(orders)
        except UserError as error:
            if len(orders) > 1:
                return [result for order in orders for result in self([order])]
            made = [{"error": str(error)}]
        return [{"key": o.key, **dict(o.fields), **each} for o, each in zip(orders, made, strict=True)]

    def _generate(self, orders: list[Order]) -> list[dict[str, Any]]:
        results = {}
        for frames in dict.fromkeys(order["frames"] for order in orders):
            group = [order for order in orders if order["frames"] == frames]
            prompts, seeds = [order["prompt"] for order in group], [order["seed"] for order in group]
            clips = self.model.generate_many(prompts, seeds=seeds, frames=frames or None)
            for order, clip in zip(group, clips, strict=True):
                path = self.folder / f"{order.key}.mp4"
                clip.save(path)
                results[order.key] = {"film": path.name}
        return [results[order.key] for order in orders]

    def _caption(self, orders: list[Order]) -> list[dict[str, Any]]:
        answers = self.model.caption_many([_film(order) for order in orders])
        return [{"caption": each.text, "confidence": each.confidence} for each in answers]

    def _ask(self, orders: list[Order]) -> list[dict[str, Any]]:
        answers = self.model.ask_many([(_film(order), order["question"]) for order in orders])
        results = []
        for order, each in zip(orders, answers, strict=True):
            result: dict[str, Any] = {"said": each.text, "confidence": each.confidence}
            if order["answer"]:
                result["right"] = each.text.strip().lower() == order["answer"].strip().lower()
            results.append(result)
        return results


def _film(order: Order) -> Any:
    from unireel.clip import Clip

    return Clip.load(order["film"])
