"""The checker: reads pixels only, observes a film and decides which facts hold of it."""

from unireel.world.checker.observation import Observation, SeenObject
from unireel.world.checker.observe import observe
from unireel.world.checker.verdict import (
    CATEGORIES,
    Verdict,
    agrees,
    check,
    describe,
    scene_facts,
    shows,
    untouched_facts,
)

__all__ = [
    "CATEGORIES",
    "Observation",
    "SeenObject",
    "Verdict",
    "agrees",
    "check",
    "describe",
    "observe",
    "scene_facts",
    "shows",
    "untouched_facts",
]
