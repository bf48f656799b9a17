"""Plans: a film in words, with all that is needed to draw it.

A prompt leaves open where objects lie, how far they move and when; a generator has to settle all that from noise. Large
systems therefore train on detailed captions (DALL-E 3) and have a language model extend what people write in the same
manner (Wan, arXiv 2503.20314). A plan is what the pocket's language model writes::

    plain style, sand background, camera still. large red ring at three seven moves left to zero seven from two to nine.

Each object has a clause of its own. Numbers are tenths: of the canvas for places (x, then y), of the film for times.
What lasts up to two frames has one time: "turns green at five".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from unireel.errors import UsageError
from unireel.world.facts import Fact, holds_in, motion_value
from unireel.world.language.order import caption_order
from unireel.world.language.parser import MOTIONS
from unireel.world.language.phrases import called, plural, verb_phrase
from unireel.world.language.vocabulary import words
from unireel.world.sampling import is_placed
from unireel.world.scene import (
    BACKGROUNDS,
    CAMERAS,
    CLIP_FRAMES,
    COLOURS,
    SHAPES,
    SIZES,
    STYLES,
    VECTORS,
    Camera,
    Event,
    Object,
    Scene,
)

TENTHS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PLAN_WORDS = 74
"""The most words and marks of a plan of a clip: four objects that all move, and a camera that does."""

_MOMENT = 2
_AMOUNTS = {"circle": 8 / 64, "jump": 11 / 64, "shake": 3 / 64}
"""Orbit radius, height and swing that a plan leaves out, in canvas sides."""
_ZOOMS = {"zooms in": 1.3, "zooms out": 0.75}
_PAN = 12 / 64

_APPEARS = verb_phrase("appear")

_any = "|".join
_number = f"(?:{_any(TENTHS)})"
_FILM = re.compile(rf"({_any(STYLES)}) style , ({_any(BACKGROUNDS)}) background , camera ({_any(CAMERAS)})")
_OBJECT = re.compile(
    rf"(?:({_any(SIZES)}) )?({_any(COLOURS)}) ({_any(SHAPES)})(?: at ({_number}) ({_number}))? (.+)"
)
_EVENT = re.compile(
    rf"(.+?)(?: for ({_number})| to ({_number}) ({_number}))?(?: at ({_number})| from ({_number}) to ({_number}))"
)
_SIZE = re.compile(rf"^(?:{_any(SIZES)}) (?=(?:{_any(COLOURS)}) )")
_AT = re.compile(rf"({_any(SHAPES)}) at ({_number}) ({_number})")
_TO = re.compile(rf" to ({_number}) ({_number})(?= from)")


def tenth(value: float, whole: float) -> int:
    """``value`` in tenths of ``whole``, from 0 to 10."""
    return min(max(round(10 * value / whole), 0), 10)


def plan_for(scene: Scene, order: Sequence[int] | None = None) -> str:
    """The plan of ``scene``, its objects in the given order."""
    film = f"{scene.style} style, {scene.background} background, camera {scene.camera.motion}"
    order = range(len(scene.objects)) if order is None else order
    return ". ".join([film, *(_clause(scene.objects[number], scene) for number in order)]) + "."


def in_order_of_mention(scene: Scene, prompt: str) -> list[int]:
    """The numbers of the objects of ``scene`` in the order in which ``prompt`` first names them."""
    said = words(prompt)

    def mentioned(figure: Object) -> int:
        colour = called(figure, scene).colour
        nouns = (figure.shape, plural(figure.shape))
        return next(
            (i for i, word in enumerate(said) if word in nouns and (not colour or said[i - 1] == colour)),
            len(said),
        )

    return sorted(range(len(scene.objects)), key=lambda number: mentioned(scene.objects[number]))


def plan_numbers(figure: Object, scene: Scene) -> tuple[float, ...]:
    """An object's numbers in a plan, in tenths: first and last place (x, y, x, y), start and end of its first event.

    Times are 0 for an object that does nothing.
    """
    side, last = scene.size - 1, scene.frames - 1
    times = (figure.events[0].start, figure.events[0].end) if figure.events else (0, 0)
    x, y = figure.x, figure.y
    for event in figure.events:
        x, y = _moved(event, x, y)
    return (*(10 * each / side for each in (figure.x, figure.y, x, y)), *(10 * each / last for each in times))


def beyond_first_frame(plan: str) -> str:
    """``plan`` without what a given first frame shows: places and sizes. Moves have a distance instead ("for four").

    What appears later is not shown and keeps both.
    """
    clauses = []
    for clause in plan.split(". "):
        if f" {_APPEARS} at " in clause:
            clauses.append(clause)
            continue
        clause = _SIZE.sub("", clause)
        at = _AT.search(clause)
        if at:
            place = [TENTHS.index(each) for each in at.group(2, 3)]
            clause = _TO.sub(partial(_distance, place), clause.replace(at[0], at[1]))
        clauses.append(clause)
    return ". ".join(clauses)


class PlanClause(NamedTuple):
    """An object of an edited film's plan: its number in the edited film and in the source (-1 if it is new), and
    whether it is kept as it was."""

    target: int
    source: int
    kept: bool


def clauses_after(source: Scene, target: Scene) -> list[PlanClause]:
    """The objects of ``target``, an edit of ``source``, in the order in which its plan names them.

    First what the edit changes or adds, as the instruction is about it; then the others as captions of ``source`` do.
    """
    clauses, gone = [], 0
    for number, figure in enumerate(target.objects):
        if len(target.objects) < len(source.objects) and figure != source.objects[number + gone]:
            gone = 1
        known = number + gone < len(source.objects)
        kept = known and figure == source.objects[number + gone]
        clauses.append(PlanClause(number, number + gone if known else -1, kept))

    order = [number for group in caption_order(source) for number in group.indices]
    return sorted(clauses, key=lambda clause: order.index(clause.source) if clause.kept else -1)


def plan_after(source: Scene, target: Scene) -> str:
    """The plan of ``target``, an edit of ``source``, in the order of :func:`clauses_after`."""
    return plan_for(target, [clause.target for clause in clauses_after(source, target)])


def rounded(scene: Scene, places: bool = True) -> Scene:
    """``scene`` with the numbers that its plan says, so that the plan (and the first frame) leaves nothing open.

    Where objects are not apart any more with those, their places stay as they were, or else the whole scene does.

    Args:
        places: whether objects begin at the places of the plan too, not only move and act by it.
    """
    read = read_plan(plan_for(scene), scene.size, scene.frames)
    if read is None:
        return scene
    moved = tuple(
        replace(figure, events=said.events) for figure, said in zip(scene.objects, read.objects, strict=True)
    )
    kept = replace(scene, objects=moved, camera=read.camera)
    return next((each for each in ((read, kept) if places else (kept,)) if is_placed(each)), scene)


def is_exact(scene: Scene) -> bool:
    """Whether ``scene`` has exactly the numbers that its plan says, places too."""
    return read_plan(plan_for(scene), scene.size, scene.frames) == scene


def read_plan(plan: str, size: int = 48, frames: int = CLIP_FRAMES) -> Scene | None:
    """The scene that ``plan`` describes, as far as tenths say; None if it is no plan.

    Of a plan beyond a first frame the objects are small and in the middle.
    """
    first, *clauses = [each.strip() for each in " ".join(words(plan)).split(".") if each.strip()] or [""]
    film = _FILM.fullmatch(first)
    if not film:
        return None
    style, background, camera = film.groups()
    try:
        figures = tuple(_figure(each, size, frames) for each in clauses)
        amount = _PAN * size if camera.startswith("pans") else _ZOOMS.get(camera, 1.0)
        return Scene(figures, background, Camera(camera, amount), style, frames, size)
    except (ValueError, UsageError):
        return None


def named_twice(said: Sequence[str], description: Sequence[str]) -> set[str]:
    """The words that may not come next in a plan, because they would name an object twice.

    Args:
        said: words of the plan so far.
        description: words of a caption of the film; what it names in the plural there may be several alike of.
    """
    if not said or said[-1] not in COLOURS:
        return set()
    named = {said[i + 1] for i, word in enumerate(said[:-1]) if word == said[-1] and said[i + 1] in SHAPES}
    return {shape for shape in named if plural(shape) not in description}


def plan_worth(plan: str, facts: Sequence[Fact]) -> tuple[float, bool]:
    """The share of ``facts`` that hold in ``plan`` (-1 if it cannot be read), and whether its objects have room."""
    scene = read_plan(plan)
    if scene is None:
        return -1.0, False
    held = sum(holds_in(scene, fact) for fact in facts) / max(len(facts), 1)
    return held if facts else 1.0, is_placed(scene)


def _clause(figure: Object, scene: Scene) -> str:
    last = scene.frames - 1
    x, y = figure.x, figure.y
    does = []
    for event in figure.events:
        said = verb_phrase(motion_value(event))
        if event.action == "move":
            x, y = _moved(event, x, y)
            said += f" to {_place(x, y, scene)}"
        if event.end - event.start <= _MOMENT:
            said += f" at {TENTHS[tenth((event.start + event.end) / 2, last)]}"
        else:
            said += f" from {TENTHS[tenth(event.start, last)]} to {TENTHS[tenth(event.end, last)]}"
        does.append(said)
    motion = " and ".join(does) or verb_phrase("still")
    place = _place(figure.x, figure.y, scene)
    return f"{figure.size} {figure.colour} {figure.shape} at {place} {motion}"


def _place(x: float, y: float, scene: Scene) -> str:
    return " ".join(TENTHS[tenth(each, scene.size - 1)] for each in (x, y))


def _moved(event: Event, x: float, y: float) -> tuple[float, float]:
    """Where a place goes by ``event``."""
    dx, dy = VECTORS.get(event.direction or "", (0.0, 0.0))
    return x + dx * event.amount, y + dy * event.amount


def _distance(place: list[int], to: re.Match) -> str:
    """What says a move's distance in place of where it ends; ``place`` goes there, in place."""
    end = [TENTHS.index(each) for each in to.groups()]
    far = sum(abs(one - two) for one, two in zip(place, end, strict=True))
    place[:] = end
    return f" for {TENTHS[min(far, 10)]}"


def _figure(clause: str, size: int, frames: int) -> Object:
    read = _OBJECT.fullmatch(clause)
    if not read:
        raise ValueError(clause)
    how_large, colour, shape, *said, does = read.groups()
    place = [(size - 1) / 10 * (TENTHS.index(each) if each else 5) for each in said]
    events: list[Event] = []
    if MOTIONS.get(does) != "still":
        x, y = place
        for each in does.split(" and "):
            events.append(_event(each, (x, y), size, frames))
            x, y = _moved(events[-1], x, y)
    return Object(shape, colour, how_large or SIZES[0], place[0], place[1], tuple(events))


def _frames_at(said: str, frames: int) -> list[int]:
    """The frames that a plan calls ``said``, or the one that comes nearest."""
    wanted = TENTHS.index(said)
    named = [frame for frame in range(frames) if tenth(frame, frames - 1) == wanted]
    return named or [round(wanted * (frames - 1) / 10)]


def _event(text: str, place: tuple[float, float], size: int, frames: int) -> Event:
    read = _EVENT.fullmatch(text)
    if not read or read[1] not in MOTIONS:
        raise ValueError(text)
    action, _, argument = MOTIONS[read[1]].partition(" ")
    _, distance, x, y, moment, start, end = read.groups()
    if moment:
        length = _MOMENT if action == "turn" else 1
        first = round(TENTHS.index(moment) * (frames - 1) / 10 - length / 2)
        last = first + length
    else:
        # No shorter than the event that was told.
        first, last = _frames_at(start, frames)[0], _frames_at(end, frames)[-1]
    amount, unit = _AMOUNTS.get(action, 0.0) * size, (size - 1) / 10
    if distance:
        amount = TENTHS.index(distance) * unit
    elif x and argument in VECTORS:
        dx, dy = VECTORS[argument]
        amount = dx * (TENTHS.index(x) * unit - place[0]) + dy * (TENTHS.index(y) * unit - place[1])
    return Event(
        action,
        first,
        last,
        direction=argument if action in ("move", "circle") else None,
        count=int(argument) if argument.isdigit() else None,
        colour=argument if action == "turn" else None,
        amount=amount,
    )
