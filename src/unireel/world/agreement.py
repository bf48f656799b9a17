"""Agreement: how often the checker accepts what is true of a film and rejects what is not, per category.

The two figures that stand beside every score the checker gives. True statements are those of the film's scene;
counterfactual ones are the same statements with one attribute changed so that they are false of the scene.
"""

# NumPy's scalar and array types are too loose for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import argparse
import dataclasses
import io
import json
from collections import defaultdict
from dataclasses import dataclass
from random import Random

import av
import numpy as np
from scipy import ndimage

from unireel.clip import Clip
from unireel.errors import UsageError
from unireel.world.checker import CATEGORIES, Observation, observe, scene_facts, shows
from unireel.world.facts import STILL, Fact, holds_in
from unireel.world.render import render
from unireel.world.sampling import CATEGORIES as SCENE_CATEGORIES
from unireel.world.sampling import MIXTURE, sample_scene
from unireel.world.scene import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    DIRECTIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    STYLES,
    TURNS,
    Scene,
)
from unireel.world.splits import SPLITS

CORRUPTIONS = ("none", "blur", "noise", "h264", "all")
"""What is done to a film before it is checked: Gaussian blur of 0.6 pixels; noise of 5 of 255; H.264 (yuv420p) at a
constant rate factor of 20; all of them together, each milder (0.5 pixels, 3 of 255, factor 18)."""

MOTION_VALUES = (
    STILL,
    *(f"move {each}" for each in DIRECTIONS),
    *(f"circle {each}" for each in TURNS),
    *(f"{action} {count}" for action in ("jump", "blink") for count in (1, 2, 3)),
    *(f"turn {each}" for each in COLOURS),
    "shake",
    "grow",
    "shrink",
    "appear",
    "disappear",
)


@dataclass(frozen=True)
class Tally:
    """Of ``trues`` true statements ``accepted`` were accepted; of ``falses`` false ones ``rejected`` were rejected."""

    trues: int = 0
    accepted: int = 0
    falses: int = 0
    rejected: int = 0

    @property
    def agreement(self) -> float:
        """Share of true statements that were accepted; nan if there were none."""
        return self.accepted / self.trues if self.trues else float("nan")

    @property
    def rejection(self) -> float:
        """Share of false statements that were rejected; nan if there were none."""
        return self.rejected / self.falses if self.falses else float("nan")


def corrupt(clip: Clip, corruption: str, seed: int = 0) -> Clip:
    """``clip`` with one of :data:`CORRUPTIONS`; the noise belongs to ``seed``.

    Raises:
        UsageError: unknown corruption.
    """
    if corruption not in CORRUPTIONS:
        raise UsageError(f"unknown corruption '{corruption}'; accepted: {', '.join(CORRUPTIONS)}")
    frames = clip.frames.astype(np.float32)
    mild = corruption == "all"
    if mild or corruption == "blur":
        frames = ndimage.gaussian_filter(frames, (0, 0.5 if mild else 0.6, 0.5 if mild else 0.6, 0))
    if mild or corruption == "noise":
        noise = np.random.default_rng(seed).standard_normal(frames.shape, dtype=np.float32)
        frames = frames + (3 if mild else 5) * noise
    result = Clip(np.clip(np.rint(frames), 0, 255).astype(np.uint8), clip.fps)
    return _through_h264(result, 18 if mild else 20) if mild or corruption == "h264" else result


def _through_h264(clip: Clip, crf: int) -> Clip:
    """``clip`` encoded as H.264 (yuv420p) in memory and decoded again."""
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=round(clip.fps), options={"crf": str(crf), "threads": "1"}
        )
        stream.height, stream.width = clip.frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in clip.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    memory.seek(0)
    with av.open(memory) as container:
        return Clip(
            np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), clip.fps
        )


def false_fact(fact: Fact, category: str, scene: Scene, random: Random) -> Fact | None:
    """``fact`` with one attribute changed so that it is false of ``scene``; None if nothing false was found."""
    for _ in range(20):
        changed = _changed(fact, category, random)
        if not holds_in(scene, changed):
            return changed
    return None


def _changed(fact: Fact, category: str, random: Random) -> Fact:
    """``fact`` with another value of the attribute that ``category`` is about."""
    match category:
        case "shape":
            return dataclasses.replace(
                fact, subject=dataclasses.replace(fact.subject, shape=random.choice(SHAPES))
            )
        case "colour":
            return dataclasses.replace(
                fact, subject=dataclasses.replace(fact.subject, colour=random.choice([*COLOURS]))
            )
        case "order":
            return dataclasses.replace(fact, subject=fact.other, other=fact.subject)
        case "count":
            return dataclasses.replace(fact, value=random.choice((1, 2, 3, 4, 5)))
    if category.startswith("motion"):
        value = str(fact.value)
        near = [each for each in MOTION_VALUES if each.split()[0] == value.split()[0] and each != value]
        return dataclasses.replace(
            fact, value=random.choice(near if near and random.random() < 0.5 else MOTION_VALUES)
        )
    choices = {
        "size": SIZES,
        "background": tuple(BACKGROUNDS),
        "camera": CAMERAS,
        "style": STYLES,
        "relation": RELATIONS,
    }[category]
    return dataclasses.replace(fact, value=random.choice(choices))


def false_scene(scene: Scene, random: Random) -> Scene:
    """``scene`` with one attribute of one object changed, or one object left out."""
    number = random.randrange(len(scene.objects))
    figure = scene.objects[number]
    kind = random.choice(("shape", "size", "colour", "missing"))
    if kind == "missing" and len(scene.objects) > 1:
        return dataclasses.replace(scene, objects=scene.objects[:number] + scene.objects[number + 1 :])
    if kind == "size" and not {event.action for event in figure.events} & {"grow", "shrink"}:
        changed = dataclasses.replace(figure, size="small" if figure.size == "large" else "large")
    elif kind == "colour" and scene.style != "grayscale":
        changed = dataclasses.replace(
            figure, colour=random.choice([c for c in COLOURS if c != figure.colour])
        )
    else:
        changed = dataclasses.replace(figure, shape=random.choice([s for s in SHAPES if s != figure.shape]))
    return dataclasses.replace(
        scene, objects=(*scene.objects[:number], changed, *scene.objects[number + 1 :])
    )


def judge(observation: Observation, scene: Scene, random: Random) -> list[tuple[str, bool, bool]]:
    """All statements about one film: (category, whether true, whether the checker accepted it)."""
    results = [
        ("objects", True, shows(observation, scene)),
        ("objects", False, shows(observation, false_scene(scene, random))),
    ]
    for category, fact in scene_facts(scene):
        results.append((category, True, observation.holds(fact)))
        wrong = false_fact(fact, category, scene, random)
        if wrong is not None:
            results.append((category, False, observation.holds(wrong)))
    return results


def measure(
    n: int, size: int = 48, seed: int = 0, corruption: str = "none", split: str = "test"
) -> dict[str, Tally]:
    """Check ``n`` films, half of the mixture and half of WorldBench's categories in turn.

    Args:
        n: number of films.
        size: canvas side in pixels (64, 48 or 32).
        seed: of the scenes, the noise and the counterfactual changes.
        corruption: one of :data:`CORRUPTIONS`.
        split: one of the World's splits.

    Returns:
        A tally for every category of statements that occurred.
    """
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for index in range(n):
        kind = MIXTURE if index % 2 == 0 else SCENE_CATEGORIES[index // 2 % len(SCENE_CATEGORIES)]
        scene = sample_scene(seed, index, split, kind, size)
        observation = observe(corrupt(render(scene), corruption, seed * 1_000_003 + index))
        for category, true, accepted in judge(observation, scene, Random(f"{seed}/{index}")):
            row = counts[category]
            row[0 if true else 2] += 1
            row[1 if true else 3] += accepted if true else not accepted
    return {category: Tally(*counts[category]) for category in CATEGORIES if category in counts}


def quick_figures(n: int = 100, size: int = 48, seed: int = 0, corruption: str = "all") -> dict[str, float]:
    """The checker's two figures over all categories: {"agreement", "rejection", "n"}, in about n / 30 seconds."""
    tallies = measure(n, size, seed, corruption).values()
    return {
        "agreement": sum(t.accepted for t in tallies) / sum(t.trues for t in tallies),
        "rejection": sum(t.rejected for t in tallies) / sum(t.falses for t in tallies),
        "n": n,
    }


def table(tallies: dict[str, Tally], corruption: str) -> str:
    """The tallies of one corruption as text, one category a line."""
    lines = [f"{corruption:22s} {'agreement':>10s} {'of':>6s} {'rejection':>10s} {'of':>6s}"]
    for category, tally in tallies.items():
        lines.append(
            f"{category:22s} {100 * tally.agreement:9.2f}% {tally.trues:6d}"
            f" {100 * tally.rejection:9.2f}% {tally.falses:6d}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print the checker's agreement and rejection."""
    parser = argparse.ArgumentParser(prog="python -m unireel.world.agreement", description=main.__doc__)
    parser.add_argument("--n", type=int, default=500, help="films for each corruption")
    parser.add_argument("--size", type=int, default=48, choices=(32, 48, 64), help="canvas side in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument(
        "--corruption", choices=CORRUPTIONS, action="append", help="may be repeated; default all"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    found = {}
    for corruption in options.corruption or CORRUPTIONS:
        found[corruption] = measure(options.n, options.size, options.seed, corruption, options.split)
        if not options.json:
            print(table(found[corruption], corruption), flush=True)
    if options.json:
        flat = {c: {k: dataclasses.asdict(t) for k, t in tallies.items()} for c, tallies in found.items()}
        print(json.dumps(flat))


if __name__ == "__main__":
    main()
