"""Unireel: one model that makes, edits and understands video.

Names are resolved on first use (PEP 562), so that ``import unireel`` costs milliseconds and loads no tensor library.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from unireel.errors import UserError
from unireel.version import VERSION as __version__

if TYPE_CHECKING:
    from unireel.clip import Clip
    from unireel.hub import load

__all__ = ["Clip", "UserError", "__version__", "load"]

_HOMES = {"Clip": "unireel.clip", "load": "unireel.hub"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'unireel' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
