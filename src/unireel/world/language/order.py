"""What happens before what, and where things are to each other: a scene's times and tracks in words."""

from __future__ import annotations

from functools import lru_cache

from unireel.world.facts import ORDER_GAP
from unireel.world.language.phrases import Group, groups
from unireel.world.sampling import relation_of
from unireel.world.scene import COLOURS, SHAPES, Object, Scene
from unireel.world.tracks import Track, object_track


@lru_cache(maxsize=512)
def cached_track(scene: Scene, index: int) -> Track:
    """The track of object ``index``; remembered, because several questions ask about the same scene."""
    return object_track(scene.objects[index], scene.camera, scene.frames, scene.size)


def relation_at(scene: Scene, first: int, second: int, frame: int) -> str | None:
    """:func:`unireel.world.sampling.relation` with remembered tracks."""
    return relation_of(cached_track(scene, first), cached_track(scene, second), frame)


def sequential(one: Object, two: Object) -> bool:
    """Whether all that ``one`` does is over before ``two`` begins, two frames or more after ``one`` began."""
    if not one.events or not two.events:
        return False
    start = two.events[0].start
    return one.events[-1].end <= start and one.events[0].start + ORDER_GAP <= start


def by_start(named: list[Group]) -> list[Group]:
    """The moving among ``named``, earliest first."""
    moving = [each for each in named if each.figure.events]
    return sorted(moving, key=lambda each: each.figure.events[0].start)


def in_sequence(one: Group, two: Group) -> bool:
    """Whether a text says of two neighbouring clauses that one happens before the other."""
    return one.single and two.single and sequential(one.figure, two.figure)


def has_sequence(named: list[Group]) -> bool:
    """Whether any moving object follows another."""
    moving = by_start(named)
    return any(map(in_sequence, moving, moving[1:]))


def caption_order(scene: Scene) -> list[Group]:
    """The groups in the order in which captions name them: decided by what can be seen, not by storage.

    Moving before still; moving ones by their start if any follows another; otherwise by shape and colour.
    """
    named = sorted(groups(scene), key=_rank)
    moving = by_start(named) if has_sequence(named) else [each for each in named if each.figure.events]
    return moving + [each for each in named if not each.figure.events]


def _rank(group: Group) -> tuple[int, int]:
    return SHAPES.index(group.figure.shape), tuple(COLOURS).index(group.figure.colour)
