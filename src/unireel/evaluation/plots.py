"""Plots as SVG within a page, in the page's own colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, ROW = 720, 24
LEFT, RIGHT = 250, 60
"""Room for names and for the last number, in pixels."""

BINS = 24


@dataclass(frozen=True)
class Dot:
    """A named value; ``low`` and ``high`` are its interval's ends where it is known. ``ours`` is set off."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    ours: bool = False


def dots(found: Sequence[Dot], title: str) -> str:
    """One row for each value, the largest first, on a common scale."""
    ends = [end for each in found for end in (each.low, each.value, each.high) if end is not None]
    first, last = min(ends), max(ends)
    room = (last - first) * 0.05 or abs(last) * 0.05 or 1.0
    first, last = first - room, last + room

    def place(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - first) / (last - first)

    rows = []
    for number, each in enumerate(sorted(found, key=lambda dot: -dot.value)):
        y = ROW * number + ROW / 2
        mark = " class=ours" if each.ours else ""
        band = ""
        if each.low is not None and each.high is not None:
            width = max(2.0, place(each.high) - place(each.low))
            band = f'<rect x="{place(each.low):.1f}" y="{y - 6:.1f}" width="{width:.1f}" height="12" rx="2"/>'
        rows.append(
            f'<g{mark}><text x="{LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(each.name)}</text>'
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>{band}'
            f'<circle cx="{place(each.value):.1f}" cy="{y}" r="4.5"/>'
            f'<text x="{WIDTH - RIGHT + 10}" y="{y + 4:.1f}">{each.value:.2f}</text></g>'
        )
    return _svg("".join(rows), ROW * len(found), title)


def histogram(values: Sequence[float], title: str) -> str:
    """How often which values occur; ``values`` are at least one."""
    counts, edges = np.histogram(np.asarray(values, dtype=np.float64), bins=min(BINS, 2 + len(values)))
    height, wide = 110, (WIDTH - 20) / len(counts)
    tallest = counts.max()
    bars = "".join(
        f'<rect x="{10 + wide * number:.1f}" y="{height - 90 * count / tallest:.1f}" width="{wide - 1:.1f}" '
        f'height="{90 * count / tallest:.1f}">'
        f"<title>{edges[number]:.3g} to {edges[number + 1]:.3g}: {count}</title></rect>"
        for number, count in enumerate(counts)
        if count
    )
    scale = (
        f'<line x1="10" x2="{WIDTH - 10}" y1="{height}" y2="{height}"/>'
        f'<text x="10" y="{height + 18}">{edges[0]:.3g}</text>'
        f'<text x="{WIDTH - 10}" y="{height + 18}" text-anchor="end">{edges[-1]:.3g}</text>'
    )
    return _svg(f"<g class=bars>{bars}</g>{scale}", height + 24, title)


def _svg(content: str, height: int, title: str) -> str:
    caption = escape(title)
    return (
        f'<div class=plot><h3>{caption}</h3><svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{caption}">{content}</svg></div>\n'
    )
