"""Asking a model every question, video by video, with controls that take the film's evidence away. Resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from unireel.backbones.remote import RemoteError
from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.intervals import Score, clustered
from unireel.evaluation.journal import Journal
from unireel.evaluation.tables import rows_of
from unireel.evaluation.videoqa.askers import Ask, Asker, Traced, ask_each, words_of
from unireel.evaluation.videoqa.datasets import Dataset
from unireel.evaluation.videoqa.formats import Problem, Question
from unireel.evaluation.videoqa.metrics import Named
from unireel.evaluation.videoqa.scoring import Record
from unireel.evaluation.worldbench.understanding import CONTROLS
from unireel.world.scene import stable_hash

TEXT = "text"
"""The control that asks the question's words alone, of models that take them without a film."""

DEAD_AFTER = 5
"""Videos in a row without any answer after which an endpoint is taken for dead."""

SUFFIXES = (".mp4", ".webm", ".avi", ".mkv", ".mov", ".gif", "")


@dataclass(frozen=True)
class Setting:
    """How videos are shown: ``frames`` evenly spread ones. Every ``control_every``-th question is asked again about
    the control films (0: none), always the same ones."""

    frames: int = 17
    control_every: int = 4

    def controlled(self, question: Question) -> bool:
        """Whether this question is asked about the control films too."""
        return self.control_every > 0 and stable_hash(f"control/{question.id}") % self.control_every == 0


def find_video(name: str, folder: Path, dataset: Dataset, names: Mapping[str, str]) -> Path:
    """The file of a video.

    Args:
        name: as the annotation calls it.
        names: what files are called instead, by the annotation's name.

    Raises:
        UserError: there is none, or it lies outside ``folder``.
    """
    for stem in dict.fromkeys((names.get(name, name), dataset.video.format(name))):
        for suffix in SUFFIXES:
            path = folder / f"{stem}{suffix}"
            if path.is_file():
                if not path.resolve().is_relative_to(folder.resolve()):
                    raise UserError(f"the video '{name}' lies outside {folder}")
                return path
    raise UserError(f"there is no video '{name}' in {folder}")


def read_names(path: Path) -> dict[str, str]:
    """Names of files by the annotation's name: lines ``FILE NAME`` as MSVD's ``youtube_mapping.txt`` has, ``vid12``
    standing for 12 too, or a table with the columns ``name`` and ``file``.

    Raises:
        UserError: it cannot be read.
    """
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if all(len(each) == 2 for each in lines) and path.suffix != ".csv":
        found = {name: file for file, name in lines}
        return found | {name.removeprefix("vid"): file for name, file in found.items()}
    try:
        return {str(row["name"]): str(row["file"]) for row in rows_of(path)}
    except (KeyError, TypeError):
        raise UserError(f"{path} has neither lines 'FILE NAME' nor the columns name and file") from None


def run(
    asker: Asker,
    questions: Sequence[Question],
    open_video: Callable[[str], Path],
    setting: Setting,
    journal: Journal,
    advance: Callable[[int, int, float], None] | None = None,
) -> None:
    """Ask what ``journal`` has no answer to; each video's answers are on the disk before the next is opened.

    Videos that are missing or cannot be read and questions that the model refuses are recorded with the reason; a
    rerun tries them again.

    Raises:
        RemoteError: the endpoint has not answered anything about several videos in a row.
    """
    todo = [each for each in questions if each.id not in journal or "error" in journal[each.id]]
    done = silent = 0
    # Questions about one part of one video are asked together, so that it is decoded once.
    ordered = sorted(todo, key=lambda each: (each.video, each.start, each.end or 0.0))
    for (video, start, end), group in groupby(ordered, key=lambda each: (each.video, each.start, each.end)):
        begun = time.perf_counter()
        asked = list(group)
        try:
            clip = Clip.load(open_video(video), num_frames=setting.frames, start=start, end=end)
        except UserError as error:
            journal.append([{"id": each.id, "error": str(error)} for each in asked])
        else:
            records = _asked(asker, clip, asked, setting)
            journal.append(records)
            silent = silent + 1 if all("error" in each for each in records) else 0
            if silent >= DEAD_AFTER:
                raise RemoteError(f"gave up after {silent} videos without any answer: {records[0]['error']}")
        done += len(asked)
        if advance:
            advance(len(asked), len(todo) - done, time.perf_counter() - begun)


def _asked(asker: Asker, clip: Clip, questions: Sequence[Question], setting: Setting) -> list[Record]:
    """The records of questions about one film, controls included."""
    asks: list[tuple[str, Ask]] = []
    for question in questions:
        asks.append(("said", (clip, question)))
        if setting.controlled(question):
            asks += [(name, (change(clip), question)) for name, change in CONTROLS.items()]
            asks += [(TEXT, (None, question))] if asker.without_film else []
    records: dict[str, Record] = {question.id: {"id": question.id} for question in questions}
    answers = ask_each(asker, [ask for _, ask in asks])
    for (name, (_, question)), answer in zip(asks, answers, strict=True):
        record = records[question.id]
        if isinstance(answer, RemoteError):
            record["error"] = str(answer)
        elif isinstance(answer, UserError):
            record["refused"] = str(answer)
        elif name == "said":
            record["said"] = words_of(answer)
            record |= {"rounds": answer.rounds} if isinstance(answer, Traced) else {}
        else:
            record.setdefault("controls", {})[name] = words_of(answer)
    return list(records.values())


def results(
    questions: Sequence[Question], journal: Journal
) -> tuple[list[tuple[Question, str | None]], list[Problem]]:
    """Every question whose video could be shown, with its answer, and what went wrong.

    What the model refused counts as answered wrong; what it was never shown does not count.
    """
    pairs, problems = [], []
    for question in questions:
        record = journal.get(question.id, {"error": "not asked"})
        if "error" in record:
            problems.append(Problem("not asked", question.id, record["error"]))
            continue
        if "refused" in record:
            problems.append(Problem("refused", question.id, record["refused"]))
        pairs.append((question, record.get("said")))
    return pairs, problems


def control_scores(
    pairs: Sequence[tuple[Question, str | None]], journal: Journal, metric: Named
) -> dict[str, Score]:
    """What a metric gives for the questions that were asked about control films.

    Returns:
        ``control/intact``: about the films themselves; ``control/<name>``: about control films, still against the
        right answer; ``drop/<name>``: the first minus the second, paired. A model that watches loses.
    """
    asked = [
        (question, said, journal[question.id]["controls"])
        for question, said in pairs
        if said is not None and "controls" in journal[question.id]
    ]
    found: dict[str, Score] = {}
    names = dict.fromkeys(name for _, _, controls in asked for name in controls)
    intact = {question.id: metric.value(question, said) for question, said, _ in asked}
    known: list[Any] = [
        (question.video, value) for question, _, _ in asked if (value := intact[question.id]) is not None
    ]
    if known:
        found["control/intact"] = clustered([value for _, value in known], [video for video, _ in known])
    for name in names:
        both = [
            (question.video, before, after)
            for question, _, controls in asked
            if name in controls
            and (before := intact[question.id]) is not None
            and (after := metric.value(question, controls[name])) is not None
        ]
        if both:
            videos = [video for video, _, _ in both]
            found[f"control/{name}"] = clustered([after for _, _, after in both], videos)
            found[f"drop/{name}"] = clustered(
                [float(before) - float(after) for _, before, after in both], videos
            )
    return found
