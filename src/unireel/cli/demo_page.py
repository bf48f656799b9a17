"""The page of ``unireel demo``: one HTML file that carries its films and needs no network."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

STYLE = Path(__file__).with_name("demo.css")
MARKS = {True: ("holds", "✓"), False: ("fails", "✗"), None: ("unsure", "?")}
"""Class and sign of a verdict: right, wrong, or not decidable from the pixels."""


@dataclass(frozen=True)
class Verdict:
    """What the checker says about a statement: its words, whether the pixels agree (None: cannot tell)."""

    statement: str
    holds: bool | None


@dataclass(frozen=True)
class Exchange:
    """A question, the model's answer with its confidence (0 to 1), and what the checker reads."""

    question: str
    answer: str
    confidence: float
    note: str | None
    verdict: Verdict


@dataclass(frozen=True)
class Chapter:
    """One film with everything that was said about it.

    ``film`` is the content of an mp4 file and ``first`` that of a PNG, the frame that the film had to start
    from, if any; ``source`` is the name of the film's file beside the page.
    """

    prompt: str
    seed: int
    film: bytes
    first: bytes | None
    source: str
    seconds: float
    requested: tuple[Verdict, ...]
    exchanges: tuple[Exchange, ...]
    caption: str
    caption_confidence: float
    caption_note: str | None
    captioned: tuple[Verdict, ...]


def page(chapters: list[Chapter], model: str, details: dict[str, str]) -> str:
    """The whole page.

    Args:
        chapters: the films, in order.
        model: the name of the model that made them.
        details: how the page was made, name and value, shown at its end.
    """
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in details.items())
    body = "\n".join(_chapter(number, each) for number, each in enumerate(chapters, 1))
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Unireel: {escape(model)}</title>
<style>{STYLE.read_text(encoding="utf-8")}</style>
<header>
<h1>Unireel</h1>
<p>One model, <code>{escape(model)}</code>, made these films from the words above them, then watched them,
answered questions, and described what it saw. The signs are the verdict of a checker that reads nothing but
the pixels: {_sign(True)} it is so, {_sign(False)} it is not, {_sign(None)} they do not tell.
Prompts and seeds were fixed before the model was, and mistakes are shown as they came.</p>
{_score(chapters)}
</header>
<main>
{body}
</main>
<footer><dl>{facts}</dl></footer>
<script>{SCRIPT}</script>
</html>
"""


def tally(verdicts: Sequence[Verdict]) -> tuple[str, str]:
    """How many hold of those that could be judged, and a remark about the others, if there are any."""
    judged = [each.holds for each in verdicts if each.holds is not None]
    others = len(verdicts) - len(judged)
    return f"{sum(judged)} of {len(judged)}", f" ({others} more cannot be judged)" if others else ""


def _score(chapters: list[Chapter]) -> str:
    groups = {
        "requested facts shown": [v for each in chapters for v in each.requested],
        "answers right": [e.verdict for each in chapters for e in each.exchanges],
        "facts in captions right": [v for each in chapters for v in each.captioned],
    }
    cells = []
    for name, verdicts in groups.items():
        right, others = tally(verdicts)
        cells.append(f"<li><b>{right}</b> {name}{others}</li>")
    return f'<ul class="score">{"".join(cells)}</ul>'


def _sign(holds: bool | None) -> str:
    name, sign = MARKS[holds]
    return f'<span class="{name}" role="img" aria-label="{name}">{sign}</span>'


def _confidence(value: float, note: str | None) -> str:
    text = f'<span class="confidence">{value:.0%} sure</span>'
    return text + (f' <span class="note">{escape(note)}</span>' if note else "")


def _verdicts(verdicts: tuple[Verdict, ...]) -> str:
    items = "".join(f"<li>{_sign(each.holds)} {escape(each.statement)}</li>" for each in verdicts)
    return f'<ul class="verdicts">{items}</ul>' if items else ""


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _chapter(number: int, chapter: Chapter) -> str:
    prompt = escape(chapter.prompt)
    first = ""
    if chapter.first is not None:
        picture = f'<img src="{_data("image/png", chapter.first)}" alt="the first frame that was given">'
        first = f"<figure class=first>{picture}<figcaption>and from this first frame</figcaption></figure>"
    rows = "".join(
        f"<tr><th scope=row>{escape(each.question)}</th>"
        f"<td>{_sign(each.verdict.holds)} <b>{escape(each.answer)}</b>"
        f" {_confidence(each.confidence, each.note)}</td>"
        f"<td class=read>{escape(each.verdict.statement)}</td></tr>"
        for each in chapter.exchanges
    )
    return f"""<article>
<div class="picture">
<video src="{_data("video/mp4", chapter.film)}" autoplay loop muted playsinline controls
 aria-label="{prompt}"></video>
<p class="small"><a href="{escape(chapter.source)}">{escape(chapter.source)}</a>, seed {chapter.seed},
made in {chapter.seconds:.1f} s</p>
{first}
</div>
<div class="words">
<h2><span class="number">{number}</span> {prompt}</h2>
{_verdicts(chapter.requested)}
<h3>Questions</h3>
<table>
<thead><tr><th>asked</th><td>the model</td><td>the checker</td></tr></thead>
<tbody>{rows}</tbody>
</table>
<h3>Caption by the model</h3>
<blockquote>{escape(chapter.caption)}
{_confidence(chapter.caption_confidence, chapter.caption_note)}</blockquote>
{_verdicts(chapter.captioned)}
</div>
</article>"""


SCRIPT = """
if (matchMedia('(prefers-reduced-motion: reduce)').matches)
  document.querySelectorAll('video').forEach(film => { film.autoplay = false; film.pause(); });
"""
