"""Needles: questions about stories whose evidence lies in a few frames only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from random import Random

from unireel.world.language.names import name_of, place_name
from unireel.world.language.order import cached_track
from unireel.world.language.phrases import TIMES, VERBS, scene_random
from unireel.world.language.questions import DEEDS, Question
from unireel.world.scene import Event, Object, Scene

BRIEF = 16
"""Longest time, in frames, that counts as a moment."""

NEEDLE = "needle"


def needle_questions(scene: Scene, seed: int) -> list[Question]:
    """All needle questions that ``scene`` allows, in random order; each with its frames of evidence.

    They ask about visitors (their colour, shape, size, place), about what an object does once (how often it
    jumps or blinks then, where it is, what it does before and after) and about colours that come and go.
    """
    random = scene_random(scene, NEEDLE, seed)
    found: list[Question] = []
    for index, figure in enumerate(scene.objects):
        name = name_of(scene, index, random)
        if name is None:
            continue
        about = [*_visits(scene, index, name), *_flushes(figure, name), *_once(scene, index, name, random)]
        found += [replace(each, subject=index) for each in about]
    random.shuffle(found)
    return found


def is_visitor(figure: Object) -> bool:
    """Whether ``figure`` is there for a moment only."""
    if [each.action for each in figure.events] != ["appear", "disappear"]:
        return False
    return figure.events[1].end - figure.events[0].end <= BRIEF


def _needle(text: str, answer: str, first: int, last: int) -> Question:
    return Question(text, answer, NEEDLE, True, (first, last))


def _visits(scene: Scene, index: int, name: str) -> Iterator[Question]:
    figure = scene.objects[index]
    if not is_visitor(figure):
        return
    seen = (figure.events[0].end, figure.events[1].end - 1)
    if sum(map(is_visitor, scene.objects)) == 1:
        for what in ("colour", "shape", "size"):
            text = f"what {what} is the object that appears briefly?"
            if what != "colour" or scene.style != "grayscale":
                yield _needle(text, getattr(figure, what), *seen)
    if place := _place(scene, index, seen[0]):
        yield _needle(f"where does {name} appear?", place, *seen)


def _place(scene: Scene, index: int, frame: int) -> str | None:
    track = cached_track(scene, index)
    return place_name(float(track.screen_x[frame]), float(track.screen_y[frame]), scene.size)


def _flushes(figure: Object, name: str) -> Iterator[Question]:
    """Colours that come and go."""
    turns = [each for each in figure.events if each.action == "turn"]
    colour, brief = figure.colour, []
    for turn, back in pairwise(turns):
        if back.colour == colour and back.end - turn.start <= BRIEF:
            brief.append((turn, back))
        colour = turn.colour or colour
    if len(brief) == 1:
        turn, back = brief[0]
        yield _needle(f"what colour does {name} turn briefly?", turn.colour or "", turn.start, back.end)


def _once(scene: Scene, index: int, name: str, random: Random) -> Iterator[Question]:
    """Jumps and blinks of an object that does them at one time only."""
    events = scene.objects[index].events
    for action in ("jump", "blink"):
        numbers = [number for number, each in enumerate(events) if each.action == action]
        if len(numbers) != 1:
            continue
        event = events[numbers[0]]
        one, many = VERBS[action][random.randrange(2)]
        yield _needle(f"how many times does {name} {many}?", TIMES[event.count or 1], event.start, event.end)
        if place := _place(scene, index, event.start):
            yield _needle(f"where is {name} when it {one}?", place, event.start, event.end)
        if sum(each.action == action for other in scene.objects for each in other.events) == 1:
            yield _needle(
                f"what shape is the object that {one}?", scene.objects[index].shape, event.start, event.end
            )
        yield from _around(list(events), numbers[0], name, one)


def _around(events: list[Event], number: int, name: str, verb: str) -> Iterator[Question]:
    """What an object does just before and just after something that it does once."""
    event = events[number]
    if number:
        before = events[number - 1]
        yield _needle(f"what does {name} do before it {verb}?", DEEDS[before.action], before.start, event.end)
    if number + 1 < len(events):
        after = events[number + 1]
        yield _needle(f"what does {name} do after it {verb}?", DEEDS[after.action], event.start, after.end)
