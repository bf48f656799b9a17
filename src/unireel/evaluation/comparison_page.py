"""The page of a comparison: one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from html import escape
from typing import Any

from unireel.evaluation.page import Case, Picture, bar, document, gallery, made_by
from unireel.evaluation.reports import preview
from unireel.evaluation.runs import Comparison, Row, Run
from unireel.evaluation.worldbench.ledger import FILMS

SAMPLES = "samples"
"""The folder of films that a model edited, by the items' ids."""

SHOWN = 40
"""Items that the page shows of those on which the runs disagree."""

SIGNIFICANT = 0.05


def page(first: Run, second: Run, comparison: Comparison, command: str) -> str:
    """The whole page."""
    one, two = escape(first.name), escape(second.name)
    rows = "".join(_row(row) for row in comparison.rows)
    introduction = (
        f"{comparison.shared} items are in both runs; {comparison.only_first} only in the first and "
        f"{comparison.only_second} only in the second are left out. Bands are 95&nbsp;% intervals of the difference, "
        f"second minus first; p values are corrected for {len(comparison.rows)} comparisons (Holm).",
        made_by(command),
    )
    table = (
        f"<div class=wide><table><thead><tr><th>score</th><th>{one}</th><th>{two}</th><th class=graph>−1 to 1</th>"
        f"<th class=range>difference</th><th>better, worse</th><th>p</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )
    cases = list(_disagreements(first, second))
    shown = gallery(cases) if cases else "<p>Nowhere.</p>"
    body = f"<h2>Differences</h2>\n{table}\n<h2>Where they disagree</h2>\n{shown}"
    return document(f"{first.name} and {second.name}", introduction, body, {})


def _row(row: Row) -> str:
    found, ends = row.paired, row.paired.difference
    inside = ends.low >= -1 and ends.high <= 1
    graph = bar((1 + ends.low) / 2, (1 + ends.value) / 2, (1 + ends.high) / 2) if inside else ""
    head = " class=head" if row.adjusted < SIGNIFICANT else ""
    return (
        f"<tr{head}><th scope=row>{escape(row.name)}</th><td class=value>{found.first:.3f}</td>"
        f"<td class=value>{found.second:.3f}</td><td class=graph>{graph}</td>"
        f"<td class=range>{ends.value:+.3f} ({ends.low:+.3f} to {ends.high:+.3f})</td>"
        f"<td class=n>{found.wins}, {found.losses}</td><td class=n>{row.adjusted:.3g}</td></tr>\n"
    )


def _disagreements(first: Run, second: Run) -> Iterator[Case]:
    """Items that one run got right and the other wrong, as many of either kind as there is room for."""
    left = {True: SHOWN // 2, False: SHOWN // 2}
    for key, one in first.items.items():
        two = second.items.get(key)
        if two is None:
            continue
        right = [_right(each) for each in (one, two)]
        if None in right or right[0] == right[1] or not left[bool(right[1])]:
            continue
        left[bool(right[1])] -= 1
        asked = str(one.get("question") or one.get("prompt") or "/".join(key))
        lines: list[tuple[bool | None, str]] = [
            (good, f"{run.name}: {_said(each)}")
            for run, each, good in ((first, one, right[0]), (second, two, right[1]))
        ]
        if one.get("answer") is not None:
            lines.append((None, f"right would be: {one['answer']}"))
        yield Case(right[1], asked, _films((first, one), (second, two)), tuple(lines))


def _films(*made: tuple[Run, dict[str, Any]]) -> tuple[Picture, ...]:
    """What the runs made of an item, as far as they kept the films: in a picture, or as a film that they edited."""
    found: list[Picture] = []
    for run, item in made:
        kept = run.folder / FILMS / str(item.get("film") or "")
        if kept.is_file():
            found.append(Picture(kept.read_bytes(), shows=run.name))
        elif "id" in item and (shown := preview(run.folder / SAMPLES / str(item["id"]))) is not None:
            found.append(replace(shown, shows=run.name))
    return tuple(found)


def _right(item: dict[str, Any]) -> bool | None:
    """Whether the item counts as solved: the first of its truth values that is a score."""
    return next((value for value in item.values() if isinstance(value, bool)), None)


def _said(item: dict[str, Any]) -> str:
    return str(item.get("said") or item.get("seen") or item.get("caption") or "no answer")
