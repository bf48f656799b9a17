"""``unireel evaluate``: measure a model or what it left behind, with confidence intervals."""

from importlib import import_module
from typing import Any

BENCHMARKS = ("worldbench", "videoqa", "vbench", "geneval", "editing", "univid", "omnivideo", "aggregate")
"""The modules beside this one; each has ``add_parser(benchmarks)``."""


def add_parser(subparsers: Any) -> None:
    """Register the command with all its benchmarks."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a model, with confidence intervals",
        description="Measure a model, or films and answers that are already there, with confidence intervals.",
    )
    benchmarks = parser.add_subparsers(
        dest="benchmark", metavar="BENCHMARK", title="benchmarks", required=True
    )
    for name in BENCHMARKS:
        import_module(f"{__name__}.{name}").add_parser(benchmarks)
