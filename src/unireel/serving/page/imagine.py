"""The Imagine tab: films and their descriptions, made together from a prompt by models that can."""

from __future__ import annotations

from unireel.serving.context import Context
from unireel.serving.engine import Engine
from unireel.serving.page import make
from unireel.serving.page.fragments import hint

IMAGINE = make.Kind(
    "imagine",
    "imagine-",
    1,
    hint("A film and its description appear here. They are made together, each reading the other."),
    Engine.imagine,
)


def tab(context: Context) -> make.MakeTab:
    """Build the tab inside the current one."""
    return make.tab(context, IMAGINE)
