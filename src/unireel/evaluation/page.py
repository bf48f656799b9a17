"""Pages that carry everything they show and need no network: the frame of every report, score tables, and cases."""

from __future__ import annotations

import base64
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

from unireel.evaluation.intervals import Score
from unireel.version import VERSION

STYLE = Path(__file__).with_name("report.css")

Figures = Mapping[str, Score | float]
"""Scores by name; a plain number is one whose spread is not known."""


@dataclass(frozen=True)
class Picture:
    """A picture or a playing film: its bytes, what it is, what it shows in words, and how it looks.

    ``look`` is "film" (few pixels, shown as squares), "first" (the same, smaller) or "photo" (as large as fits).
    """

    content: bytes
    kind: str = "image/webp"
    shows: str = ""
    look: Literal["film", "first", "photo"] = "film"


@dataclass(frozen=True)
class Frame:
    """A frame of a strip, what stands under it, and whether it is marked."""

    picture: Picture
    label: str
    marked: bool = False


@dataclass(frozen=True)
class Strip:
    """Frames that were looked at together, in order; ``line`` says what came of it, ``right`` whether it was good."""

    heading: str
    frames: tuple[Frame, ...]
    right: bool
    line: str


@dataclass(frozen=True)
class Case:
    """One judged item: ``right`` (None where that is no question), what was asked, pictures, and lines about it.

    A line is (whether it holds, or None; words). A case with ``strips`` takes the whole width of a page.
    """

    right: bool | None
    heading: str
    pictures: tuple[Picture, ...] = ()
    lines: tuple[tuple[bool | None, str], ...] = ()
    strips: tuple[Strip, ...] = ()


def document(
    title: str, introduction: Iterable[str], body: str, facts: Mapping[str, str], heading: str | None = None
) -> str:
    """A whole page.

    Args:
        title: of the window; also the heading, unless there is a shorter one.
        introduction: paragraphs, as HTML.
        body: HTML.
        facts: what stands at the foot.
    """
    paragraphs = "\n".join(f"<p>{each}</p>" for each in introduction)
    foot = {"program": f"unireel {VERSION}", **facts}
    details = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in foot.items())
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{STYLE.read_text(encoding="utf-8")}</style>
<header>
<h1>{escape(heading or title)}</h1>
{paragraphs}
</header>
<main>
{body}
</main>
<footer><dl>{details}</dl></footer>
</html>
"""


def made_by(command: str) -> str:
    """A paragraph with the command that gives a page's figures; lines break between its words only."""
    words = " ".join(f"<span>{escape(word)}</span>" for word in command.split(" "))
    return f"Made by <code>{words}</code>"


def score_table(scores: Figures, heads: Container[str] = (), factor: float = 1.0, digits: int = 3) -> str:
    """Scores with their intervals, drawn where they lie between 0 and 1.

    Args:
        heads: names that are set off.
        factor: 100 shows percent.
    """
    rows = "".join(_row(name, score, name in heads, factor, digits) for name, score in scores.items())
    return (
        f"<table><thead><tr><th>score</th><th class=value>value</th><th class=graph>0 to {factor:g}</th>"
        f"<th class=range>95 % interval</th><th class=n>n</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _row(name: str, score: Score | float, head: bool, factor: float, digits: int) -> str:
    known = isinstance(score, Score)
    value, low, high = (score.value, score.low, score.high) if known else (score, score, score)
    graph = bar(low, value, high) if low >= 0 and high <= 1 else ""
    ends = f"{factor * low:.{digits}f} to {factor * high:.{digits}f}" if known else ""
    return (
        f"<tr{' class=head' if head else ''}><th scope=row>{escape(name)}</th>"
        f"<td class=value>{factor * value:.{digits}f}</td><td class=graph>{graph}</td>"
        f"<td class=range>{ends}</td><td class=n>{score.n if known else ''}</td></tr>\n"
    )


def bar(low: float, value: float, high: float) -> str:
    """A band from ``low`` to ``high`` with a mark at ``value``, all in [0, 1]."""
    band = f"left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"
    return f'<div class=bar><i style="{band}"></i><b style="left:{100 * value:.2f}%"></b></div>'


def gallery(cases: Sequence[Case]) -> str:
    """Cases side by side."""
    return f"<div class=gallery>{''.join(map(figure, cases))}</div>"


def figure(case: Case) -> str:
    """One case."""
    kind = {True: "right", False: "wrong", None: "plain"}[case.right]
    wide = " traced" if case.strips else ""
    shown = "".join(map(_picture, case.pictures))
    pictures = f"<div class=films>{shown}</div>" if shown else ""
    names = {True: "holds", False: "fails", None: "seen"}
    lines = "".join(f"<li class={names[right]}>{escape(text)}</li>" for right, text in case.lines)
    strips = "".join(map(_strip, case.strips))
    return f'<figure class="{kind}{wide}">{pictures}<p>{escape(case.heading)}</p><ul>{lines}</ul>{strips}</figure>\n'


def _strip(strip: Strip) -> str:
    """A strip: its frames side by side, each with its label, in as many lines as they take."""
    frames = "".join(
        f"<li{' class=marked' if each.marked else ''}>{_picture(each.picture)}<small>{escape(each.label)}</small></li>"
        for each in strip.frames
    )
    verdict = f"<span class={'holds' if strip.right else 'fails'}>{escape(strip.line)}</span>"
    return f"<h4>{escape(strip.heading)}</h4><ol class=strip>{frames}</ol>{verdict}"


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.content).decode("ascii")
    shows = escape(picture.shows)
    return f'<img class={picture.look} src="data:{picture.kind};base64,{data}" alt="{shows}" loading="lazy">'
