"""Facts: what a text says about a film, in a form that can be checked against pixels.

Prompts, captions and edit instructions carry their facts; a parser reads facts back from text; the checker decides
from pixels whether a fact holds. All three meet here.
"""

from __future__ import annotations

from dataclasses import dataclass

from unireel.world.sampling import relation
from unireel.world.scene import Event, Object, Scene

KINDS = ("count", "object", "size", "motion", "background", "camera", "style", "relation", "order")
DYNAMIC_KINDS = ("motion", "order", "camera")
"""Kinds of facts that one frame cannot show."""
STILL = "still"
ORDER_GAP = 2
"""Least number of frames between two starts that are said to be one before the other."""


@dataclass(frozen=True)
class Referent:
    """The objects a text speaks of, by the attributes it names; an attribute of ``None`` is not named.

    ``colour`` and ``size`` are those that the object has when it is first visible.
    """

    shape: str | None = None
    colour: str | None = None
    size: str | None = None

    def matches(self, figure: Object) -> bool:
        """Whether ``figure`` is one of the objects meant."""
        return all(want is None or want == getattr(figure, name) for name, want in vars(self).items())


@dataclass(frozen=True)
class Fact:
    """One checkable statement.

    =============  =================  =======================================  ==========================
    kind           subject            value                                    other
    =============  =================  =======================================  ==========================
    count          whom is counted    number of objects that are ever visible
    object         who exists
    size           who                "small" or "large", when first visible
    motion         who (all of them)  "still" or :func:`motion_value`
    background                        name
    camera                            one of ``scene.CAMERAS``
    style                             one of ``scene.STYLES``
    relation       who                "left of", ..., on the screen            to whom; ``when`` says where
    order          whose event starts                                          whose starts later
    =============  =================  =======================================  ==========================

    ``when`` is "first" or "last" (frame) for ``relation`` and None elsewhere.
    """

    kind: str
    subject: Referent | None = None
    value: str | int | None = None
    other: Referent | None = None
    when: str | None = None


def motion_value(event: Event | None) -> str:
    """An event as a fact holds it: "move left", "circle clockwise", "jump 2", "turn blue", "grow", "still"."""
    if event is None:
        return STILL
    argument = event.direction or event.count or event.colour
    return f"{event.action} {argument}" if argument else event.action


def holds_in(scene: Scene, fact: Fact) -> bool:
    """Whether ``fact`` is true of ``scene`` by its description (not its pixels).

    A fact about "all of" a referent is false when nobody matches the referent.
    """
    meant = [i for i, each in enumerate(scene.objects) if fact.subject is None or fact.subject.matches(each)]
    match fact.kind:
        case "count":
            return len(meant) == fact.value
        case "object":
            return bool(meant)
        case "size":
            return bool(meant) and all(scene.objects[i].size == fact.value for i in meant)
        case "motion":
            said = [[motion_value(e) for e in scene.objects[i].events] or [STILL] for i in meant]
            return bool(meant) and all(fact.value in values for values in said)
        case "background" | "style":
            return getattr(scene, fact.kind) == fact.value
        case "camera":
            return scene.camera.motion == fact.value
        case "relation":
            others = [j for j, each in enumerate(scene.objects) if fact.other and fact.other.matches(each)]
            frame = 0 if fact.when == "first" else scene.frames - 1
            return (
                len(meant) == len(others) == 1 and relation(scene, meant[0], others[0], frame) == fact.value
            )
        case "order":
            others = [j for j, each in enumerate(scene.objects) if fact.other and fact.other.matches(each)]
            if len(meant) != 1 or len(others) != 1:
                return False
            one, two = scene.objects[meant[0]].events, scene.objects[others[0]].events
            return bool(one) and bool(two) and one[0].start + ORDER_GAP <= two[0].start
    raise ValueError(f"unknown kind of fact: {fact.kind}")
