"""The published numbers that belong beside a run: which table of which paper, and which column is which score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from unireel.evaluation.geneval.summary import TAGS
from unireel.evaluation.intervals import Score
from unireel.evaluation.page import Figures
from unireel.evaluation.papers import TABLES, rows
from unireel.evaluation.plots import Dot, dots
from unireel.evaluation.vbench.dimensions import DIMENSIONS


@dataclass(frozen=True)
class Beside:
    """Published tables for a benchmark.

    Attributes:
        tables: names in :data:`~unireel.evaluation.papers.TABLES`; of a model that stands in several, the first counts.
        columns: the table's columns by the run's names of the scores, the main one first.
        factors: what brings the run's scores to the table's unit, by the run's name; 100 if absent.
        note: what keeps the numbers from being compared blindly.
    """

    tables: tuple[str, ...]
    columns: Mapping[str, str]
    factors: Mapping[str, float]
    note: str = ""


_JUDGED = (
    "Accuracies and ratings are a judge's: they compare among figures of one judge and one instruction only. The "
    "papers do not name theirs."
)
VBENCH = Beside(
    ("omnivideo_table3", "univid_table1"),
    {name: name for name in ("total", "quality", "semantic", *DIMENSIONS)},
    {},
    "The films have to be those of the whole suite, made as VBench says. Misprints of the tables are kept.",
)
_TAGS = ("overall", *TAGS)
GENEVAL = Beside(("omnivideo_table2",), {name: name for name in _TAGS}, dict.fromkeys(_TAGS, 1.0))
VIDEOQA = {
    name: Beside(
        ("univid_table2",),
        {"judge": f"{column}_accuracy", "judge_score": f"{column}_score"},
        {"judge_score": 1.0},
        _JUDGED,
    )
    for name, column in (
        ("msvd-qa", "msvd_qa"),
        ("msrvtt-qa", "msrvtt_qa"),
        ("tgif-frameqa", "tgif_qa"),
        ("activitynet-qa", "activitynet_qa"),
    )
} | {
    "videomme": Beside(("univid_table10",), {"choice": "video_mme"}, {}),
    "mlvu": Beside(("univid_table10",), {"choice/m-avg": "mlvu"}, {}),
}
"""By the name of the data set."""


def beside(scores: Figures, wanted: Beside | None, name: str) -> str:
    """A table and a plot of the run among the published models, as HTML; empty if they share no score."""
    shared = [] if wanted is None else [each for each in wanted.columns if each in scores]
    if wanted is None or not shared:
        return ""
    head = "".join(f"<th>{escape(each.replace('_', ' '))}</th>" for each in shared)
    ours = "".join(f"<td>{_cell(scores[each], wanted.factors.get(each, 100.0))}</td>" for each in shared)
    lines = [f"<tr class=head><th scope=row>{escape(name)}</th><td class=source>this run</td>{ours}</tr>"]
    main = shared[0]
    factor = wanted.factors.get(main, 100.0)
    found = [_dot(name, scores[main], factor)]
    for model, row, source in _rows(wanted):
        values = [row.get(wanted.columns[each]) for each in shared]
        if all(value is None for value in values):
            continue
        cells = "".join(f"<td>{'' if value is None else f'{value:.2f}'}</td>" for value in values)
        lines.append(
            f"<tr><th scope=row>{escape(model)}</th><td class=source>{escape(source)}</td>{cells}</tr>"
        )
        if isinstance(values[0], float):
            found.append(Dot(model, values[0]))
    note = f"<p>{escape(wanted.note)}</p>" if wanted.note else ""
    return (
        f"<h2>Beside published numbers</h2>\n{note}\n<div class=wide><table><thead><tr><th>model</th>"
        f"<th class=source>source</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>\n"
        + dots(found, f"{main}, with this run's 95 % interval")
    )


def _rows(wanted: Beside) -> list[tuple[str, dict, str]]:
    """(model, row, source) of the tables, the best of the main column first."""
    found: dict[str, tuple[str, dict, str]] = {}
    for table in wanted.tables:
        source = f"{TABLES[table].paper}, Table {TABLES[table].number}"
        for row in rows(table):
            model = str(row["model"]).removesuffix(" (Ours)")
            found.setdefault(model, (model, row, source))
    main = next(iter(wanted.columns.values()))
    return sorted(found.values(), key=lambda each: -(each[1].get(main) or 0.0))


def _cell(score: Score | float, factor: float) -> str:
    if not isinstance(score, Score):
        return f"{factor * score:.2f}"
    return f"{factor * score.value:.2f}<small>{factor * score.low:.2f} to {factor * score.high:.2f}</small>"


def _dot(name: str, score: Score | float, factor: float) -> Dot:
    if not isinstance(score, Score):
        return Dot(name, factor * score, ours=True)
    return Dot(name, factor * score.value, factor * score.low, factor * score.high, True)
