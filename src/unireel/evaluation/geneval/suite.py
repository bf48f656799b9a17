"""GenEval's prompts, and the folders in which it looks for images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unireel.errors import UserError
from unireel.evaluation.geneval.summary import TAGS
from unireel.evaluation.sampling import Wanted, seed_of
from unireel.media.atomic import replacing_file

IMAGES_EACH = 4
METADATA, SAMPLES = "metadata.jsonl", "samples"


@dataclass(frozen=True)
class Prompt:
    """Prompt number ``index`` (from 0), its tag, and the whole line of the metadata file."""

    index: int
    tag: str
    text: str
    line: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Where its images lie, relative to the whole: ``00000`` and so on."""
        return Path(f"{self.index:05d}")


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of ``evaluation_metadata.jsonl``.

    Raises:
        UserError: it cannot be read, or a line is not a prompt; the line is named.
    """
    try:
        lines = [each for each in path.read_text(encoding="utf-8").splitlines() if each.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    found = []
    for index, line in enumerate(lines):
        try:
            data = json.loads(line)
            prompt = Prompt(index, data["tag"], data["prompt"], data)
        except (ValueError, KeyError, TypeError):
            raise UserError(f"line {index + 1} of {path} is not a prompt of GenEval") from None
        if prompt.tag not in TAGS or not isinstance(prompt.text, str) or not prompt.text.strip():
            raise UserError(f"line {index + 1} of {path}: unknown tag '{prompt.tag}' or empty prompt")
        found.append(prompt)
    if not found:
        raise UserError(f"{path} has no prompts")
    return found


def wanted_images(prompts: Sequence[Prompt], seed: int, each: int = IMAGES_EACH) -> list[Wanted]:
    """The images to make: ``00000/samples/0000.png`` and so on."""
    return [
        Wanted(
            prompt.folder / SAMPLES / f"{number:04d}.png",
            prompt.text,
            seed_of(seed, f"geneval/{prompt.index}/{prompt.text}", number),
        )
        for prompt in prompts
        for number in range(each)
    ]


def write_metadata(prompts: Sequence[Prompt], folder: Path) -> None:
    """Write each prompt's line beside where its images go."""
    for prompt in prompts:
        place = folder / prompt.folder
        (place / SAMPLES).mkdir(parents=True, exist_ok=True)
        if not (place / METADATA).exists():
            with replacing_file(place / METADATA) as temporary:
                temporary.write_text(json.dumps(prompt.line, ensure_ascii=False) + "\n", encoding="utf-8")
