"""The state of every global random generator as plain data, and back."""

# ruff: noqa: NPY002 - the legacy generator is global: whatever a stage draws from it must be restored

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """States of the generators of Python, numpy, torch and a CUDA ``device``, as data that JSON can hold."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "numpy": [name, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "torch": _hex(torch.get_rng_state()),
    }
    if device.type == "cuda":
        state["cuda"] = _hex(torch.cuda.get_rng_state(device))
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore what :func:`random_state` gave; a CUDA state is used only where ``device`` is one."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_bytes(state["torch"]))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(_bytes(state["cuda"]), device)


@contextlib.contextmanager
def borrowed(seed: int, device: torch.device) -> Iterator[None]:
    """Generators seeded with ``seed`` inside; afterwards they go on as if nothing had been drawn."""
    state = random_state(device)
    seed_all(seed)
    try:
        yield
    finally:
        set_random_state(state, device)


def _hex(tensor: torch.Tensor) -> str:
    return tensor.numpy().tobytes().hex()


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
