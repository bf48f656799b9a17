"""Observations: what the checker saw in a film, and which facts hold of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unireel.world.checker.background import CameraPath
from unireel.world.checker.motion import Motion
from unireel.world.facts import STILL, Fact, Referent
from unireel.world.scene import CLIP_FRAMES


@dataclass(frozen=True, eq=False)
class SeenObject:
    """One object as the film shows it.

    ``shape`` ("other" if it is none of the World's, or not the same throughout); ``colour`` when first visible (None in
    grayscale); ``size`` when first visible. Arrays over all F frames: ``x``, ``y`` centre and ``radius`` on the screen
    in pixels (nan where unseen), ``visible`` (bool), ``colours`` (index into
    :data:`unireel.world.tracks.COLOUR_NAMES`, -1 where unknown). ``events`` in the order of their starts. ``misfit``:
    share of the figure that its shape does not explain.
    """

    shape: str
    colour: str | None
    size: str
    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    visible: np.ndarray
    colours: np.ndarray
    events: tuple[Motion, ...]
    misfit: float

    @property
    def motions(self) -> list[str]:
        """The values of its events, or "still"."""
        return [event.value for event in self.events] or [STILL]

    def is_meant(self, referent: Referent | None) -> bool:
        """Whether this is one of the objects that ``referent`` names; everything is by None."""
        wanted = vars(referent).items() if referent else ()
        return all(want is None or want == getattr(self, name) for name, want in wanted)

    def __str__(self) -> str:
        name = " ".join(filter(None, (self.size, self.colour, self.shape)))
        return f"{name}: {', '.join(self.motions)}"


@dataclass(frozen=True, eq=False)
class Observation:
    """What a film shows.

    ``background``, ``style`` and ``camera.motion`` are names of the World. ``unexplained``: share of the pixels that
    nothing explains. ``plausible``: whether the film looks like the World at all.
    """

    background: str
    style: str
    camera: CameraPath
    objects: tuple[SeenObject, ...]
    unexplained: float
    plausible: bool

    def meant(self, referent: Referent | None) -> list[SeenObject]:
        """The objects that ``referent`` names."""
        return [each for each in self.objects if each.is_meant(referent)]

    def holds(self, fact: Fact) -> bool:
        """Whether ``fact`` is true of the film. Colours cannot hold in grayscale, where nobody can see them."""
        subjects = self.meant(fact.subject)
        match fact.kind:
            case "count":
                return len(subjects) == fact.value
            case "object":
                return bool(subjects)
            case "size":
                return bool(subjects) and all(each.size == fact.value for each in subjects)
            case "motion":
                return bool(subjects) and all(self._does(each, str(fact.value)) for each in subjects)
            case "background" | "style":
                return getattr(self, fact.kind) == fact.value
            case "camera":
                return self.camera.motion == fact.value
        others = self.meant(fact.other)
        if len(subjects) != 1 or len(others) != 1:
            return False
        if fact.kind == "relation":
            return seen_relation(subjects[0], others[0], 0 if fact.when == "first" else -1) == fact.value
        if fact.kind == "order":
            one, two = subjects[0].events, others[0].events
            return bool(one) and bool(two) and one[0].start < two[0].start
        raise ValueError(f"unknown kind of fact: {fact.kind}")

    def _does(self, each: SeenObject, value: str) -> bool:
        """Whether an object does ``value``: in a clip that alone, in a longer film among other things."""
        return value in each.motions if len(each.x) > CLIP_FRAMES else each.motions == [value]

    def __str__(self) -> str:
        head = f"{self.style} film, {self.background} background, camera {self.camera.motion}"
        return "; ".join([head, *map(str, self.objects)])


def seen_relation(one: SeenObject, two: SeenObject, frame: int) -> str | None:
    """How ``one`` lies to ``two`` on the screen at ``frame``; None if unseen or not clear.

    Slightly wider than :func:`unireel.world.sampling.relation` (offset along one axis at least 1.7 times that along
    the other instead of 2), so that a tenth of a pixel does not decide about a film.
    """
    if not (one.visible[frame] and two.visible[frame]):
        return None
    dx, dy = one.x[frame] - two.x[frame], one.y[frame] - two.y[frame]
    if max(abs(dx), abs(dy)) < 0.45 * (one.radius[frame] + two.radius[frame]):
        return None
    if abs(dx) >= 1.7 * abs(dy):
        return "left of" if dx < 0 else "right of"
    if abs(dy) >= 1.7 * abs(dx):
        return "above" if dy < 0 else "below"
    return None
