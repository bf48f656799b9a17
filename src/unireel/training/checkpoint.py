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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
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
    final = folder_of(folder, checkpoint.step)
    aside = aside_of(final)
    if problem := make_aside(aside):
        raise UserError(problem)
    try:
        for stem, tensors in checkpoint.tensors.items():
            contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
            save_file(contiguous, aside / f"{stem}.safetensors")
        finish(aside, final, checkpoint.state, describe(aside.iterdir()), keep_last)
    except OSError as error:
        raise UserError(f"cannot write the checkpoint '{final}': {error.strerror or error}") from error
    return final


def folder_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"step-{step:08d}"


def aside_of(final: Path) -> Path:
    """Where a checkpoint is while it is being written."""
    return final.with_name(f"{_ASIDE}{final.name}")


def make_aside(aside: Path) -> str | None:
    """Make the folder of :func:`aside_of`, and remove what others left that were never finished; what was wrong."""
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        for stale in aside.parent.glob(f"{_ASIDE}*"):
            shutil.rmtree(stale)
        aside.mkdir()
    except OSError as error:
        return f"cannot write the checkpoint '{aside}': {error.strerror or error}"
    return None


def describe(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of files, by name, as manifests have them; the files are on the disk afterwards."""
    described = {}
    for path in sorted(paths):
        _flush(path)
        described[path.name] = {"bytes": path.stat().st_size, "sha256": _hash(path)}
    return described


def finish(
    aside: Path, final: Path, state: Mapping[str, Any], files: Mapping[str, Any], keep_last: int
) -> None:
    """Give a checkpoint whose ``files`` are written aside its state, its manifest and its name; drop old ones."""
    (aside / "state.json").write_text(json.dumps(state), encoding="utf-8")
    described = {**files, **describe([aside / "state.json"])}
    manifest = {"format": FORMAT, "step": state["step"], "files": described}
    (aside / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in (aside / "manifest.json", aside):
        _flush(path)
    if final.is_dir():
        # The same step again, for example after a resume beside a damaged copy: the newer one counts.
        _remove(final)
    aside.rename(final)
    folder = final.parent
    _flush(folder)
    # A later step can only be a damaged one that this run was resumed from before.
    kept = [path for step, path in found(folder) if step <= state["step"]][-keep_last:]
    for old in (path for _, path in found(folder) if path not in kept):
        _remove(old)


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
    """Read a checkpoint that :func:`check` found whole; ``stems`` limits which tensors are read.

    Shards (:mod:`unireel.training.sharded`) are put together.
    """
    state: Mapping[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
    if stems and is_sharded(path):
        return Checkpoint(state["step"], _put_together(path, stems), dict(state))
    files = {stem: path / f"{stem}.safetensors" for stem in stems}
    tensors = {stem: load_file(file) for stem, file in files.items() if file.exists()}
    return Checkpoint(state["step"], tensors, dict(state))


def is_sharded(path: Path) -> bool:
    """Whether the checkpoint at ``path`` is one of shards."""
    return any(path.glob("shard-*.safetensors"))


def shards_of(path: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Full shapes and types of the tensors in a checkpoint of shards, by ``stem/name``."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    found = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    tensors = {name: each for name, each in found.items() if isinstance(each, TensorStorageMetadata)}
    return {name: (each.size, each.properties.dtype) for name, each in tensors.items()}


def read_shards(path: Path, tensors: dict[str, Tensor], alone: bool) -> None:
    """Fill ``tensors``, whole or ``DTensor`` of any layout, from a checkpoint of shards.

    ``alone`` reads without the other processes; else all of them call it, and each reads its own parts.
    """
    from torch.distributed.checkpoint import HuggingFaceStorageReader, load

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch\.distributed\.")  # notes for its own developers
        load(tensors, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=alone)


def _put_together(path: Path, stems: tuple[str, ...]) -> dict[str, dict[str, Tensor]]:
    flat = {
        name: torch.empty(size, dtype=dtype)
        for name, (size, dtype) in shards_of(path).items()
        if name.partition("/")[0] in stems
    }
    read_shards(path, flat, alone=True)
    found: dict[str, dict[str, Tensor]] = {stem: {} for stem in stems}
    for key, tensor in flat.items():
        stem, _, name = key.partition("/")
        found[stem][name] = tensor
    return found


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
