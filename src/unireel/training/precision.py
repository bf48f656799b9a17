"""Which number format the forward pass runs in."""

import contextlib
from pathlib import Path
from typing import Literal

import torch

from unireel.errors import UsageError


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products are faster than float32 on ``device``."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        return processor_has_fast_bf16(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return False


def processor_has_fast_bf16(cpuinfo: str) -> bool:
    """The same of a processor, by the text of ``/proc/cpuinfo``.

    AMX makes products three to four times float32's rate, AMD's ``avx512_bf16`` twice, Intel's half (84 against 150
    GFLOP/s a core were measured); without instructions they are emulated, at a fifth.
    """
    words = cpuinfo.split()
    return "amx_bf16" in words or ("avx512_bf16" in words and "AuthenticAMD" in words)


def resolve(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> Literal["fp32", "bf16"]:
    """``auto`` becomes bf16 where it is fast, else fp32.

    Raises:
        UsageError: bf16 on a CUDA device that lacks it.
    """
    if precision == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    if precision == "bf16" and device.type == "cuda" and not has_fast_bf16(device):
        raise UsageError("'precision' is bf16, which this CUDA device does not have: use precision=fp32")
    return precision


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """The context of the forward pass; float32 needs none."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
