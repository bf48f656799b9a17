"""Names: what means one object of a scene and no other, at any time of the film."""

from __future__ import annotations

from random import Random

from unireel.world.facts import Referent
from unireel.world.language.phrases import called, the
from unireel.world.scene import Object, Scene

PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
"""Cells of a 3 x 3 grid over the screen, row by row."""

PLACE_MARGIN = 2 / 64
"""Least distance of a centre from the next cell for its place to be asked, as a share of the canvas side."""


def colours_of(figure: Object) -> set[str]:
    """Every colour that ``figure`` has at some time, the mixtures on the way not counted."""
    return {figure.colour, *(event.colour for event in figure.events if event.colour)}


def name_of(scene: Scene, index: int, random: Random | None = None) -> str | None:
    """A name that means object ``index`` only: "the red star", with ``random`` sometimes "the star"."""
    figure = scene.objects[index]
    others = [each for number, each in enumerate(scene.objects) if number != index]
    alike = [each for each in others if each.shape == figure.shape]
    if not alike and random and random.random() < 0.3:
        return the(Referent(figure.shape))
    if scene.style == "grayscale":
        return None if alike else the(Referent(figure.shape))
    if any(figure.colour in colours_of(each) for each in alike):
        return None
    return the(called(figure, scene))


def place_name(x: float, y: float, size: int, margin: float = PLACE_MARGIN) -> str | None:
    """The cell of :data:`PLACES` around a point in pixels; None if closer than ``margin`` to another cell."""
    cell = 0
    for value, weight in ((y, 3), (x, 1)):
        share = (value + 0.5) / size
        if min(abs(share - 1 / 3), abs(share - 2 / 3)) < margin:
            return None
        cell += weight * min(int(share * 3), 2)
    return PLACES[cell]


def nearest_place(x: float, y: float, size: int) -> str:
    """The cell of :data:`PLACES` that a point in pixels lies in."""
    column, row = (min(max(int((value + 0.5) / size * 3), 0), 2) for value in (x, y))
    return PLACES[3 * row + column]
