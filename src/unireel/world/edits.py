"""Edits: a film, an instruction and the film that it asks for; untouched objects keep places and events.

An edit never leads out of what may be seen: from a scene of the train split to the train split, and never
from one outside the compositional split into it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from unireel.errors import UsageError
from unireel.world.facts import STILL, Fact, Referent, motion_value
from unireel.world.language.names import colours_of, name_of, place_name
from unireel.world.language.phrases import (
    called,
    motions,
    noun_phrase,
    place_phrase,
    scene_random,
    verb_phrase,
)
from unireel.world.sampling import is_placed, place_one, sample_event, visible_on
from unireel.world.scene import BACKGROUNDS, COLOURS, MAX_OBJECTS, SHAPES, SIZES, STYLES, Object, Scene
from unireel.world.splits import split_of

OPERATIONS = ("add", "remove", "recolour", "replace", "resize", "background", "style", "motion")
"""What an edit can do: to an object, to its shape ("replace") or motion, or to the whole film."""

TRIES = 12
"""How often an operation is drawn again until its target is a scene of the World."""


@dataclass(frozen=True)
class Edit:
    """``source`` becomes ``target`` by ``instruction``; ``facts``: what it asks of the target."""

    source: Scene
    instruction: str
    target: Scene
    operation: str
    facts: tuple[Fact, ...]


def edit_for(scene: Scene, operation: str | None, seed: int) -> Edit | None:
    """An edit of ``scene``, the same for the same arguments.

    Args:
        operation: one of :data:`OPERATIONS`; None takes the first possible one of a random order.

    Returns:
        None if ``scene`` allows no such edit: nothing to remove, no room, no other colour that shows.

    Raises:
        UsageError: there is no such operation.
    """
    if operation is not None and operation not in OPERATIONS:
        raise UsageError(f"unknown edit '{operation}'; accepted: {', '.join(OPERATIONS)}")
    random = scene_random(scene, f"edit {operation}", seed)
    wanted = [operation] if operation else random.sample(OPERATIONS, len(OPERATIONS))
    for each in wanted:
        for _ in range(TRIES):
            drawn = _DRAW[each](scene, random)
            if drawn and _valid(scene, drawn.target):
                return Edit(scene, drawn.instruction, drawn.target, each, drawn.facts)
    return None


@dataclass(frozen=True)
class _Draft:
    """An edit that is not yet known to be possible."""

    instruction: str
    target: Scene
    facts: tuple[Fact, ...]


def _valid(source: Scene, target: Scene) -> bool:
    """Whether ``target`` is a scene as the World samples them, and of a split that ``source`` may lead to."""
    for each in target.objects:
        if not all(visible_on(colour, target.background, target.style) for colour in colours_of(each)):
            return False
    before, after = split_of(source), split_of(target)
    if (before == "train" and after != "train") or (before == "test" and after == "compositional"):
        return False
    return is_placed(target)


def _named(
    scene: Scene, random: Random, wanted: Callable[[Object], bool] = lambda figure: True
) -> tuple[int, str] | None:
    """A wanted object that has a name of its own: its index and the name."""
    able = [i for i, each in enumerate(scene.objects) if wanted(each)]
    random.shuffle(able)
    for index in able:
        if name := name_of(scene, index, random):
            return index, name
    return None


def _changed(scene: Scene, index: int, **changes: object) -> Scene:
    """``scene`` with fields of one object replaced."""
    figures = list(scene.objects)
    figures[index] = dataclasses.replace(figures[index], **changes)
    return dataclasses.replace(scene, objects=tuple(figures))


def _free(scene: Scene, figure: Object, but: int | None = None) -> bool:
    """Whether no other object is ever called as ``figure`` is."""
    alike = [each for i, each in enumerate(scene.objects) if i != but and each.shape == figure.shape]
    if scene.style == "grayscale":
        return not alike
    return not any(colours_of(each) & colours_of(figure) for each in alike)


def _add(scene: Scene, random: Random) -> _Draft | None:
    if len(scene.objects) == MAX_OBJECTS:
        return None
    colour = random.choice([each for each in COLOURS if visible_on(each, scene.background, scene.style)])
    event = sample_event(random, scene, colour) if random.random() < 0.4 else None
    size = {"grow": "small", "shrink": "large"}.get(event.action if event else "") or random.choice(SIZES)
    figure = Object(random.choice(SHAPES), colour, size, 0.0, 0.0, (event,) if event else ())
    if not _free(scene, figure):
        return None
    target = place_one(scene, figure, random)
    if target is None:
        return None
    referent = called(figure, scene)
    text = f"{random.choice(('add', 'put in'))} {noun_phrase(referent, size)}"
    facts = [
        Fact("object", referent),
        Fact("size", referent, size),
        Fact("count", Referent(), len(target.objects)),
    ]
    if event:
        text = f"{text} that {verb_phrase(motion_value(event), random.randrange(2))}"
        facts.append(Fact("motion", referent, motion_value(event)))
    elif random.random() < 0.5:
        place = place_name(target.objects[-1].x, target.objects[-1].y, scene.size)
        if place and scene.camera.motion == "still":
            text = f"{text} {place_phrase(place)}"
    return _Draft(text, target, tuple(facts))


def _remove(scene: Scene, random: Random) -> _Draft | None:
    found = _named(scene, random)
    if found is None or len(scene.objects) == 1:
        return None
    index, name = found
    left = tuple(each for number, each in enumerate(scene.objects) if number != index)
    facts = (
        Fact("count", called(scene.objects[index], scene), 0),
        Fact("count", Referent(), len(left)),
    )
    verb = random.choice(("remove", "take away"))
    return _Draft(f"{verb} {name}", dataclasses.replace(scene, objects=left), facts)


def _recolour(scene: Scene, random: Random) -> _Draft | None:
    if scene.style == "grayscale":
        return None
    found = _named(scene, random, lambda figure: len(colours_of(figure)) == 1)
    if found is None:
        return None
    index, name = found
    colour = random.choice([each for each in COLOURS if each != scene.objects[index].colour])
    target = _changed(scene, index, colour=colour)
    if not _free(target, target.objects[index], index):
        return None
    text = random.choice((f"make {name} {colour}", f"change the colour of {name} to {colour}"))
    return _Draft(text, target, (Fact("object", called(target.objects[index], target)),))


def _replace(scene: Scene, random: Random) -> _Draft | None:
    found = _named(scene, random)
    if found is None:
        return None
    index, name = found
    shape = random.choice([each for each in SHAPES if each != scene.objects[index].shape])
    target = _changed(scene, index, shape=shape)
    if not _free(target, target.objects[index], index):
        return None
    new = called(target.objects[index], target)
    text = random.choice(
        (f"turn {name} into {noun_phrase(Referent(shape))}", f"replace {name} with {noun_phrase(new)}")
    )
    return _Draft(text, target, (Fact("object", new), Fact("count", called(scene.objects[index], scene), 0)))


def _resize(scene: Scene, random: Random) -> _Draft | None:
    found = _named(
        scene, random, lambda figure: not any(e.action in ("grow", "shrink") for e in figure.events)
    )
    if found is None:
        return None
    index, name = found
    size = "small" if scene.objects[index].size == "large" else "large"
    target = _changed(scene, index, size=size)
    text = random.choice((f"make {name} {size}", f"change the size of {name} to {size}"))
    return _Draft(text, target, (Fact("size", called(target.objects[index], target), size),))


def _background(scene: Scene, random: Random) -> _Draft | None:
    background = random.choice([each for each in BACKGROUNDS if each != scene.background])
    text = random.choice((f"change the background to {background}", f"make the background {background}"))
    facts = (Fact("background", value=background),)
    return _Draft(text, dataclasses.replace(scene, background=background), facts)


def _style(scene: Scene, random: Random) -> _Draft | None:
    """Another style; not from grayscale, which hides the colours, nor into it where colours tell apart."""
    if scene.style == "grayscale":
        return None
    style = random.choice([each for each in STYLES if each != scene.style])
    turning = any(len(colours_of(each)) > 1 for each in scene.objects)
    shapes = [each.shape for each in scene.objects]
    if style == "grayscale" and (turning or len(set(shapes)) < len({each.name for each in scene.objects})):
        return None
    text = random.choice((f"change the style to {style}", f"make it {style} style"))
    return _Draft(text, dataclasses.replace(scene, style=style), (Fact("style", value=style),))


def _motion(scene: Scene, random: Random) -> _Draft | None:
    found = _named(scene, random)
    if found is None:
        return None
    index, name = found
    figure = scene.objects[index]
    event = None if random.random() < 0.2 else sample_event(random, scene, figure.colour)
    if [motion_value(event)] == motions(figure):
        return None
    if event and {"grow": "small", "shrink": "large"}.get(event.action, figure.size) != figure.size:
        return None
    target = _changed(scene, index, events=(event,) if event else ())
    if not _free(target, target.objects[index], index):
        return None
    deed = verb_phrase(
        motion_value(event) if event else STILL, random.randrange(2) if event else 0, many=True
    )
    text = f"{random.choice(('make', 'let'))} {name} {deed}"
    return _Draft(text, target, (Fact("motion", called(figure, target), motion_value(event)),))


_DRAW: dict[str, Callable[[Scene, Random], _Draft | None]] = {
    "add": _add,
    "remove": _remove,
    "recolour": _recolour,
    "replace": _replace,
    "resize": _resize,
    "background": _background,
    "style": _style,
    "motion": _motion,
}
