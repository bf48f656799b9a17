"""What a run says while it goes on: lines, metrics.jsonl, TensorBoard, sample pictures."""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unireel.errors import UserError


def duration(seconds: float) -> str:
    """``75`` as ``1m15s``; hours, minutes or seconds as fits."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


class Report:
    """Writes progress of one run; only the first process of a run has one that is not ``silent``."""

    def __init__(self, output: Path, steps: int, start: int, tensorboard: bool, silent: bool) -> None:
        self.output, self.steps, self.silent = output, steps, silent
        self._bar = self._board = None
        if silent:
            return
        self._metrics = (output / "metrics.jsonl").open("a", encoding="utf-8")
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True)
        if tensorboard:
            self._board = _board(output / "tensorboard")

    def tick(self) -> None:
        """One more update is done."""
        if self._bar is not None:
            self._bar.update()

    def say(self, text: str) -> None:
        """Print a line."""
        if self.silent:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def metrics(self, step: int, values: Mapping[str, float], kind: str = "train") -> None:
        """Append values to ``metrics.jsonl`` and TensorBoard."""
        if self.silent:
            return
        record: dict[str, Any] = {"step": step, "kind": kind, "time": round(time.time(), 3)}
        # JSON has no word for what is not finite.
        record.update({k: float(f"{v:.7g}") if math.isfinite(v) else None for k, v in values.items()})
        self._metrics.write(json.dumps(record) + "\n")
        self._metrics.flush()
        if self._board is not None:
            for key, value in values.items():
                self._board.add_scalar(f"{kind}/{key}", value, step)

    def pictures(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Write pictures ``(H, W, 3)`` uint8 to ``samples/step-N/`` and TensorBoard."""
        if self.silent or not pictures:
            return
        from PIL import Image

        folder = self.output / "samples" / f"step-{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            Image.fromarray(picture).save(folder / f"{name}.png")
            if self._board is not None:
                self._board.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close every file."""
        if self.silent:
            return
        self._metrics.close()
        if self._bar is not None:
            self._bar.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            "TensorBoard is not installed: install tensorboard, or set tensorboard=false"
        ) from error
    return SummaryWriter(str(folder))
