"""The page of a comparison: one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from unireel.evaluation.runs import Comparison, Row, Run
from unireel.version import VERSION

STYLE = Path(__file__).parent / "worldbench" / "report.css"
SHOWN = 40
"""Items that the page shows of those on which the runs disagree."""

SIGNIFICANT = 0.05


def page(first: Run, second: Run, comparison: Comparison, command: str) -> str:
    """The whole page."""
    one, two = escape(first.name), escape(second.name)
    rows = "".join(_row(row) for row in comparison.rows)
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{one} and {two}</title>
<style>{STYLE.read_text(encoding="utf-8")}</style>
<header>
<h1>{one} and {two}</h1>
<p>{comparison.shared} items are in both runs; {comparison.only_first} only in the first and {comparison.only_second}
only in the second are left out. Bands are 95 % intervals of the difference, second minus first; p values are corrected
for {len(comparison.rows)} comparisons (Holm).</p>
<p>Made by <code>{escape(command)}</code></p>
</header>
<main>
<h2>Differences</h2>
<table><thead><tr><th>score</th><th>{one}</th><th>{two}</th><th class=graph>−1 to 1</th><th class=range>difference</th>
<th>better, worse</th><th>p</th></tr></thead><tbody>{rows}</tbody></table>
<h2>Where they disagree</h2>
<div class=gallery>{"".join(_disagreements(first, second))}</div>
</main>
<footer><dl><dt>program</dt><dd>unireel {VERSION}</dd></dl></footer>
</html>
"""


def _row(row: Row) -> str:
    found, ends = row.paired, row.paired.difference
    bar = ""
    if ends.low >= -1 and ends.high <= 1:
        band = f"left:{50 * (1 + ends.low):.2f}%;width:{50 * (ends.high - ends.low):.2f}%"
        bar = f'<div class=bar><i style="{band}"></i><b style="left:{50 * (1 + ends.value):.2f}%"></b></div>'
    head = " class=head" if row.adjusted < SIGNIFICANT else ""
    return (
        f"<tr{head}><th scope=row>{escape(row.name)}</th><td class=value>{found.first:.3f}</td>"
        f"<td class=value>{found.second:.3f}</td><td class=graph>{bar}</td>"
        f"<td class=range>{ends.value:+.3f} ({ends.low:+.3f} to {ends.high:+.3f})</td>"
        f"<td class=n>{found.wins}, {found.losses}</td><td class=n>{row.adjusted:.3g}</td></tr>\n"
    )


def _disagreements(first: Run, second: Run) -> Iterator[str]:
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
        lines = [
            f"<li class={'holds' if good else 'fails'}>{escape(f'{run.name}: {_said(each)}')}</li>"
            for run, each, good in ((first, one, right[0]), (second, two, right[1]))
        ]
        if one.get("answer") is not None:
            lines.append(f"<li class=seen>{escape('right would be: ' + str(one['answer']))}</li>")
        kind = "right" if right[1] else "wrong"
        yield f"<figure class={kind}><p>{escape(asked)}</p><ul>{''.join(lines)}</ul></figure>\n"


def _right(item: dict[str, Any]) -> bool | None:
    """Whether the item counts as solved: the first of its truth values that is a score."""
    return next((value for value in item.values() if isinstance(value, bool)), None)


def _said(item: dict[str, Any]) -> str:
    return str(item.get("said") or item.get("seen") or item.get("caption") or "no answer")
