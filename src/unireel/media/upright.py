"""From a decoded frame to the picture a viewer should see: RGB, upright, square pixels, opaque."""

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import Interpolation

# swscale's defaults drop half of the chroma samples and round carelessly, which costs small films several dB.
CONVERSION = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)

SMALL = 256 * 256
"""Pixels of a picture below which one thread codes faster than several."""

Matrix = tuple[int, int, int, int]
"""(a, b, c, d) with shown x = a x + c y and shown y = b x + d y, each of them -1, 0 or 1."""

IDENTITY: Matrix = (1, 0, 0, 1)
_TAGGED = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
_TRUE_SIZE = re.compile(r"unireel picture (\d+)x(\d+)")


def size_tag(height: int, width: int) -> str:
    """The comment that tells :func:`true_size` the size of a film that had to be padded to even sides."""
    return f"unireel picture {width}x{height}"


def true_size(comment: str, height: int, width: int) -> tuple[int, int]:
    """(height, width) of the picture in a stored one: smaller by at most one line if our comment says so."""
    match = _TRUE_SIZE.fullmatch(comment)
    if match is None:
        return height, width
    true_width, true_height = int(match[1]), int(match[2])
    padded = (true_height + true_height % 2, true_width + true_width % 2)
    return (true_height, true_width) if padded == (height, width) else (height, width)


def display_matrix(frame: av.VideoFrame, rotate_tag: str = "") -> tuple[Matrix, bool]:
    """How the frame is to be turned and mirrored, from its display matrix or else from a ``rotate`` tag
    (clockwise).

    Returns:
        The nearest of the eight turns and mirrorings, and whether it is exact (a matrix may hold any angle).
    """
    matrices = cast(Iterable[SideData], frame.side_data)
    side = next((data for data in matrices if data.type == SideDataType.DISPLAYMATRIX), None)
    if side is None:
        turn = int(rotate_tag) % 360 if rotate_tag.lstrip("-").isdigit() else 0
        return _TAGGED.get(turn, IDENTITY), turn in (0, *_TAGGED)
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(side), dtype=np.int32)[:5])
    largest = max(abs(a), abs(b), abs(c), abs(d))
    if largest == 0:
        return IDENTITY, False
    upright = abs(a) + abs(d) >= abs(b) + abs(c)
    exact = all(min(abs(v), abs(abs(v) - largest)) <= largest // 1000 for v in (a, b, c, d))
    if upright:
        return (_sign(a), 0, 0, _sign(d)), exact
    return (0, _sign(b), _sign(c), 0), exact


def _sign(value: int) -> int:
    return -1 if value < 0 else 1


def apply_matrix(picture: np.ndarray, matrix: Matrix) -> np.ndarray:
    """Turn and mirror ``(H, W, 3)``; a quarter turn exchanges height and width."""
    a, b, c, d = matrix
    flip_x, flip_y = (a, d) if a else (c, b)
    shown = picture if a else picture.transpose(1, 0, 2)
    return np.ascontiguousarray(shown[:: 1 if flip_y > 0 else -1, :: 1 if flip_x > 0 else -1])


def square_size(height: int, width: int, aspect: Fraction | None) -> tuple[int, int]:
    """(height, width) with square pixels: the shorter direction of a pixel is stretched, so no detail is
    lost.

    Args:
        aspect: width of a pixel over its height (sample aspect ratio); ``None`` or 0 when the file does not
            say.
    """
    if not aspect or aspect <= 0:
        return height, width
    if aspect >= 1:
        return height, round(width * aspect)
    return round(height / aspect), width


def shown_size(height: int, width: int, aspect: Fraction | None, matrix: Matrix) -> tuple[int, int]:
    """(height, width) of the picture a viewer sees."""
    height, width = square_size(height, width, aspect)
    return (height, width) if matrix[0] else (width, height)


def to_picture(
    frame: av.VideoFrame, true: tuple[int, int], aspect: Fraction | None, matrix: Matrix
) -> np.ndarray:
    """The frame as a viewer should see it, uint8 RGB ``(H, W, 3)``.

    The file's colour matrix and range are honoured; a file that names none is taken as BT.601, limited range,
    as other decoders do. Transparent parts are laid on white. High dynamic range is not tone-mapped and
    interlaced fields are not separated.
    """
    height, width = square_size(frame.height, frame.width, aspect)
    alpha = any(component.is_alpha for component in frame.format.components) or frame.format.name == "pal8"
    converted = frame.reformat(
        width=width, height=height, format="rgba" if alpha else "rgb24", interpolation=CONVERSION
    ).to_ndarray()
    if true != (frame.height, frame.width):
        converted = converted[: true[0], : true[1]]
    return apply_matrix(on_white(converted) if alpha else converted, matrix)


def on_white(rgba: np.ndarray) -> np.ndarray:
    """Lay uint8 RGBA ``(H, W, 4)`` on white: uint8 ``(H, W, 3)``."""
    colour, opacity = rgba[:, :, :3].astype(np.uint16), rgba[:, :, 3:].astype(np.uint16)
    return ((colour * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
