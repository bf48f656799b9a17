"""A small encoder of real films, which counts what it is asked for; other processes import it."""

import os
import time
from pathlib import Path

import torch
from torch import Tensor

from unireel.clip import Clip
from unireel.data.features import Item


class Thumbnails:
    """Small pictures of a film's first frames, and the letters of its text."""

    def __init__(self, log: Path, pause: float, number: int) -> None:
        self.log, self.pause = log, pause

    def __call__(self, item: Item) -> dict[str, Tensor]:
        with self.log.open("a") as log:
            log.write(f"{os.getpid()} {item.path.name} {item.text}\n")
        time.sleep(self.pause)
        clip = Clip.load(item.path, size=(4, 4), num_frames=3)
        return {
            "frames": torch.from_numpy(clip.frames.copy()),
            "letters": torch.tensor(list(item.text.encode())),
        }
