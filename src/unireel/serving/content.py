"""The files of a finished film."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from unireel.clip import Clip


class Variant(NamedTuple):
    """One file of a film: its name in the folder and its type."""

    name: str
    media_type: str


VARIANTS = {
    "video": Variant("film.mp4", "video/mp4"),
    "thumbnail": Variant("thumbnail.webp", "image/webp"),
    "spritesheet": Variant("spritesheet.jpg", "image/jpeg"),
}
"""What ``GET /v1/videos/{id}/content?variant=`` accepts; OpenAI's names and types."""


def write_content(folder: Path, clip: Clip, scale: int) -> None:
    """Write all :data:`VARIANTS` of a film, enlarged ``scale`` times."""
    clip.save(folder / VARIANTS["video"].name, scale=scale)
    middle = _enlarged(clip.image(len(clip) // 2), scale)
    middle.save(folder / VARIANTS["thumbnail"].name, lossless=True)
    spritesheet(clip).save(folder / VARIANTS["spritesheet"].name, quality=92, subsampling=0)


def spritesheet(clip: Clip) -> Image.Image:
    """All frames in reading order, in about as many rows as columns, at the film's own size."""
    columns = math.ceil(math.sqrt(len(clip)))
    rows = math.ceil(len(clip) / columns)
    sheet = Image.new("RGB", (columns * clip.width, rows * clip.height))
    for index in range(len(clip)):
        row, column = divmod(index, columns)
        sheet.paste(clip.image(index), (column * clip.width, row * clip.height))
    return sheet


def picture_bytes(clip: Clip, scale: int, kind: str) -> bytes:
    """The first frame as a file of ``kind`` "png", "jpeg" or "webp", enlarged ``scale`` times."""
    buffer = io.BytesIO()
    _enlarged(clip.image(), scale).save(buffer, format=kind, **({} if kind == "png" else {"quality": 92}))
    return buffer.getvalue()


def _enlarged(picture: Image.Image, scale: int) -> Image.Image:
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
