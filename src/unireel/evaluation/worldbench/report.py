"""The report of an evaluation: one HTML page that carries its pictures and needs no network."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path

from unireel.evaluation.intervals import Score
from unireel.evaluation.progress import duration
from unireel.evaluation.worldbench.ledger import Ledger
from unireel.evaluation.worldbench.runner import CHECKER_FILMS, Plan, Result
from unireel.evaluation.worldbench.task import Exhibit, Task
from unireel.version import VERSION

STYLE = Path(__file__).with_name("report.css")
TITLES = {
    "t2v": "Films from words",
    "i2v": "Films from a first frame and words",
    "qa": "Questions",
    "caption": "Captions",
}
HEADLINES = ("t2v/overall", "i2v/overall", "qa/static", "qa/dynamic", "caption/f1")
"""The scores that sum up a task."""


def page(result: Result, plan: Plan, ledger: Ledger, command: str) -> str:
    """The whole page.

    Args:
        result: the figures.
        plan: what was measured.
        ledger: the records behind the figures.
        command: the command line that gives the figures again.
    """
    setting = plan.setting
    tasks = list(dict.fromkeys(task for task, _ in plan.parts))
    galleries = "\n".join(_gallery(task, plan, ledger) for task in reversed(tasks))
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>WorldBench: {escape(result.model)}, {escape(result.split)} split</title>
<style>{STYLE.read_text(encoding="utf-8")}</style>
<header>
<h1>WorldBench</h1>
<p><code>{escape(result.model)}</code> on the {escape(result.split)} split: {plan.n} items for each figure, seed
{result.seed}, films of {setting.size}×{setting.size} pixels. Bands are 95 % confidence intervals.</p>
<p>{_checker(result)}</p>
<p>Made by <code>{escape(command)}</code></p>
</header>
<main>
<h2>Scores</h2>
{_table(result.scores)}
{galleries}
</main>
<footer><dl>{_details(plan, ledger)}</dl></footer>
</html>
"""


def _checker(result: Result) -> str:
    agreement, rejection = result.checker["agreement"], result.checker["rejection"]
    return (
        "Films are judged by a checker that reads nothing but pixels. Measured in this run on "
        f"{CHECKER_FILMS} films of the split, blurred, noisy and compressed, it accepts <b>{agreement.value:.2%}</b> "
        f"of {agreement.n} true statements and rejects <b>{rejection.value:.2%}</b> of {rejection.n} false ones."
    )


def _table(scores: dict[str, Score]) -> str:
    rows = "".join(_row(key, score) for key, score in scores.items())
    return (
        "<table><thead><tr><th>score</th><th>value</th><th class=graph>0 to 1</th>"
        f"<th class=range>95 % interval</th><th>n</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _row(key: str, score: Score) -> str:
    bar = ""
    if score.low >= 0 and score.high <= 1:
        band = f"left:{100 * score.low:.2f}%;width:{100 * (score.high - score.low):.2f}%"
        bar = f'<div class=bar><i style="{band}"></i><b style="left:{100 * score.value:.2f}%"></b></div>'
    head = " class=head" if key in HEADLINES else ""
    return (
        f"<tr{head}><th scope=row>{escape(key)}</th><td class=value>{score.value:.3f}</td><td class=graph>{bar}</td>"
        f"<td class=range>{score.low:.3f} to {score.high:.3f}</td><td class=n>{score.n}</td></tr>\n"
    )


def _gallery(task: Task, plan: Plan, ledger: Ledger) -> str:
    sections = []
    for part in (part for other, part in plan.parts if other is task):
        records = ledger.done(part, plan.n)
        found = sorted(task.exhibits(part, records, plan.setting, ledger.films), key=lambda each: each.right)
        right = sum(each["right"] for each in records)
        title = f"<h3>{escape(part)}: {right} of {len(records)} right</h3>"
        sections.append(f"{title}<div class=gallery>{''.join(map(_figure, found))}</div>")
    return f"<h2>{escape(TITLES.get(task.name, task.name))}</h2>\n" + "\n".join(sections)


def _figure(exhibit: Exhibit) -> str:
    heading = escape(exhibit.heading)
    film = f'<img src="{_data("image/webp", exhibit.film)}" alt="{heading}" loading="lazy">'
    first = ""
    if exhibit.first is not None:
        source = _data("image/png", exhibit.first)
        first = f'<img class=first src="{source}" alt="the first frame that was given" loading="lazy">'
    kind = "right" if exhibit.right else "wrong"
    return (
        f"<figure class={kind}><div class=films>{film}{first}</div><p>{heading}</p>"
        f"<ul>{''.join(_lines(exhibit.lines))}</ul></figure>\n"
    )


def _lines(lines: Iterable[tuple[bool | None, str]]) -> Iterable[str]:
    names = {True: "holds", False: "fails", None: "seen"}
    return (f"<li class={names[right]}>{escape(text)}</li>" for right, text in lines)


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _details(plan: Plan, ledger: Ledger) -> str:
    facts = {"program": f"unireel {VERSION}"}
    for task in dict.fromkeys(task for task, _ in plan.parts):
        records = [each for other, part in plan.parts if other is task for each in ledger.done(part, plan.n)]
        spent = sum(each["seconds"] for each in records)
        facts[f"cost of {task.name}"] = (
            f"{len(records)} items in {duration(spent)} on the clock, checks included"
        )
    facts["sampling"] = ", ".join(
        f"{name} {'as the model says' if value is None else value}"
        for name, value in (("steps", plan.setting.steps), ("guidance", plan.setting.guidance))
    )
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
