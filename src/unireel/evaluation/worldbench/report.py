"""The report of an evaluation: one HTML page that carries its pictures and needs no network."""

from __future__ import annotations

from html import escape

from unireel.evaluation.page import Case, Picture, document, gallery, made_by, score_table
from unireel.evaluation.progress import duration
from unireel.evaluation.worldbench.ledger import Ledger
from unireel.evaluation.worldbench.runner import CHECKER_FILMS, Plan, Result
from unireel.evaluation.worldbench.task import Exhibit, Task

TITLES = {
    "t2v": "Films from words",
    "t2i": "Pictures from words",
    "i2v": "Films from a first frame and words",
    "edit": "Edits",
    "qa": "Questions",
    "needle": "Questions about a moment in a long story, with Pyramid Reflection",
    "caption": "Captions",
}
HEADLINES = (
    "t2v/overall",
    "t2i/overall",
    "i2v/overall",
    "edit/overall",
    "qa/static",
    "qa/dynamic",
    "qa/needle",
    "caption/f1",
)
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
    introduction = (
        f"<code>{escape(result.model)}</code> on the {escape(result.split)} split: {plan.n} items for each figure, "
        f"seed {result.seed}, films of {setting.size}×{setting.size} pixels. Bands are 95&nbsp;% confidence intervals.",
        _checker(result),
        made_by(command),
    )
    title = f"WorldBench: {result.model}, {result.split} split"
    body = f"<h2>Scores</h2>\n{score_table(result.scores, HEADLINES)}\n{galleries}"
    return document(title, introduction, body, _details(plan, ledger), "WorldBench")


def _checker(result: Result) -> str:
    agreement, rejection = result.checker["agreement"], result.checker["rejection"]
    return (
        "Films are judged by a checker that reads nothing but pixels. Measured in this run on "
        f"{CHECKER_FILMS} films of the split, blurred, noisy and compressed, it accepts <b>{agreement.value:.2%}</b> "
        f"of {agreement.n} true statements and rejects <b>{rejection.value:.2%}</b> of {rejection.n} false ones."
    )


def _gallery(task: Task, plan: Plan, ledger: Ledger) -> str:
    sections = []
    for part in (part for other, part in plan.parts if other is task):
        records = ledger.done(part, plan.n)
        found = sorted(task.exhibits(part, records, plan.setting, ledger.films), key=lambda each: each.right)
        right = sum(each["right"] for each in records)
        title = f"<h3>{escape(part)}: {right} of {len(records)} right</h3>"
        sections.append(title + gallery([_case(each) for each in found]))
    return f"<h2>{escape(TITLES.get(task.name, task.name))}</h2>\n" + "\n".join(sections)


def _case(exhibit: Exhibit) -> Case:
    given = () if exhibit.source is None else (Picture(exhibit.source, shows="the film that was given"),)
    first = ()
    if exhibit.first is not None:
        first = (Picture(exhibit.first, "image/png", "the first frame that was given", "first"),)
    pictures = (*given, Picture(exhibit.film, shows=exhibit.heading), *first)
    pace = ((None, f"the film plays {exhibit.faster} times as fast as it is"),) if exhibit.faster > 1 else ()
    return Case(exhibit.right, exhibit.heading, pictures, (*exhibit.lines, *pace), exhibit.strips)


def _details(plan: Plan, ledger: Ledger) -> dict[str, str]:
    facts = {}
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
    return facts
