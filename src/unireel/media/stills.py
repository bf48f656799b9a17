"""Pictures and folders of pictures as films."""

import json
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from unireel.errors import UserError
from unireel.media.encode import FOLDER_INDEX
from unireel.media.limits import Limits
from unireel.media.upright import on_white

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""Kinds of pictures that may lie in a folder or stand alone."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")


def is_still(path: Path) -> bool:
    """Whether the file is a picture by its contents (not by its name), and does not move."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return getattr(image, "n_frames", 1) == 1
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError):
        return False


def read_still(path: Path, limits: Limits) -> np.ndarray:
    """One picture, uint8 RGB ``(H, W, 3)``, turned as its EXIF orientation says, transparent parts on white.

    Raises:
        UserError: it is missing, damaged or above a limit.
    """
    try:
        limits.check_file(str(path), path.stat().st_size)
        with Image.open(path, formats=_FORMATS) as image:
            limits.check_picture(str(path), image.height, image.width)
            upright = ImageOps.exif_transpose(image)
            if "A" in upright.getbands() or "transparency" in upright.info:
                return on_white(np.asarray(upright.convert("RGBA")))
            return np.array(upright.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path}: cannot be read as a picture ({error})") from error


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key that counts: frame2 comes before frame10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def list_folder(path: Path, limits: Limits) -> tuple[list[Path], float | None]:
    """The pictures of a folder in order of their names, and the frame rate that its ``clip.json`` gives, if
    any.

    Raises:
        UserError: there are no pictures, they are too many or too large, or ``clip.json`` is not as we write
            it.
    """
    pictures = sorted(
        (entry for entry in path.iterdir() if entry.suffix.lower() in PICTURE_SUFFIXES and entry.is_file()),
        key=lambda entry: _natural(entry.name),
    )
    if not pictures:
        raise UserError(f"{path}: the folder holds no pictures ({', '.join(PICTURE_SUFFIXES)})")
    limits.check_file(str(path), sum(picture.stat().st_size for picture in pictures))
    index = path / FOLDER_INDEX
    if not index.is_file():
        return pictures, None
    try:
        entry = json.loads(index.read_text(encoding="utf-8"))
        rate = float(entry["fps"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{index}: not an index of a clip; it needs a number under 'fps'") from error
    if not (rate > 0 and np.isfinite(rate)):
        raise UserError(f"{index}: fps is {rate}; it must be above 0")
    return pictures, rate
