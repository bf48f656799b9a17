"""Reports of the public benchmarks: scores, published numbers beside them, plots, and the best and worst cases."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.page import Case, Figures, Picture, Strip, document, gallery, made_by, score_table
from unireel.evaluation.plots import histogram
from unireel.evaluation.published import GENEVAL, VBENCH, VIDEOQA, Beside, beside

SHOWN = 4
"""Cases of either end that a report shows."""

SIDE, FRAMES = 192, 24
"""Longest side in pixels and number of frames of the clips in a page, so that a page stays some megabytes."""

Record = dict[str, Any]


def report(
    title: str,
    name: str,
    command: str,
    scores: Figures,
    published: Beside | None,
    sections: Iterable[str],
    facts: Mapping[str, str],
    percent: bool = False,
) -> str:
    """A benchmark's page.

    Args:
        name: of what was measured.
        command: the command line that gives the figures again.
        sections: plots and galleries, as HTML.
        facts: counts and costs, for the foot.
        percent: show the scores in percent.
    """
    introduction = (
        f"<code>{escape(name)}</code>. Bands are 95&nbsp;% confidence intervals.",
        made_by(command),
    )
    table = score_table(scores, {next(iter(scores), "")}, 100.0 if percent else 1.0, 2 if percent else 3)
    parts = [f"<h2>Scores</h2>\n{table}", beside(scores, published, name), *sections]
    body = "\n".join(filter(None, parts))
    return document(f"{title}: {name}", introduction, body, facts, title)


def videoqa_page(
    document: Mapping[str, Any],
    scores: Figures,
    records: Sequence[Record],
    name: str,
    command: str,
    find: Callable[[str], Path] | None,
    traced: Callable[[str], tuple[Strip, ...]] = lambda question: (),
) -> str:
    """The page of answers: wrong ones first, then right ones, with their videos where they are.

    Args:
        document: what ``scores.json`` holds.
        find: gives a video's file by its name in the annotation.
        traced: gives what was looked at, by a question's id; nothing for answers that were not found by looking.
    """
    metric = next(
        (each for each in scores if "/" not in each and each in (records[0] if records else {})), ""
    )
    known = [each for each in records if each.get(metric) is not None]
    sign = -1 if metric == "l2" else 1
    worst = sorted(known, key=lambda each: sign * each[metric])[: 2 * SHOWN]
    best = sorted(known, key=lambda each: -sign * each[metric])[:SHOWN]
    sections = [
        _cases(f"Worst by {metric}", [_answer(each, metric, find, traced) for each in worst]),
        _cases(
            f"Best by {metric}", [_answer(each, metric, find, traced) for each in best if each not in worst]
        ),
    ]
    if "judge_score" in scores:
        ratings = [each["judge_score"] for each in records if each.get("judge_score") is not None]
        sections.insert(0, f"<h2>Plots</h2>\n{histogram(ratings, 'The judge’s ratings')}")
    facts = {each: str(value) for each, value in document["counts"].items()}
    facts |= {each: str(value) for each, value in document["problem_counts"].items()}
    if "judge" in document:
        facts["judge"] = ", ".join(f"{each} {value}" for each, value in document["judge"].items())
    beside_it = VIDEOQA.get(document["dataset"])
    return report("Questions about videos", name, command, scores, beside_it, sections, facts)


def vbench_page(
    scores: Figures, films: Mapping[str, Sequence[tuple[str, float]]], name: str, command: str
) -> str:
    """The page of VBench's dimensions, with the best and worst films of each where they are."""
    sections = []
    plots = [
        histogram([value for _, value in found], dimension.replace("_", " "))
        for dimension, found in films.items()
        if len(found) > 1
    ]
    if plots:
        sections.append("<h2>Films by score</h2>\n" + "".join(plots))
    for dimension, found in films.items():
        ordered = sorted(found, key=lambda each: -each[1])
        chosen = ordered if len(ordered) <= 2 * SHOWN else [*ordered[:SHOWN], *ordered[-SHOWN:]]
        cases = [
            Case(None, Path(path).stem, (shown,), ((None, f"{value:.4f}"),))
            for path, value in chosen
            if (shown := preview(Path(path))) is not None
        ]
        sections.append(_cases(f"Best and worst: {dimension.replace('_', ' ')}", cases))
    counts = {"films": str(len({path for found in films.values() for path, _ in found}))}
    return report("VBench", name, command, scores, VBENCH, sections, counts, percent=True)


def geneval_page(
    scores: Figures, images: Sequence[tuple[str, str, bool, Path]], name: str, command: str
) -> str:
    """The page of GenEval: ``images`` are (tag, prompt, whether right, file), shown where the files are."""
    sections = []
    for tag in dict.fromkeys(each[0] for each in images):
        cases: list[Case] = []
        for wanted in (False, True):
            found = (
                Case(right, prompt, (shown,))
                for each, prompt, right, path in images
                if each == tag and right is wanted and (shown := preview(path)) is not None
            )
            cases += [case for case, _ in zip(found, range(SHOWN), strict=False)]
        sections.append(_cases(tag.replace("_", " "), cases))
    return report("GenEval", name, command, scores, GENEVAL, sections, {"images": str(len(images))})


def editing_page(
    scores: Figures,
    pairs: Sequence[tuple[Record, Path, Path, str]],
    name: str,
    command: str,
    facts: Mapping[str, str],
) -> str:
    """The page of edits: ``pairs`` are (figures, source, edited film, instruction).

    Cases are in the order of what a judge said, or where there was none, of what was kept.
    """
    metric = next((each for each in ("overall", "psnr_outside", "psnr") if each in scores), "")
    known = [each for each in pairs if each[0].get(metric) is not None]
    ordered = sorted(known, key=lambda each: each[0][metric])
    chosen = ordered if len(ordered) <= 2 * SHOWN else [*ordered[:SHOWN], *ordered[-SHOWN:]]
    cases = [_edit(*each, [name for name in scores if name in each[0]]) for each in chosen]
    sections = []
    if len(known) > 1:
        unit = "1 to 5" if metric == "overall" else "in dB"
        plot = histogram([record[metric] for record, *_ in known], f"{metric}, {unit}")
        sections.append(f"<h2>Plots</h2>\n{plot}")
    sections.append(_cases(f"From the lowest {metric} to the highest: before, after", cases))
    return report("Edits", name, command, scores, None, sections, facts)


def _edit(record: Record, source: Path, edited: Path, instruction: str, names: Sequence[str]) -> Case:
    followed = record.get("followed")
    lines: list[tuple[bool | None, str]] = [
        (None, f"{each} {record[each]:.3f}")
        for each in names
        if record.get(each) is not None and each != "followed"
    ]
    if record.get("part", "edit") != "edit":
        lines.insert(0, (None, f"test: {record['part']}"))
    if followed is not None:
        said = record.get("seen") or ("the instruction was followed" if followed else "it was not followed")
        lines.insert(0, (followed, said))
    pictures = tuple(shown for path in (source, edited) if (shown := preview(path)) is not None)
    return Case(followed, instruction or record["id"], pictures, tuple(lines))


def preview(path: Path) -> Picture | None:
    """A film or picture, small enough for a page; None if it is not there or cannot be read."""
    try:
        clip = Clip.load(path, num_frames=FRAMES) if path.name and path.exists() else None
    except UserError:
        return None
    return None if clip is None else _small(clip, path.stem)


def _small(clip: Clip, shows: str) -> Picture:
    factor = min(1.0, SIDE / max(clip.height, clip.width))
    if factor < 1:
        clip = clip.resized(max(1, round(clip.height * factor)), max(1, round(clip.width * factor)))
    pictures = [Image.fromarray(frame) for frame in clip]
    memory = io.BytesIO()
    pause = round(1000 / clip.fps)
    lossless = clip.frames.size < SIDE * SIDE * FRAMES
    pictures[0].save(
        memory,
        "WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=pause,
        loop=0,
        lossless=lossless,
        quality=75,
    )
    tiny = max(clip.height, clip.width) < SIDE / 2
    return Picture(memory.getvalue(), shows=shows, look="film" if tiny else "photo")


def _answer(
    record: Record,
    metric: str,
    find: Callable[[str], Path] | None,
    traced: Callable[[str], tuple[Strip, ...]],
) -> Case:
    value = record[metric]
    right = value if isinstance(value, bool) else None
    lines: list[tuple[bool | None, str]] = [
        (right, str(record["said"]) if record["said"] is not None else "no answer"),
        (None, f"right would be: {record['answer']}"),
    ]
    if right is None:
        lines.append((None, f"{metric} {value:.3g}"))
    shown = None
    if find is not None:
        try:
            shown = preview(find(record["video"]))
        except UserError:
            shown = None
    pictures = () if shown is None else (shown,)
    return Case(right, record["question"], pictures, tuple(lines), traced(record["id"]))


def _cases(title: str, cases: Sequence[Case]) -> str:
    return f"<h2>{escape(title)}</h2>\n{gallery(cases)}" if cases else ""
