"""Detailed descriptions of real films, from any OpenAI-compatible model that sees.

Uni-ViGU's second stage learns from them (arXiv 2604.08121): the short caption conditions, the description is written.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unireel.backbones.asking import Dead, ask_each
from unireel.backbones.remote import BudgetSpent, Endpoint, Reply, image_part, text_part
from unireel.clip import Clip
from unireel.data.captioned import CaptionedFilm, film_file
from unireel.errors import UserError
from unireel.evaluation.journal import Journal
from unireel.media.atomic import replacing_file

INSTRUCTION = """You describe videos. You see frames of a video in the order of time, and may read a short caption \
that the video was found with. Write one paragraph of 60 to 150 words in plain English: who and what is there and how \
it looks, what happens from beginning to end, where it is, the light and the style, and how the camera moves. Write \
only what can be seen; where the caption is wrong, go by the frames. Do not speak of frames, videos or captions, and \
write nothing but the description."""
MOST_TOKENS = 400
LEAST_WORDS, MOST_WORDS = 20, 300
SIDE = 512
"""Longest side in pixels of the frames that are shown."""

_REFUSAL = re.compile(
    r"(i'?m sorry|sorry|i am sorry|i can(no|')t|i am unable|i'm unable|unable to)\b", re.IGNORECASE
)
_REPEATS = 0.25
"""Share of different words below which a text only repeats itself."""


@dataclass
class Tally:
    """How films were described; the numbers add up to the films."""

    written: int = 0
    cached: int = 0
    failed: int = 0
    not_asked: int = 0


@dataclass(frozen=True)
class Passed:
    """A film that has no description: what happened, and why."""

    kind: str
    video: str
    what: str


def instruction_hash() -> str:
    """Eight digits that change with the wording of the instruction."""
    return hashlib.sha256(INSTRUCTION.encode()).hexdigest()[:8]


def nonsense(reply: Reply) -> str | None:
    """What keeps a reply from being a description; None if it is one."""
    words = reply.text.split()
    if reply.completion_tokens >= MOST_TOKENS:
        return "cut off"
    if _REFUSAL.match(reply.text.strip()):
        return "a refusal"
    if not LEAST_WORDS <= len(words) <= MOST_WORDS:
        return f"{len(words)} words"
    if len({each.lower() for each in words}) < _REPEATS * len(words):
        return "it repeats itself"
    if re.search(r"```|^\s*[{\[]", reply.text):
        return "no plain text"
    return None


def describe_films(
    films: Sequence[CaptionedFilm],
    folder: Path,
    captioner: Endpoint,
    journal: Journal,
    count: int = 8,
    parallel: int = 4,
    advance: Callable[[int], None] | None = None,
) -> tuple[dict[str, str], Tally, list[Passed]]:
    """Have films described that ``journal`` has no description of; the descriptions by the films' names.

    What cannot be read, nonsense and failures are listed, never guessed, and asked again by the next run.

    Args:
        folder: where the films are.
        journal: descriptions by a hash of the captioner, the words, the number of frames, and the film's name and
            size: another captioner or another film of this name is asked about anew.
        count: frames that are shown of each film.
        advance: called with the number of films done.
    """
    said: dict[str, str] = {}
    tally, passed = Tally(), []

    def waiting() -> Iterator[tuple[CaptionedFilm, Path, str]]:
        for film in films:
            try:
                path = film_file(folder, film.video)
            except UserError as error:
                tally.not_asked += 1
                passed.append(Passed("not asked", film.video, str(error)))
                continue
            key = _key(captioner.model, film, path.stat().st_size, count)
            if key in journal:
                said[film.video] = journal[key]["said"]
                tally.cached += 1
            else:
                yield film, path, key

    def ask(item: tuple[CaptionedFilm, Path, str]) -> Reply:
        film, path, _ = item
        return captioner.chat(_messages(film, Clip.load(path, num_frames=count)), max_tokens=MOST_TOKENS)

    for (film, _, key), outcome in ask_each(waiting(), ask, parallel):
        if isinstance(outcome, BudgetSpent | Dead):
            tally.not_asked += 1
            passed.append(Passed("not asked", film.video, str(outcome)))
        elif isinstance(outcome, UserError):
            tally.failed += 1
            passed.append(Passed("failed", film.video, str(outcome)))
        elif (reason := nonsense(outcome)) is not None:
            tally.failed += 1
            passed.append(Passed("nonsense", film.video, f"{reason}: {outcome.text[:200]}"))
        else:
            tally.written += 1
            said[film.video] = " ".join(outcome.text.split())
            journal.append([{"id": key, "video": film.video, "said": said[film.video]}])
        if advance:
            advance(tally.written + tally.cached + tally.failed + tally.not_asked)
    return said, tally, passed


def _messages(film: CaptionedFilm, clip: Clip) -> list[dict[str, Any]]:
    """The instruction, the frames, and the caption, quoted as JSON so that it cannot pose as an instruction."""
    factor = min(1.0, SIDE / max(clip.height, clip.width))
    if factor < 1:
        clip = clip.resized(max(1, round(clip.height * factor)), max(1, round(clip.width * factor)))
    asked = json.dumps({"caption": film.caption}, ensure_ascii=False) if film.caption else "Describe it."
    return [
        {"role": "system", "content": INSTRUCTION},
        {"role": "user", "content": [*map(image_part, clip), text_part(asked)]},
    ]


def _key(model: str, film: CaptionedFilm, size: int, count: int) -> str:
    about = [model, INSTRUCTION, count, film.video, film.caption, size]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]


def write_list(path: Path, films: Sequence[CaptionedFilm], said: dict[str, str]) -> None:
    """Write the list with the descriptions as CSV, empty where there is none."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("video", "caption", "detailed"))
    writer.writerows((film.video, film.caption, said.get(film.video, "")) for film in films)
    with replacing_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
