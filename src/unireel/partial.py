"""Components that hold only the tensors in which they differ from another model's component.

Such a folder has its whole configuration, one file of weights with what is its own, and :data:`MARKER`, which says what
is taken from where: ``{"component": "transformer", "without": [], "digest": "..."}``. The digest is that of the
taken tensors, so that weights that changed since are an error and not another model. Matrices that differ by one of low
rank have its two factors in the file, ``<name>.up`` (out, rank) and ``<name>.down`` (rank, in), which are added.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from unireel.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

MARKER = "partial.json"
UP, DOWN = ".up", ".down"
ROUNDING = 2.0**-8
"""What is left of a difference beside one of low rank, relative to the matrix, where it is bfloat16's rounding."""

_merged: dict[tuple[object, ...], Path] = {}
_lock = threading.Lock()


def weights_file(folder: Path) -> Path | None:
    """The one file of weights in ``folder``; None if there are none or several."""
    found = list(folder.glob("*.safetensors"))
    return found[0] if len(found) == 1 else None


def write_partial(folder: Path, base: Path, name: str, rank: int = 0) -> bool:
    """Take out of the component in ``folder``, in place, what the one in ``base`` has too.

    Args:
        name: of the component in ``base``'s model.
        rank: matrices that differ by one of at most this rank, but for rounding, are kept as its factors.

    Returns:
        Whether anything was taken out.
    """
    from safetensors.torch import load_file, save_file

    own, other = weights_file(folder), weights_file(base)
    if own is None or other is None or (folder / MARKER).exists():
        return False
    tensors, known = load_file(own), load_file(other)
    kept: dict[str, Tensor] = {}
    for key, each in tensors.items():
        if key not in known or not _equal(each, known[key]):
            kept |= _factors(key, each, known.get(key), rank) or {key: each}
    taken = known.keys() & tensors.keys() - kept.keys()
    if not taken:
        return False
    save_file(kept, own, {"format": "pt"})
    marker = {
        "component": name,
        "without": sorted(known.keys() - tensors.keys()),
        "digest": _digest({key: known[key] for key in taken}),
    }
    (folder / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    return True


def merged(folder: Path, model: Path) -> Path:
    """A folder with the whole component of which ``folder`` holds a part; the rest is from the model in ``model``.

    It is a temporary folder of this process, made once and removed when the process ends.

    Raises:
        UserError: the marker cannot be read, or what is taken is missing or no longer what it was.
    """
    from safetensors.torch import load_file, save_file

    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        name, without, digest = (marker[key] for key in ("component", "without", "digest"))
        base, own = model / str(name), weights_file(folder)
        other = weights_file(base)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{folder / MARKER}' cannot be read: {error!r}") from None
    if own is None or other is None or base.resolve().parent != model.resolve():
        raise UserError(f"'{folder}' holds a part of its weights, and the rest is not in '{base}'")
    key = (os.getpid(), *((str(each.resolve()), each.stat().st_mtime_ns) for each in (own, other)))
    with _lock:
        if key in _merged and _merged[key].is_dir():
            return _merged[key]
        tensors, known = load_file(own), load_file(other)
        taken = {k: each for k, each in known.items() if k not in tensors and k not in without}
        if _digest(taken) != digest:
            raise UserError(
                f"'{folder}' was written beside other weights than those in '{base}': train it again from "
                "these, and write it with python -m unireel.sharing"
            )
        whole = Path(tempfile.mkdtemp(prefix="unireel-"))
        atexit.register(_remove, whole, os.getpid())
        for each in folder.iterdir():
            if each.is_file() and each not in (own, folder / MARKER):
                shutil.copyfile(each, whole / each.name)
        save_file(_sums(taken, tensors), whole / own.name, {"format": "pt"})
        _merged[key] = whole
        return whole


def _equal(one: Tensor, two: Tensor) -> bool:
    return one.dtype == two.dtype and one.shape == two.shape and bool((one == two).all())


def _factors(name: str, one: Tensor, two: Tensor | None, rank: int) -> dict[str, Tensor] | None:
    """The two factors of ``one`` - ``two`` by name, if these are matrices and that is what tells them apart."""
    import torch

    if not rank or two is None or one.ndim != 2 or one.shape != two.shape or rank >= min(one.shape) // 2:
        return None
    left, values, right = torch.linalg.svd(one.float() - two.float(), full_matrices=False)
    rounding = ROUNDING * one.float().norm()
    least = next((r for r in range(1, rank + 1) if values[r:].norm() <= rounding), None)
    if least is None:
        return None
    share = values[:least].sqrt()
    up, down = left[:, :least] * share, share[:, None] * right[:least]
    return {name + UP: up.to(one.dtype).contiguous(), name + DOWN: down.to(one.dtype).contiguous()}


def _sums(taken: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """All tensors, with the products of factors added to what they belong to, in float32."""
    tensors = taken | own
    for name in [each.removesuffix(UP) for each in own if each.endswith(UP)]:
        if name in taken and name + DOWN in own:
            up, down = tensors.pop(name + UP).float(), tensors.pop(name + DOWN).float()
            tensors[name] = taken[name].float() + up @ down
    return tensors


def _digest(tensors: dict[str, Tensor]) -> str:
    """Of names, kinds and bits of tensors, in the order of their names."""
    import torch

    whole = hashlib.sha256()
    for name in sorted(tensors):
        each = tensors[name].contiguous()
        whole.update(f"{name} {each.dtype} {tuple(each.shape)}".encode())
        whole.update(each.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()[:16]


def _remove(folder: Path, process: int) -> None:
    """Remove ``folder``, unless this is a child of the process that made it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
