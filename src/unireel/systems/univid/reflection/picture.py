"""The evidence on one sheet: question, answer, and the frames of every round with their times and scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unireel.media.pictures import FAINT, GAP, INK, MARGIN, PAPER, wrap
from unireel.media.resize import resize_frame
from unireel.systems.univid.reflection.pool import Pool
from unireel.systems.univid.reflection.roles import one_line, seconds

COLUMNS = 8
TILE = 120
"""Longest side of a frame on the sheet, pixels; small frames are enlarged by whole factors."""

_GOOD = (40, 120, 70)


def evidence_sheet(pool: Pool, trace: dict[str, Any]) -> Image.Image:
    """The sheet of a finished question.

    Args:
        pool: of the film that was asked about.
        trace: of :class:`~unireel.systems.univid.reflection.loop.Reflected`.
    """
    result = trace["result"]
    width = COLUMNS * (TILE + GAP) - GAP
    rows = [
        _text(trace["question"], width, 20, INK),
        _text(
            f"{result['text']} ({result['confidence']:.0%})", width, 16, _GOOD if result["reliable"] else INK
        ),
    ]
    if result["note"]:
        rows.append(_text(result["note"], width, 12, FAINT))
    for number, entry in enumerate(trace["rounds"], 1):
        if "evaluator" not in entry:
            continue
        select, verdict = entry["select"], entry["evaluator"]
        heading = (
            f"round {number}, {len(select['pool'])} frames, “{one_line(select['query'])}”: "
            f"{one_line(entry['actor']['text']) or '(nothing)'}, score {verdict['score']:.2f}"
        )
        rows.append(_text(heading, width, 13, INK))
        scores = select["scores"] or [None] * len(select["pool"])
        tiles = [
            _tile(pool.frames[place], time, score)
            for place, time, score in zip(select["pool"], select["times"], scores, strict=True)
        ]
        rows += [_row(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    sheet = Image.new("RGB", (width + 2 * MARGIN, sum(row.height + GAP for row in rows) + 2 * MARGIN), PAPER)
    top = MARGIN
    for row in rows:
        sheet.paste(row, (MARGIN, top))
        top += row.height + GAP
    return sheet


def _tile(frame: np.ndarray, time: float, score: float | None) -> Image.Image:
    height, width = frame.shape[:2]
    longest = max(height, width)
    if longest <= TILE:
        picture = Image.fromarray(frame.repeat(TILE // longest, 0).repeat(TILE // longest, 1))
    else:
        size = max(1, round(height * TILE / longest)), max(1, round(width * TILE / longest))
        picture = Image.fromarray(resize_frame(frame, *size))
    label = _text(seconds(time) + ("" if score is None else f"  {score:.2f}"), TILE, 11, FAINT)
    tile = Image.new("RGB", (TILE, picture.height + label.height), PAPER)
    tile.paste(picture, (0, 0))
    tile.paste(label, (0, picture.height))
    return tile


def _row(tiles: list[Image.Image]) -> Image.Image:
    row = Image.new("RGB", (len(tiles) * (TILE + GAP), max(each.height for each in tiles)), PAPER)
    for number, tile in enumerate(tiles):
        row.paste(tile, (number * (TILE + GAP), 0))
    return row


def _text(text: str, width: int, size: int, colour: tuple[int, int, int]) -> Image.Image:
    lines = wrap(text, width, size)
    step = round(1.35 * size)
    block = Image.new("RGB", (width, step * max(1, len(lines))), PAPER)
    draw = ImageDraw.Draw(block)
    for number, line in enumerate(lines):
        draw.text((0, number * step), line, fill=colour, font=ImageFont.load_default(size))
    return block
