"""Verdicts: whether stated facts hold of a film, and whether a film shows a scene."""

from __future__ import annotations

from dataclasses import dataclass

from unireel.clip import Clip
from unireel.world.checker.observation import Observation
from unireel.world.checker.observe import observe
from unireel.world.facts import ORDER_GAP, STILL, Fact, Referent, motion_value
from unireel.world.sampling import relation
from unireel.world.scene import ACTIONS, Object, Scene

CATEGORIES = (
    "objects",
    "shape",
    "colour",
    "size",
    "count",
    *(f"motion: {action}" for action in (STILL, *ACTIONS)),
    "relation",
    "order",
    "background",
    "camera",
    "style",
)
"""What agreement is measured in."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of every fact, in the order in which they were given, and what was seen."""

    outcomes: tuple[tuple[Fact, bool], ...]
    observation: Observation

    @property
    def all_hold(self) -> bool:
        """Whether every fact holds."""
        return all(holds for _, holds in self.outcomes)

    def __str__(self) -> str:
        lines = [f"{'holds' if holds else 'FAILS'}  {describe(fact)}" for fact, holds in self.outcomes]
        return "\n".join([*lines, f"seen   {self.observation}"])


def check(clip: Clip, facts: list[Fact] | tuple[Fact, ...]) -> Verdict:
    """Decide from the pixels of ``clip`` which of ``facts`` hold."""
    observation = observe(clip)
    return Verdict(tuple((fact, observation.holds(fact)) for fact in facts), observation)


def describe(fact: Fact) -> str:
    """A fact in plain words, for reports."""
    subject, other = _name(fact.subject), _name(fact.other)
    match fact.kind:
        case "count":
            return f"there are {fact.value} of: {subject}"
        case "object":
            return f"there is: {subject}"
        case "relation":
            return f"in the {fact.when} frame, {subject} {fact.value} {other}"
        case "order":
            return f"{subject} starts before {other}"
        case "size" | "motion":
            return f"{fact.kind} of {subject}: {fact.value}"
    return f"{fact.kind}: {fact.value}"


def _name(referent: Referent | None) -> str:
    if referent is None:
        return "object"
    return " ".join(filter(None, (referent.size, referent.colour, referent.shape or "object")))


def referent_of(figure: Object, scene: Scene) -> Referent:
    """What a text would call ``figure``: shape and colour, or only the shape where colours cannot be seen."""
    return Referent(figure.shape, None if scene.style == "grayscale" else figure.colour)


def scene_facts(scene: Scene) -> list[tuple[str, Fact]]:
    """Everything that is true of ``scene``, each with its category (one of :data:`CATEGORIES` but "objects")."""
    facts = [
        ("background", Fact("background", value=scene.background)),
        ("style", Fact("style", value=scene.style)),
        ("camera", Fact("camera", value=scene.camera.motion)),
        ("count", Fact("count", Referent(), len(scene.objects))),
    ]
    names = [referent_of(each, scene) for each in scene.objects]
    for figure, name in zip(scene.objects, names, strict=True):
        if facts and any(fact.subject == name and fact.kind == "object" for _, fact in facts):
            continue
        alike = [each for each in scene.objects if name.matches(each)]
        facts.append(("shape", Fact("object", Referent(figure.shape))))
        if name.colour:
            facts.append(("colour", Fact("object", name)))
        else:
            facts.append(("shape", Fact("object", name)))
        facts.append(("count", Fact("count", name, len(alike))))
        if len({each.size for each in alike}) == 1:
            facts.append(("size", Fact("size", name, figure.size)))
        if len({each.events for each in alike}) == 1 and len(figure.events) < 2:
            event = figure.events[0] if figure.events else None
            category = f"motion: {event.action if event else STILL}"
            facts.append((category, Fact("motion", name, motion_value(event))))
    return facts + _pair_facts(scene, names)


def untouched_facts(source: Scene, target: Scene) -> tuple[Fact, ...]:
    """What is true of ``source`` and still of ``target``, an edit of it."""
    before = {fact for _, fact in scene_facts(source)}
    return tuple(fact for _, fact in scene_facts(target) if fact in before)


def _pair_facts(scene: Scene, names: list[Referent]) -> list[tuple[str, Fact]]:
    """Relations and orders between objects whose names are unique."""
    unique = [i for i, name in enumerate(names) if sum(name.matches(each) for each in scene.objects) == 1]
    facts = []
    for i in unique:
        for j in unique:
            if i == j:
                continue
            for when, frame in (("first", 0), ("last", scene.frames - 1)):
                value = relation(scene, i, j, frame)
                if value:
                    facts.append(("relation", Fact("relation", names[i], value, names[j], when)))
            one, two = scene.objects[i].events, scene.objects[j].events
            if one and two and one[0].start + ORDER_GAP <= two[0].start:
                facts.append(("order", Fact("order", names[i], other=names[j])))
    return facts


def shows(observation: Observation, scene: Scene) -> bool:
    """Whether the objects seen are exactly those of ``scene``: shape, colour, size and motion of each."""
    gray = scene.style == "grayscale"
    wanted = sorted(
        [each.shape, "" if gray else each.colour, each.size, *(map(motion_value, each.events))]
        for each in scene.objects
    )
    seen = sorted(
        [each.shape, each.colour or "", each.size, *(event.value for event in each.events)]
        for each in observation.objects
    )
    return wanted == seen


def agrees(clip: Clip, scene: Scene) -> dict[str, bool]:
    """Compare ``clip`` with ``scene``: for each category that the scene has, whether all its facts hold.

    "objects" says whether the objects seen are exactly those of the scene, none missing and none too many.
    """
    observation = observe(clip)
    outcome = {"objects": shows(observation, scene)}
    for category, fact in scene_facts(scene):
        outcome[category] = outcome.get(category, True) and observation.holds(fact)
    return outcome
