"""Stages I, II and III of UniVid (arXiv 2509.24200, section 3.2 and appendix A.3) as the trainer takes them."""

from unireel.systems.univid.stages.full import FullAdaptation, FullAlignment, FullJoint
from unireel.systems.univid.stages.pocket import PocketAdaptation, PocketAlignment, PocketJoint

__all__ = [
    "FullAdaptation",
    "FullAlignment",
    "FullJoint",
    "PocketAdaptation",
    "PocketAlignment",
    "PocketJoint",
]
