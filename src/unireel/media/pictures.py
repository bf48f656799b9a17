"""Pictures for people: film strips, contact sheets, grids and films side by side, with captions.

Small films are enlarged by whole factors with sharp pixels, large ones are reduced, so that every tile is
about :data:`TILE` pixels. Text is set in the font that Pillow carries with it, so pictures look the same
everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unireel.clip import Clip
from unireel.errors import UsageError, UserError
from unireel.media.resize import resize_frame

TILE = 128
"""Longest side of a frame on a sheet, in pixels (about: small films are enlarged by whole factors)."""

GAP = 4
MARGIN = 12
PAPER = (250, 250, 248)
INK = (28, 28, 30)
FAINT = (120, 120, 124)


@dataclass(frozen=True)
class Row:
    """One row of a :func:`grid`: a title, then clips beside each other, each with a caption below or none."""

    title: str
    clips: Sequence[Clip]
    captions: Sequence[str] = ()


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _text_width(text: str, size: int) -> float:
    return _font(size).getlength(text)


def wrap(text: str, width: int, size: int) -> list[str]:
    """Break ``text`` into lines of at most ``width`` pixels at font ``size``; too long a word is cut."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            candidate = f"{line} {word}" if line else word
            if _text_width(candidate, size) <= width:
                line = candidate
                continue
            if line:
                lines.append(line)
            while _text_width(word, size) > width and len(word) > 1:
                cut = max(n for n in range(1, len(word)) if n == 1 or _text_width(word[:n], size) <= width)
                lines.append(word[:cut])
                word = word[cut:]
            line = word
        if line:
            lines.append(line)
    return lines


def _text_block(text: str, width: int, size: int, colour: tuple[int, int, int] = INK) -> Image.Image:
    """``text`` set on paper, ``width`` pixels wide and as high as it needs (0 high for no text)."""
    lines = wrap(text, width, size)
    line_height = round(size * 1.35)
    block = Image.new("RGB", (width, len(lines) * line_height), PAPER)
    draw = ImageDraw.Draw(block)
    for index, line in enumerate(lines):
        draw.text((0, index * line_height), line, fill=colour, font=_font(size))
    return block


def _tile_size(clip: Clip, tile: int) -> tuple[int, int]:
    """(height, width) of one frame of ``clip`` on a sheet."""
    longest = max(clip.height, clip.width)
    if longest <= tile:
        factor = tile // longest
        return clip.height * factor, clip.width * factor
    return max(1, round(clip.height * tile / longest)), max(1, round(clip.width * tile / longest))


def _tile(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    if height % frame.shape[0] == 0 and width % frame.shape[1] == 0:
        return frame.repeat(height // frame.shape[0], axis=0).repeat(width // frame.shape[1], axis=1)
    return resize_frame(frame, height, width)


def _stack(blocks: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    """Blocks under each other, left-aligned, on paper."""
    shown = [block for block in blocks if block.height > 0]
    width = max(block.width for block in shown)
    canvas = Image.new("RGB", (width, sum(b.height for b in shown) + gap * (len(shown) - 1)), PAPER)
    top = 0
    for block in shown:
        canvas.paste(block, (0, top))
        top += block.height + gap
    return canvas


def _beside(blocks: Sequence[Image.Image], gap: int = GAP) -> Image.Image:
    """Blocks beside each other, top-aligned, on paper."""
    canvas = Image.new(
        "RGB", (sum(b.width for b in blocks) + gap * (len(blocks) - 1), max(b.height for b in blocks)), PAPER
    )
    left = 0
    for block in blocks:
        canvas.paste(block, (left, 0))
        left += block.width + gap
    return canvas


def _framed(block: Image.Image) -> Image.Image:
    canvas = Image.new("RGB", (block.width + 2 * MARGIN, block.height + 2 * MARGIN), PAPER)
    canvas.paste(block, (MARGIN, MARGIN))
    return canvas


def _check_captions(captions: Sequence[str], count: int) -> None:
    if len(captions) not in (0, count):
        raise UsageError(f"{len(captions)} captions for {count} clips; give one for each, or none")


def strip_indices(count: int, num_frames: int) -> list[int]:
    """Evenly spaced indices from the first to the last of ``count`` frames, at most ``num_frames``."""
    if num_frames < 1:
        raise UsageError(f"num_frames={num_frames}: at least 1")
    if num_frames >= count:
        return list(range(count))
    return [int(index) for index in np.round(np.linspace(0, count - 1, num_frames))]


def film_strip(
    clip: Clip, *, num_frames: int = 9, columns: int | None = None, times: bool = True, tile: int = TILE
) -> Image.Image:
    """Frames of a film from first to last, in one row or in rows of ``columns``, with their times in seconds
    below.

    Raises:
        UsageError: ``num_frames``, ``columns`` or ``tile`` below 1.
    """
    if tile < 1 or (columns is not None and columns < 1):
        raise UsageError(f"tile={tile}, columns={columns}: at least 1")
    height, width = _tile_size(clip, tile)
    tiles: list[Image.Image] = []
    for index in strip_indices(len(clip), num_frames):
        picture = Image.fromarray(_tile(clip.frames[index], height, width))
        label = _text_block(f"{clip.times[index]:.2f} s" if times else "", width, 11, FAINT)
        tiles.append(_stack([picture, label], gap=2))
    step = columns or len(tiles)
    return _stack([_beside(tiles[first : first + step]) for first in range(0, len(tiles), step)])


def contact_sheet(
    clips: Clip | Sequence[Clip],
    captions: str | Sequence[str] = (),
    *,
    title: str = "",
    num_frames: int = 9,
    tile: int = TILE,
) -> Image.Image:
    """A sheet that shows films at a glance: for each its caption and, below, a strip of its frames with
    times.

    Args:
        clips: one film or several, of any sizes and rates.
        captions: one text for each film (as long as needed: it is wrapped), or none.
        title: heading of the sheet.
        num_frames: frames shown of each film.
        tile: longest side of a frame on the sheet, in pixels.

    Raises:
        UserError: no clip at all.
        UsageError: the number of captions is not the number of clips, or a number below 1.
    """
    films = [clips] if isinstance(clips, Clip) else list(clips)
    texts = [captions] if isinstance(captions, str) else list(captions)
    if not films:
        raise UserError("a contact sheet needs at least one clip")
    _check_captions(texts, len(films))
    strips = [film_strip(film, num_frames=num_frames, tile=tile) for film in films]
    width = max(320, *(strip.width for strip in strips))
    blocks = [_text_block(title, width, 20)] if title else []
    for index, strip in enumerate(strips):
        caption = _text_block(texts[index] if texts else "", width, 15)
        blocks.append(_stack([caption, strip]))
    return _framed(_stack(blocks, gap=16))


def grid(rows: Sequence[Row], *, title: str = "", num_frames: int = 3, tile: int = TILE) -> Image.Image:
    """A sheet of rows with titles; each row shows its clips beside each other, with a caption below each.

    Args:
        rows: what to show, see :class:`Row`; rows may differ in the number and the size of their clips.
        title: heading of the sheet.
        num_frames: frames shown of each clip, from first to last.
        tile: longest side of a frame on the sheet, in pixels.

    Raises:
        UserError: no row, or a row without clips.
        UsageError: a row with captions for some of its clips only, or a number below 1.
    """
    if not rows or any(not row.clips for row in rows):
        raise UserError("a grid needs at least one row, and each row at least one clip")
    pictures: list[tuple[str, Image.Image]] = []
    for row in rows:
        _check_captions(row.captions, len(row.clips))
        cells = []
        for index, clip in enumerate(row.clips):
            strip = film_strip(clip, num_frames=num_frames, tile=tile)
            caption = _text_block(row.captions[index] if row.captions else "", strip.width, 12)
            cells.append(_stack([strip, caption]))
        pictures.append((row.title, _beside(cells, gap=14)))
    width = max(320, *(picture.width for _, picture in pictures))
    blocks = [_text_block(title, width, 20)] if title else []
    blocks += [_stack([_text_block(heading, width, 15), picture]) for heading, picture in pictures]
    return _framed(_stack(blocks, gap=16))


def side_by_side(clips: Sequence[Clip], captions: Sequence[str] = (), *, tile: int = 256) -> Clip:
    """One film in which several play beside each other, with a caption above each; shorter ones hold their
    last frame.

    Raises:
        UserError: no clip, or clips of different frame rates.
        UsageError: captions for some of the clips only.
    """
    if not clips:
        raise UserError("side by side needs at least one clip")
    rates = {clip.fps for clip in clips}
    if len(rates) > 1:
        raise UserError(f"films side by side need one frame rate; these have {sorted(rates)}")
    _check_captions(captions, len(clips))
    sizes = [_tile_size(clip, tile) for clip in clips]
    heads = [_text_block(text, size[1], 14) for text, size in zip(captions, sizes, strict=False)]
    head_height = max((head.height for head in heads), default=0)
    height = 2 * MARGIN + head_height + max(size[0] for size in sizes)
    width = 2 * MARGIN + sum(size[1] for size in sizes) + MARGIN * (len(clips) - 1)
    frames = np.empty((max(len(clip) for clip in clips), height, width, 3), dtype=np.uint8)
    frames[:] = PAPER
    left = MARGIN
    for index, (clip, (tile_height, tile_width)) in enumerate(zip(clips, sizes, strict=True)):
        columns = slice(left, left + tile_width)
        if heads:
            frames[:, MARGIN : MARGIN + heads[index].height, columns] = np.asarray(heads[index])
        top = MARGIN + head_height
        for number in range(len(frames)):
            frame = clip.frames[min(number, len(clip) - 1)]
            frames[number, top : top + tile_height, columns] = _tile(frame, tile_height, tile_width)
        left += tile_width + MARGIN
    return Clip(frames, rates.pop())
