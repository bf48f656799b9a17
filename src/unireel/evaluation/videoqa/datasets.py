"""What is particular to each benchmark: names of the types of questions, groups of them, names of video files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Dataset:
    """Attributes:
    metric: what the benchmark's own papers report without a judge.
    kinds: names of the types of questions, by what stands in the file.
    groups: further figures, each over several types.
    mean_of_types: the name of a further figure, the unweighted mean of the types' scores, where it is the official one.
    video: the name of a video's file (without suffix), ``{}`` standing for what the annotation calls the video.
    """

    metric: str = "exact"
    kinds: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mean_of_types: str = ""
    video: str = "{}"


_ACTIVITYNET = ("motion", "spatial", "temporal", "yes-no", "color", "object", "location", "number", "other")

DATASETS = {
    "any": Dataset(),
    "activitynet-qa": Dataset(
        kinds={str(number): name for number, name in enumerate(_ACTIVITYNET)},
        groups={"free": _ACTIVITYNET[3:]},
        video="v_{}",
    ),
    "msvd-qa": Dataset(),
    "msrvtt-qa": Dataset(video="video{}"),
    "tgif-frameqa": Dataset(kinds={"0": "object", "1": "number", "2": "color", "3": "location"}),
    "tgif-count": Dataset(metric="l2"),
    "tgif-action": Dataset(metric="choice"),
    "tgif-transition": Dataset(metric="choice"),
    "next-oe": Dataset(metric="wups"),
    "videomme": Dataset(metric="choice"),
    "mvbench": Dataset(metric="choice"),
    "mlvu": Dataset(metric="choice", mean_of_types="m-avg"),
}
"""``any`` takes every format and names types as the file does."""
