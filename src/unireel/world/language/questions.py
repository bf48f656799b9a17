"""Questions with exact answers: what the pixels decide, of objects that the question names uniquely.

Answers are one or two words from a closed list for each type (:func:`answer_choices`). Directions are those
of the net displacement, and only asked while the camera stands still; orders compare starts at least two
frames apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from unireel.errors import UsageError
from unireel.world.facts import ORDER_GAP, Referent
from unireel.world.language.names import PLACES, colours_of, name_of, place_name
from unireel.world.language.order import cached_track, relation_at
from unireel.world.language.phrases import NUMBERS, TIMES, VERBS, called, plural, scene_random, the
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
    Event,
    Object,
    Scene,
)
from unireel.world.splits import held_out

STATIC_TYPES = (
    "existence",
    "colour",
    "shape",
    "size",
    "count",
    "position",
    "relation",
    "background",
    "style",
)
DYNAMIC_TYPES = ("direction", "repetition", "order", "state change", "action", "camera")
QUESTION_TYPES = (*STATIC_TYPES, *DYNAMIC_TYPES)

CHANGES = ("grows", "shrinks", "appears", "disappears", *(f"turns {each}" for each in COLOURS), "no change")

DEEDS = {action: "changes colour" if action == "turn" else "orbits" if action == "circle" else ways[0][0]
         for action, ways in VERBS.items()}  # fmt: skip
"""Answers to "what does it do?" by action ("still" for none)."""


@dataclass(frozen=True)
class Question:
    """A question about a film, its only right answer and its type.

    ``evidence``: first and last frame of what decides the answer, where that is a part of the film; ``subject``: number
    of the one object that such a question is about.
    """

    text: str
    answer: str
    type: str
    dynamic: bool
    evidence: tuple[int, int] | None = None
    subject: int | None = None


def answer_choices(type: str) -> tuple[str, ...]:
    """All answers that questions of this type can have.

    Raises:
        UsageError: there is no such type.
    """
    if type not in _CHOICES:
        raise UsageError(f"unknown question type '{type}'; accepted: {', '.join(_CHOICES)}")
    return _CHOICES[type]


def questions_for(scene: Scene, seed: int) -> list[Question]:
    """One question of every type that ``scene`` allows, in the order of :data:`QUESTION_TYPES`."""
    found = (sample_question(scene, each, seed) for each in QUESTION_TYPES)
    return [each for each in found if each]


def sample_question(scene: Scene, type: str, seed: int) -> Question | None:
    """A question of this type about ``scene``; None if the film decides no such question.

    Raises:
        UsageError: there is no such type.
    """
    if type not in _ASK:
        raise UsageError(f"unknown question type '{type}'; accepted: {', '.join(_ASK)}")
    asked = _ASK[type](scene, scene_random(scene, type, seed))
    if asked is None:
        return None
    text, answer, *events = asked
    evidence = (min(each.start for each in events), max(each.end for each in events)) if events else None
    return Question(text, answer, type, type in DYNAMIC_TYPES, evidence)


Asked = tuple[str, str] | tuple[str, str, Event] | tuple[str, str, Event, Event] | None
"""Text, answer, and the events that decide the answer where some do."""


def _nameable(scene: Scene, random: Random, wanted: Callable[[Object], bool] = lambda figure: True):
    """Indices of the wanted objects that have a name of their own, in random order, each with its name."""
    indices = [i for i, each in enumerate(scene.objects) if wanted(each)]
    random.shuffle(indices)
    for index in indices:
        if name := name_of(scene, index, random):
            yield index, name


def _one(scene: Scene, random: Random, wanted: Callable[[Object], bool] = lambda figure: True):
    return next(_nameable(scene, random, wanted), (None, ""))


def _does(figure: Object, *actions: str) -> bool:
    return any(event.action in actions for event in figure.events)


def _existence(scene: Scene, random: Random) -> Asked:
    if random.random() < 0.5:
        figure = random.choice(scene.objects)
        steady = scene.style != "grayscale" and not _does(figure, "turn")
        referent = called(figure, scene) if steady else Referent(figure.shape)
        return _is_there(referent, random), "yes"
    absent = _absent(scene, random)
    return (_is_there(absent, random), "no") if absent else None


def _absent(scene: Scene, random: Random) -> Referent | None:
    """Something that is almost there: the right shape in a wrong colour, or the other way round.

    Held-out pairs are left out, so that training never teaches that they do not exist.
    """
    if scene.style == "grayscale":
        return Referent(
            random.choice([each for each in SHAPES if all(each != o.shape for o in scene.objects)])
        )
    present = {(each.shape, colour) for each in scene.objects for colour in colours_of(each)}
    figure = random.choice(scene.objects)
    near = (
        [(figure.shape, each) for each in COLOURS]
        if random.random() < 0.7
        else [(e, figure.colour) for e in SHAPES]
    )
    able = [each for each in near if each not in present and not held_out(*each)]
    return Referent(*random.choice(able)) if able else None


def _is_there(referent: Referent, random: Random) -> str:
    noun = the(referent).removeprefix("the ")
    noun = f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
    return random.choice((f"is there {noun}?", f"does the film show {noun}?"))


def _colour(scene: Scene, random: Random) -> Asked:
    if scene.style == "grayscale":
        return None
    shapes = [each.shape for each in scene.objects]
    alone = [each for each in scene.objects if shapes.count(each.shape) == 1]
    if not alone:
        first = scene.objects[0]
        same = all(each.shape == first.shape and colours_of(each) == {first.colour} for each in scene.objects)
        return (f"what colour are the {plural(first.shape)}?", first.colour) if same else None
    figure = random.choice(alone)
    what = "what colour is" if random.random() < 0.5 else "which colour is"
    if not _does(figure, "turn"):
        return f"{what} the {figure.shape}?", figure.colour
    frame, when = random.choice(((0, "at the start"), (scene.frames - 1, "at the end")))
    track = cached_track(scene, scene.objects.index(figure))
    if not track.visible[frame]:
        return None
    return f"{what} the {figure.shape} {when}?", tuple(COLOURS)[track.colour[frame]]


def _shape(scene: Scene, random: Random) -> Asked:
    first = scene.objects[0]
    what = "what shape" if random.random() < 0.5 else "which shape"
    if all(each.shape == first.shape for each in scene.objects) and (
        len(scene.objects) > 1 or random.random() < 0.3
    ):
        return f"{what} {'is the object' if len(scene.objects) == 1 else 'are the objects'}?", first.shape
    if scene.style == "grayscale":
        return (f"{what} is the object?", first.shape) if len(scene.objects) == 1 else None
    able = []
    for figure in scene.objects:
        sharing = [each for each in scene.objects if figure.colour in colours_of(each)]
        if sharing == [figure]:
            able.append(figure)
    if not able:
        return None
    figure = random.choice(able)
    return f"{what} is the {figure.colour} object?", figure.shape


def _size(scene: Scene, random: Random) -> Asked:
    index, name = _one(scene, random)
    if index is None:
        return None
    figure = scene.objects[index]
    what = random.choice(("what size is", "how large is"))
    if not _does(figure, "grow", "shrink") and not scene.camera.motion.startswith("zooms"):
        return f"{what} {name}?", figure.size
    track = cached_track(scene, index)
    able = [("at the start", figure.size)] if track.visible[0] else []
    if not scene.camera.motion.startswith("zooms") and track.visible[-1]:
        last = next(e for e in reversed(figure.events) if e.action in ("grow", "shrink"))
        able.append(("at the end", "large" if last.action == "grow" else "small"))
    if not able:
        return None
    when, answer = random.choice(able)
    return f"{what} {name} {when}?", answer


def _count(scene: Scene, random: Random) -> Asked:
    referents = [
        Referent(),
        Referent(),
        *(Referent(each.shape) for each in scene.objects),
        Referent(random.choice(SHAPES)),
    ]
    if scene.style != "grayscale":
        turned = set().union(*(colours_of(each) for each in scene.objects if _does(each, "turn")))
        colours = [each.colour for each in scene.objects] + [random.choice(tuple(COLOURS))]
        referents += [Referent(None, each) for each in colours if each not in turned]
    referent = random.choice(referents)
    number = sum(referent.matches(each) for each in scene.objects)
    noun = the(referent, many=True).removeprefix("the ")
    text = random.choice((f"how many {noun} are there?", f"how many {noun} does the film show?"))
    return text, NUMBERS[number]


def _position(scene: Scene, random: Random) -> Asked:
    for index, name in _nameable(scene, random):
        track = cached_track(scene, index)
        for when, frame in random.sample((("at the start", 0), ("at the end", scene.frames - 1)), 2):
            place = place_name(track.screen_x[frame], track.screen_y[frame], scene.size)
            if track.visible[frame] and place:
                return f"where is {name} {when}?", place
    return None


def _relation(scene: Scene, random: Random) -> Asked:
    able = list(_nameable(scene, random))
    if len(able) < 2:
        return None
    (one, one_name), (two, two_name) = able[:2]
    for when, frame in random.sample((("at the start", 0), ("at the end", scene.frames - 1)), 2):
        if found := relation_at(scene, one, two, frame):
            return f"{when}, where is {one_name} compared to {two_name}?", found
    return None


def _background(scene: Scene, random: Random) -> Asked:
    if scene.style == "grayscale":
        return None
    return random.choice(("what is the background?", "which background is it?")), scene.background


def _style(scene: Scene, random: Random) -> Asked:
    return random.choice(("what is the style?", "which style is the film in?")), scene.style


def _direction(scene: Scene, random: Random) -> Asked:
    """Directions of objects with one way to go; while the camera moves, left and right would be relative."""
    if scene.camera.motion != "still":
        return None
    index, name = _one(scene, random, lambda figure: sum(e.direction is not None for e in figure.events) == 1)
    if index is None:
        return None
    event = next(each for each in scene.objects[index].events if each.direction)
    verb = random.choice(VERBS[event.action])[1]
    return f"which way does {name} {verb}?", event.direction or "", event


def _repetition(scene: Scene, random: Random) -> Asked:
    index, name = _one(scene, random, lambda figure: sum(e.count is not None for e in figure.events) == 1)
    if index is None:
        return None
    event = next(each for each in scene.objects[index].events if each.count)
    verb = random.choice(VERBS[event.action])[1]
    return f"how many times does {name} {verb}?", TIMES[event.count or 1], event


def _order(scene: Scene, random: Random) -> Asked:
    able = list(_nameable(scene, random, lambda figure: bool(figure.events)))
    if len(able) < 2:
        return None
    (one, one_name), (two, two_name) = able[:2]
    begun, other = (scene.objects[each].events[0] for each in (one, two))
    if abs(begun.start - other.start) < ORDER_GAP:
        return None
    earlier, later = (one_name, two_name) if begun.start < other.start else (two_name, one_name)
    asks_first = random.random() < 0.5
    text = f"which starts {'first' if asks_first else 'last'}, {one_name} or {two_name}?"
    return text, (earlier if asks_first else later).removeprefix("the "), begun, other


def _state_change(scene: Scene, random: Random) -> Asked:
    """The one change that an object goes through; blinking is none, and a zoom would look like one."""
    if scene.camera.motion.startswith("zooms"):
        return None
    changing = ("grow", "shrink", "turn", "appear", "disappear")
    able = [
        pair
        for pair in _nameable(scene, random, lambda figure: not _does(figure, "blink"))
        if sum(event.action in changing for event in scene.objects[pair[0]].events) < 2
    ]
    changed = [pair for pair in able if _does(scene.objects[pair[0]], *changing)]
    if not able or (not changed and random.random() < 0.7):
        return None
    index, name = (changed or able)[0]
    event = next((each for each in scene.objects[index].events if each.action in changing), None)
    text = random.choice((f"how does {name} change?", f"what change does {name} show?"))
    if event is None:
        return text, "no change"
    return text, f"turns {event.colour}" if event.colour else DEEDS[event.action], event


def _action(scene: Scene, random: Random) -> Asked:
    """What an object does; whether it moves or stays is not asked while the camera moves."""

    def wanted(figure: Object) -> bool:
        moves = not figure.events or _does(figure, "move")
        resizes = _does(figure, "grow", "shrink") and scene.camera.motion.startswith("zooms")
        return len(figure.events) < 2 and not resizes and not (moves and scene.camera.motion != "still")

    index, name = _one(scene, random, wanted)
    if index is None:
        return None
    events = scene.objects[index].events
    text = f"what does {name} do?"
    return (text, DEEDS[events[0].action], events[0]) if events else (text, DEEDS["still"])


def _camera(scene: Scene, random: Random) -> Asked:
    motion = scene.camera.motion
    text = random.choice(("what does the camera do?", "how does the camera move?"))
    return text, "stays still" if motion == "still" else motion


_ASK: dict[str, Callable[[Scene, Random], Asked]] = {
    "existence": _existence,
    "colour": _colour,
    "shape": _shape,
    "size": _size,
    "count": _count,
    "position": _position,
    "relation": _relation,
    "background": _background,
    "style": _style,
    "direction": _direction,
    "repetition": _repetition,
    "order": _order,
    "state change": _state_change,
    "action": _action,
    "camera": _camera,
}

_NAMES = (*(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES), *SHAPES)
_CHOICES: dict[str, tuple[str, ...]] = {
    "existence": ("yes", "no"),
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "size": SIZES,
    "count": NUMBERS,
    "position": PLACES,
    "relation": RELATIONS,
    "background": tuple(BACKGROUNDS),
    "style": STYLES,
    "direction": (*DIRECTIONS, *TURNS),
    "repetition": tuple(TIMES.values()),
    "order": _NAMES,
    "state change": CHANGES,
    "action": tuple(DEEDS.values()),
    "camera": ("stays still", *CAMERAS[1:]),
    "needle": (*COLOURS, *SHAPES, *SIZES, *PLACES, *TIMES.values(), *DEEDS.values()),
}
