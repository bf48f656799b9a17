"""The sixteen dimensions of VBench with the constants of its leaderboard."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dimension:
    """A dimension: raw scores (0 to 1) from ``low`` to ``high`` are stretched to 0 to 1 and count ``weight`` times.

    Raw scores outside give normalised ones outside: the leaderboard does not clamp. ``folder`` is where the films of
    its prompts lie: dimensions that are measured on the same films share one.
    """

    name: str
    low: float
    high: float
    weight: float
    folder: str

    def normalised(self, raw: float) -> float:
        """``raw`` on the leaderboard's scale."""
        return (raw - self.low) / (self.high - self.low)


QUALITY = (
    Dimension("subject_consistency", 0.1462, 1.0, 1.0, "subject_consistency"),
    Dimension("background_consistency", 0.2615, 1.0, 1.0, "scene"),
    Dimension("temporal_flickering", 0.6293, 1.0, 1.0, "temporal_flickering"),
    Dimension("motion_smoothness", 0.706, 0.9975, 1.0, "subject_consistency"),
    Dimension("dynamic_degree", 0.0, 1.0, 0.5, "subject_consistency"),
    Dimension("aesthetic_quality", 0.0, 1.0, 1.0, "overall_consistency"),
    Dimension("imaging_quality", 0.0, 1.0, 1.0, "overall_consistency"),
)
SEMANTIC = (
    Dimension("object_class", 0.0, 1.0, 1.0, "object_class"),
    Dimension("multiple_objects", 0.0, 1.0, 1.0, "multiple_objects"),
    Dimension("human_action", 0.0, 1.0, 1.0, "human_action"),
    Dimension("color", 0.0, 1.0, 1.0, "color"),
    Dimension("spatial_relationship", 0.0, 1.0, 1.0, "spatial_relationship"),
    Dimension("scene", 0.0, 0.8222, 1.0, "scene"),
    Dimension("appearance_style", 0.0009, 0.2855, 1.0, "appearance_style"),
    Dimension("temporal_style", 0.0, 0.364, 1.0, "temporal_style"),
    Dimension("overall_consistency", 0.0, 0.364, 1.0, "overall_consistency"),
)
DIMENSIONS = {each.name: each for each in (*QUALITY, *SEMANTIC)}
QUALITY_SHARE, SEMANTIC_SHARE = 4, 1
"""Weights of the two groups in the total."""

LOCAL = ("temporal_flickering",)
"""What this program computes itself; all other dimensions need networks that come with VBench."""
