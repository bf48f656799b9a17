"""Pieces of HTML: films, frames that were looked at, problems. All text in them is escaped."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from unireel.clip import Clip

SHOWN_SIDE = 512
"""Small films are enlarged by whole factors up to this; larger ones are shown as they are."""


@dataclass(frozen=True)
class Card:
    """A film in the row of results.

    Attributes:
        title: under the film.
        film: as a data address; "" while it is made.
        done: how much of it is made, in [0, 1].
        problem: why there is none.
        description: the ``Answer`` that was made together with the film, if one was.
    """

    title: str
    film: str = ""
    done: float = 0.0
    problem: str = ""
    description: Any = None


def film_address(clip: Clip) -> str:
    """The film as a ``data:`` address of an mp4, or the picture as one of a PNG: nothing is kept on the server."""
    scale = max(1, SHOWN_SIDE // max(clip.height, clip.width))
    if len(clip) == 1:
        return _data("image/png", clip.png_bytes(scale=scale))
    with tempfile.TemporaryDirectory(prefix="unireel-page-") as folder:
        return _data("video/mp4", clip.save(Path(folder) / "film.mp4", scale=scale).read_bytes())


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def player(address: str, label: str, name: str = "", controls: bool = True) -> str:
    """A film that runs by itself (unless the reader wants no motion), or a picture."""
    identity = f' id="{escape(name)}"' if name else ""
    if address.startswith("data:image/"):
        return f'<img{identity} src="{address}" alt="{escape(label)}">'
    how = "controls " if controls else ""
    how += "autoplay loop muted playsinline"
    return f'<video{identity} src="{address}" {how} aria-label="{escape(label)}"></video>'


def cards(films: Sequence[Card], prefix: str = "") -> str:
    """Films side by side; each that is finished can be saved, asked about, and edited where the model can.

    Args:
        prefix: of the names of the buttons that do so.
    """
    shown = "".join(_card(f"film-{index}", card, prefix) for index, card in enumerate(films))
    return f'<div class="films films-{len(films)}">{shown}</div>'


def _card(name: str, card: Card, prefix: str) -> str:
    if card.problem:
        picture, below = f'<div class="blank">{escape(card.problem)}</div>', ""
    elif not card.film:
        percent = round(100 * card.done)
        picture = (
            f'<div class="blank"><span>{f"{percent} %" if percent else "waiting"}</span>'
            f'<progress max="100" value="{percent}" aria-label="{escape(card.title)}"></progress></div>'
        )
        below = ""
    else:
        suffix = "png" if card.film.startswith("data:image/png") else "mp4"
        picture = player(card.film, card.title, controls=False)
        below = (
            f'<a href="{card.film}" download="unireel-{escape(card.title.replace(" ", "-"))}.{suffix}">save</a>'
            f'<button type="button" data-press="{prefix}ask-{name}">ask</button>'
            f'<button type="button" data-press="{prefix}edit-{name}" class="edits">edit</button>'
        )
    words = "" if card.description is None else _description(card.description)
    return (
        f"<figure>{picture}{words}<figcaption><span>{escape(card.title)}</span>{below}</figcaption></figure>"
    )


def _description(answer: Any) -> str:
    """What a model says of a film that it made, and how sure it is."""
    words = escape(answer.text) or "no words came of it"
    return f'<p class="description">{words}<small>{answer.confidence:.0%} sure</small></p>'


def problem(message: str) -> str:
    """What is wrong, for the person who can change it."""
    return f'<p class="problem" role="alert">{escape(message[:1].upper() + message[1:])}.</p>'


def hint(message: str) -> str:
    """What could be done here."""
    return f'<p class="hint">{escape(message)}</p>'


def evidence(clip: Clip, frames: Sequence[Any]) -> str:
    """The frames that an answer rests on; a press on one jumps the player there."""
    if not frames:
        return ""
    shown = "".join(
        f'<li><button type="button" data-jump="{each.time:.3f}" aria-label="jump to {each.time:.2f} seconds">'
        f'<img src="{_data("image/png", _small(clip, each.frame))}" alt=""><span>{each.time:.2f} s</span></button></li>'
        for each in frames
    )
    return f"<h3>What it looked at</h3><ul class='evidence'>{shown}</ul>"


def _small(clip: Clip, frame: int) -> bytes:
    factor = max(1, max(clip.height, clip.width) // 96)
    return clip[frame : frame + 1].resized(clip.height // factor, clip.width // factor).png_bytes()


def trace(rounds: Sequence[dict[str, Any]]) -> str:
    """The rounds of a reflection: what was searched, looked at, answered, and how sure the judge was."""
    rows = "".join(
        f"<tr><th scope='row'>{number}</th><td>{escape(str(each['select']['query']))}</td>"
        f"<td>{', '.join(f'{time:g}' for time in each['select']['times'])} s</td>"
        f"<td>{escape(str(each['actor']['text']))}</td><td>{each['evaluator']['score']:.2f}</td></tr>"
        for number, each in enumerate(rounds, 1)
    )
    head = "<tr><th scope='col'>round</th><th scope='col'>searched</th><th scope='col'>frames at</th>"
    head += "<th scope='col'>answered</th><th scope='col'>score</th></tr>"
    return f"<h3>Reflection</h3><div class='trace'><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>"


def said(answer: Any) -> str:
    """An answer with what is to be known about it, in Markdown."""
    doubt = "" if answer.reliable else ", not reliable"
    note = f"\n\n*{escape(answer.note)}*" if answer.note else ""
    return f"{escape(answer.text)}  \n<small>{answer.confidence:.0%} sure{doubt}</small>{note}"


def three_films(before: str, after: str, difference: str) -> str:
    """Before, after and difference, which run together."""
    parts = zip(("before", "after", "difference"), (before, after, difference), strict=True)
    figures = "".join(
        f"<figure>{player(film, name, controls=False)}<figcaption><span>{name}</span></figcaption></figure>"
        for name, film in parts
    )
    return f'<div class="films films-3 together">{figures}</div>'
