"""Checkpoints that are whole or absent: written aside, flushed, hashed, then renamed into place.

A checkpoint is a folder ``step-00001000`` with safetensors files (weights, averages, optimiser),
``state.json`` (step, random states, recipe) and ``manifest.json`` (size and SHA-256 of each other file).
Nothing in it is ever unpickled.
"""

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from unireel.errors import UserError

FORMAT = 1
_NAME = re.compile(r"step-(\d{8,})$")
_ASIDE = ".writing-"


@dataclass(frozen=True)
class Checkpoint:
    """The content of one checkpoint.

    Attributes:
        step: updates made.
        tensors: file stem (``model``, ``ema``, ``optimizer``) to full tensors by name, on the CPU.
        state: plain data that JSON can hold.
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, keep_last: int) -> Path:
    """Write ``checkpoint`` under ``folder`` and drop all but the ``keep_last`` newest; return its own folder.

    Until the final rename the checkpoint does not exist under its name, whenever the process dies.

    Raises:
        UserError: it cannot be written; older checkpoints are untouched.
    """
    final = folder / f"step-{checkpoint.step:08d}"
    aside = folder / f"{_ASIDE}{final.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(f"{_ASIDE}*"):
            shutil.rmtree(stale)
        aside.mkdir()
        for stem, tensors in checkpoint.tensors.items():
            contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
            save_file(contiguous, aside / f"{stem}.safetensors")
        (aside / "state.json").write_text(json.dumps(checkpoint.state), encoding="utf-8")
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": _hash(path)}
            for path in sorted(aside.iterdir())
        }
        manifest = {"format": FORMAT, "step": checkpoint.step, "files": files}
        (aside / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in [*aside.iterdir(), aside]:
            _flush(path)
        if final.is_dir():
            # The same step again, for example after a resume beside a damaged copy: the newer one counts.
            _remove(final)
        aside.rename(final)
        _flush(folder)
        # A later step can only be a damaged one that this run was resumed from before.
        kept = [path for step, path in found(folder) if step <= checkpoint.step][-keep_last:]
        for old in (path for _, path in found(folder) if path not in kept):
            _remove(old)
    except OSError as error:
        raise UserError(f"cannot write the checkpoint '{final}': {error.strerror or error}") from error
    return final


def found(folder: Path) -> list[tuple[int, Path]]:
    """Steps and folders of the checkpoints under ``folder``, oldest first; their content is not checked."""
    if not folder.is_dir():
        return []
    matches = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir()]
    return sorted((int(match.group(1)), path) for match, path in matches if match)


def newest(folder: Path) -> Path | None:
    """The newest undamaged checkpoint, or ``None`` if there is none at all; warns about each damaged one.

    Raises:
        UserError: there are checkpoints, and all of them are damaged.
    """
    candidates = found(folder)
    for _, path in reversed(candidates):
        damage = check(path)
        if damage is None:
            return path
        warnings.warn(f"checkpoint '{path}' is damaged ({damage}): trying the one before", stacklevel=2)
    if candidates:
        raise UserError(
            f"every checkpoint in '{folder}' is damaged: restore one, or start again with --fresh"
        )
    return None


def check(path: Path) -> str | None:
    """What is wrong with the checkpoint at ``path``, or ``None``; reads and hashes every file."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        files = manifest["files"]
        if manifest["format"] != FORMAT:
            return f"format {manifest['format']}, this program reads format {FORMAT}"
        for name, entry in files.items():
            if Path(name).name != name:
                return f"the manifest names '{name}', which is not a plain file name"
            if (path / name).stat().st_size != entry["bytes"] or _hash(path / name) != entry["sha256"]:
                return f"{name} is not what the manifest says"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "manifest.json is not a manifest"
    return None if "state.json" in files else "the manifest does not name state.json"


def load(path: Path, stems: tuple[str, ...] = ("model", "ema", "optimizer")) -> Checkpoint:
    """Read a checkpoint that :func:`check` found whole; ``stems`` limits which tensors are read."""
    state: Mapping[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
    files = {stem: path / f"{stem}.safetensors" for stem in stems}
    tensors = {stem: load_file(file) for stem, file in files.items() if file.exists()}
    return Checkpoint(state["step"], tensors, dict(state))


def _remove(path: Path) -> None:
    """Remove a checkpoint at once: it loses its name before it loses its files."""
    condemned = path.with_name(f"{_ASIDE}old-{path.name}")
    path.rename(condemned)
    shutil.rmtree(condemned)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
