"""Tensors out of other people's pickles, without running what else is in them."""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._utils import _rebuild_tensor_v2

from unireel.errors import UserError

_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""What ``torch.save`` began its files with before they were zip archives."""


def _storage(content: bytes) -> Any:
    """A storage inside a plain pickle, by PyTorch's restricted reader."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


_ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    ("torch.storage", "_load_from_bytes"): _storage,
}


class _Restricted(pickle.Unpickler):
    """Knows tensors and plain containers; the name of anything else is an error, before anything is called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which no weights need")
        return _ALLOWED[module, name]


def read_pickle(path: str | Path) -> Any:
    """The content of a file by ``torch.save`` (either format; mapped, not read) or by ``pickle.dump``.

    Only tensors, numbers, text and plain containers are read; nothing in the file is run.

    Raises:
        UserError: the file does not exist, is damaged, or holds something else.
    """
    path = Path(path)
    try:
        if zipfile.is_zipfile(path):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        with path.open("rb") as file:
            content = _Restricted(file).load()
        if content == _TORCH_MAGIC:
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no file '{path}'") from None
    except (
        OSError,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        IndexError,
        KeyError,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"'{path}' cannot be read as weights: {reason}") from error
    return content


def read_tensors(path: str | Path, *wrappers: str) -> dict[str, Tensor]:
    """A flat map of names to tensors from a pickle, taken out of the first of ``wrappers`` that is a key of it.

    Names lose a leading ``module.``, which data-parallel training leaves.

    Raises:
        UserError: see :func:`read_pickle`, or the content is something else.
    """
    content = read_pickle(path)
    if isinstance(content, dict):
        content = next((content[key] for key in wrappers if isinstance(content.get(key), dict)), content)
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(v, Tensor) for v in content.values())
    ):
        raise UserError(f"'{path}' holds no map of names to tensors")
    return {str(name).removeprefix("module."): value for name, value in content.items()}
