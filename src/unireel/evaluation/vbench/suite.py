"""VBench's prompts, and the file names under which it looks for their films."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unireel.errors import UsageError, UserError
from unireel.evaluation.sampling import Wanted, seed_of
from unireel.evaluation.vbench.dimensions import DIMENSIONS

SAMPLES_EACH = 5
LONGEST_NAME = 255
"""Bytes of a file name on common file systems."""


@dataclass(frozen=True)
class Prompt:
    """A prompt with the dimensions that are measured on its films."""

    text: str
    dimensions: tuple[str, ...]

    @property
    def folder(self) -> str:
        """The folder of its films."""
        return DIMENSIONS[self.dimensions[0]].folder


def read_suite(path: Path) -> list[Prompt]:
    """The prompts of ``VBench_full_info.json``, in its order.

    Raises:
        UserError: it cannot be read, or an entry is not a prompt; the entry is named.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path} is not a list of prompts")
    return [_prompt(entry, number, path) for number, entry in enumerate(entries)]


def _prompt(entry: object, number: int, path: Path) -> Prompt:
    if not isinstance(entry, dict):
        raise UserError(f"entry {number} of {path} is not a prompt")
    text, dimensions = entry.get("prompt_en"), entry.get("dimension")
    names = dimensions if isinstance(dimensions, list) else []
    if not (isinstance(text, str) and text.strip() and names and all(each in DIMENSIONS for each in names)):
        raise UserError(f"entry {number} of {path} lacks a prompt, or names no dimension of VBench")
    if "/" in text or "\0" in text:
        raise UserError(f"entry {number} of {path}: '{text}' cannot be the name of a file")
    return Prompt(text, tuple(names))


def of_dimensions(suite: Sequence[Prompt], names: Iterable[str] | None) -> list[Prompt]:
    """The prompts on whose films the named dimensions are measured; None means all.

    Raises:
        UsageError: a name is not a dimension.
    """
    if names is None:
        return list(suite)
    chosen = [name.strip().replace(" ", "_").replace("-", "_") for name in names]
    for name in chosen:
        if name not in DIMENSIONS:
            raise UsageError(f"VBench has no dimension '{name}'; accepted: {', '.join(DIMENSIONS)}")
    return [each for each in suite if set(chosen) & set(each.dimensions)]


def file_name(text: str, sample: int) -> str:
    """``{prompt}-{sample}.mp4``.

    Raises:
        UserError: it would be longer than file systems allow.
    """
    name = f"{text}-{sample}.mp4"
    if len(name.encode()) > LONGEST_NAME:
        raise UserError(f"the prompt '{text[:60]}...' is too long for the name of a file")
    return name


def wanted_films(
    prompts: Sequence[Prompt], seed: int, samples: int = SAMPLES_EACH, flicker_samples: int | None = None
) -> list[Wanted]:
    """The films to make: ``{folder}/{prompt}-{i}.mp4``, in the order of the suite.

    A prompt that stands in two folders gets the same films in both.

    Args:
        samples: films of each prompt.
        flicker_samples: of the prompts of temporal flickering; VBench makes 25 and keeps 5 that hardly move.
    """
    counts = defaultdict(lambda: samples)
    if flicker_samples is not None:
        counts["temporal_flickering"] = flicker_samples
    return [
        Wanted(
            Path(prompt.folder) / file_name(prompt.text, sample),
            prompt.text,
            seed_of(seed, f"vbench/{prompt.text}", sample),
        )
        for prompt in prompts
        for sample in range(counts[prompt.folder])
    ]


def check_case(wanted: Sequence[Wanted], folder: Path) -> None:
    """Raise a :class:`UserError` if names differ only in case where the file system does not tell case apart.

    VBench's suite has such a pair ("A fantasy landscape", "a fantasy landscape").
    """
    seen: dict[str, Path] = {}
    for each in wanted:
        other = seen.setdefault(str(each.path).casefold(), each.path)
        if other != each.path:
            probe = folder / "unireel-Case-probe"
            probe.touch()
            blind = (folder / "unireel-case-probe").exists()
            probe.unlink()
            if blind:
                raise UserError(
                    f"'{other}' and '{each.path}' would be one file in {folder}: its file system does not tell "
                    "upper from lower case; choose another place"
                )
            return
