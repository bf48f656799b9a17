"""What a running forward shares with its blocks and their attention, beyond diffusers' arguments."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unireel.backbones.fast.text import Context, ContextCache
from unireel.backbones.fast.times import Runs


@dataclass(eq=False)
class Call:
    """Of one model; filled anew by every forward.

    ``plain`` says that diffusers' own forward is running, unchanged.
    """

    plain: bool = True
    runs: Runs = ()
    context: Context | None = None
    dtype: torch.dtype = torch.float32
    contexts: ContextCache = field(default_factory=ContextCache)
    turns: dict[tuple, Tensor] = field(default_factory=dict)


def has_hooks(module: nn.Module) -> bool:
    """Whether something was put around the module's forward: torch's hooks, diffusers', or another function."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def is_plain(module: nn.Module | None, *kinds: type[nn.Module]) -> bool:
    """Whether the module is exactly of one of ``kinds`` (no adapter, no quantised layer) and has no hooks."""
    return type(module) in kinds and not has_hooks(module)  # type: ignore[arg-type]
