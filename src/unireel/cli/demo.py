"""``unireel demo``: films, answers and captions of the model that ships in the box, on one page."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unireel.cli.options import add_model_options, load_model, progress_bar

if TYPE_CHECKING:
    from unireel.cli.demo_page import Chapter
    from unireel.clip import Clip
    from unireel.world.language import Prompt
    from unireel.world.scene import Scene

SEED = 0
"""Seed of scenes, prompts, films and questions: fixed, so that nobody can choose the good ones."""

CATEGORIES = ("motion", "repetition", "attribute binding", "state change", "order", "camera")
"""One film from words for each of these categories of the test split."""

FROM_PICTURE = "two objects"
"""Category of the film that starts from a given first frame."""

QUESTIONS = 3
"""Questions asked about each film."""

SCALE = 8
PAGE, SHEET, DATA = "index.html", "sheet.png", "demo.json"
OURS = re.compile(rf"film-\d+\.(mp4|gif)|{re.escape(PAGE)}|{re.escape(SHEET)}|{re.escape(DATA)}")
"""Names of the files of a demo: a folder that holds nothing else may be replaced."""


@dataclass(frozen=True)
class Request:
    """A prompt with the facts it requests, the scene it comes from, and the first frame if one is given."""

    scene: Scene
    prompt: Prompt
    first: Clip | None = None


def add_parser(subparsers: Any) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "demo",
        help="a tour on the model that ships in the box; writes demo/index.html",
        description="Make films, ask about them, caption them, and write it all to one page.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="FOLDER", help="where to write (default: demo)"
    )
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Make everything in a temporary folder, which takes the place of ``--out`` when it is complete."""
    from unireel.cli.demo_page import page, tally
    from unireel.media.atomic import replacing_folder
    from unireel.media.pictures import contact_sheet

    start = time.perf_counter()
    with replacing_folder(args.out, OURS) as folder:
        model = load_model(args)
        requests = requests_of(model.size)
        clips, seconds = make_films(model, requests)
        chapters = []
        with progress_bar("questions and captions") as progress:
            for index, (request, clip) in enumerate(zip(requests, clips, strict=True)):
                chapters.append(chapter_of(model, index, request, clip, seconds[index], folder))
                progress(index + 1, len(clips))
        sheet = contact_sheet(clips, [each.prompt.text for each in requests], title=f"Unireel: {args.model}")
        sheet.save(folder / SHEET)
        elapsed = time.perf_counter() - start
        details = details_of(args.model, elapsed)
        (folder / PAGE).write_text(page(chapters, args.model, details), encoding="utf-8")
        (folder / DATA).write_text(as_json(chapters, details), encoding="utf-8")
    shown, shown_note = tally([each for chapter in chapters for each in chapter.requested])
    right, right_note = tally([each.verdict for chapter in chapters for each in chapter.exchanges])
    found = f"{shown} requested facts shown{shown_note}, {right} answers right{right_note}"
    print(f"{args.out / PAGE}  {len(clips)} films, {found}, {elapsed:.0f} s")


def requests_of(size: int) -> list[Request]:
    """The requests of the demo for a model whose films have sides of ``size`` pixels."""
    from unireel.world.language import prompt_for
    from unireel.world.render import render
    from unireel.world.sampling import sample_scene

    requests = []
    for category in (*CATEGORIES, FROM_PICTURE):
        scene = sample_scene(SEED, 0, "test", category, size)
        first = render(scene)[:1] if category == FROM_PICTURE else None
        requests.append(Request(scene, prompt_for(scene, SEED, category), first))
    return requests


def make_films(model: Any, requests: list[Request]) -> tuple[list[Clip], list[float]]:
    """The film for each request, and the seconds it took (those of a batch shared evenly)."""
    clips: list[Clip] = []
    seconds: list[float] = []
    for label, batch in (
        ("films from words", [each for each in requests if each.first is None]),
        ("films from a first frame", [each for each in requests if each.first is not None]),
    ):
        start = time.perf_counter()
        with progress_bar(label) as progress:
            clips += model.generate_many(
                [each.prompt.text for each in batch],
                images=[each.first.frames[0] for each in batch if each.first] or None,
                seeds=[SEED] * len(batch),
                progress=progress,
            )
        seconds += [(time.perf_counter() - start) / len(batch)] * len(batch)
    return clips, seconds


def chapter_of(model: Any, index: int, request: Request, clip: Clip, seconds: float, folder: Path) -> Chapter:
    """Write one film, ask about it, caption it, and let the checker judge all three."""
    from unireel.cli.demo_judge import judge_answer, judge_caption, judge_facts, questions_about, seen_scene
    from unireel.cli.demo_page import Chapter, Exchange
    from unireel.world.checker.observe import observe

    name = f"film-{index + 1}"
    film = clip.save(folder / f"{name}.mp4", scale=SCALE)
    clip.save(folder / f"{name}.gif", scale=SCALE)
    seen = observe(clip)
    read = seen_scene(seen, len(clip), model.size)
    exchanges = []
    questions = questions_about(read or request.scene, QUESTIONS, SEED + index)
    answers = model.ask_many([(clip, question.text) for question in questions])
    for question, answer in zip(questions, answers, strict=True):
        verdict = judge_answer(question, answer.text, from_film=read is not None)
        exchanges.append(Exchange(question.text, answer.text, answer.confidence, answer.note, verdict))
    caption = model.caption(clip)
    requested = judge_facts(request.prompt.facts, seen)
    if request.first is not None:
        requested = (*requested, first_frame_verdict(clip, request.first))
    return Chapter(
        prompt=request.prompt.text,
        seed=SEED,
        film=film.read_bytes(),
        first=request.first.png_bytes(scale=SCALE) if request.first else None,
        source=film.name,
        seconds=seconds,
        requested=requested,
        exchanges=tuple(exchanges),
        caption=caption.text,
        caption_confidence=caption.confidence,
        caption_note=caption.note,
        captioned=judge_caption(caption.text, seen),
    )


def first_frame_verdict(clip: Clip, first: Clip) -> Any:
    """Whether a film starts with the frame it was given: at least 30 dB PSNR."""
    import numpy as np

    from unireel.cli.demo_page import Verdict

    error = np.mean((clip.frames[0].astype(np.float64) - first.frames[0]) ** 2)
    decibels = 10 * np.log10(255**2 / max(error, 1e-3))
    return Verdict(f"the first frame is kept ({decibels:.0f} dB)", bool(decibels >= 30))


def details_of(model: str, seconds: float) -> dict[str, str]:
    """How the page was made."""
    import torch

    from unireel.version import VERSION

    return {
        "made by": f"unireel {VERSION}, command 'unireel demo', model {model}, seed {SEED}",
        "prompts": f"the first test-split scene of each category: {', '.join((*CATEGORIES, FROM_PICTURE))}",
        "on": f"Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores",
        "time": f"{seconds:.1f} s with loading the model",
    }


def as_json(chapters: list[Chapter], details: dict[str, str]) -> str:
    """Everything on the page but the pixels."""
    films = [{k: v for k, v in asdict(each).items() if not isinstance(v, bytes)} for each in chapters]
    return json.dumps({"details": details, "films": films}, indent=2, ensure_ascii=False) + "\n"
