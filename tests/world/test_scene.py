"""Scenes: what can be said, what cannot, and the round trip through JSON."""

import dataclasses
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unireel.errors import UsageError
from unireel.world.scene import (
    ACTIONS,
    ARGUMENTS,
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    DIRECTIONS,
    RADII,
    SHAPES,
    SIZES,
    STYLES,
    TURNS,
    Camera,
    Event,
    Object,
    Scene,
    stable_hash,
)

places = st.floats(-100, 100, allow_nan=False)


@st.composite
def events(draw, start: int, end: int) -> Event:
    action = draw(st.sampled_from(ACTIONS))
    values = {
        "direction": st.sampled_from(DIRECTIONS if action == "move" else TURNS),
        "count": st.integers(1, 3),
        "colour": st.sampled_from(tuple(COLOURS)),
    }
    name = ARGUMENTS.get(action)
    arguments = {name: draw(values[name])} if name else {}
    return Event(action, start, end, amount=draw(st.floats(0, 30)), **arguments)


@st.composite
def scenes(draw) -> Scene:
    frames = 4 * draw(st.integers(1, 128)) + 1
    figures = []
    for _ in range(draw(st.integers(1, 4))):
        ends = sorted(draw(st.sets(st.integers(0, frames - 1), max_size=6)))
        spans = zip(ends[::2], ends[1::2], strict=False)
        figures.append(
            Object(
                draw(st.sampled_from(SHAPES)),
                draw(st.sampled_from(tuple(COLOURS))),
                draw(st.sampled_from(SIZES)),
                draw(places),
                draw(places),
                tuple(draw(events(start, end)) for start, end in spans),
            )
        )
    return Scene(
        tuple(figures),
        draw(st.sampled_from(tuple(BACKGROUNDS))),
        Camera(draw(st.sampled_from(CAMERAS)), draw(st.floats(0.5, 20))),
        draw(st.sampled_from(STYLES)),
        frames,
        draw(st.sampled_from(tuple(RADII))),
    )


@given(scenes())
def test_json_brings_back_the_same_scene(scene):
    text = scene.to_json()
    assert Scene.from_json(text) == scene
    assert Scene.from_json(json.dumps(json.loads(text))).to_json() == text


@given(scenes(), places)
def test_the_signature_says_nothing_about_places_and_order(scene, x):
    moved = tuple(dataclasses.replace(each, x=x) for each in reversed(scene.objects))
    assert dataclasses.replace(scene, objects=moved).signature() == scene.signature()
    other = next(each for each in BACKGROUNDS if each != scene.background)
    assert dataclasses.replace(scene, background=other).signature() != scene.signature()


@given(st.text())
def test_the_stable_hash_is_the_head_of_sha256(text):
    assert stable_hash(text) == int(hashlib.sha256(text.encode()).hexdigest()[:16], 16)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Object("hexagon", "red", "small", 0, 0),
        lambda: Object("star", "beige", "small", 0, 0),
        lambda: Object("star", "red", "huge", 0, 0),
        lambda: Event("fly", 0, 4),
        lambda: Event("move", 4, 4, direction="left"),
        lambda: Event("move", 0, 4),
        lambda: Event("move", 0, 4, direction="clockwise"),
        lambda: Event("jump", 0, 4, count=4),
        lambda: Event("shake", 0, 4, count=1),
        lambda: Object("star", "red", "small", 0, 0, (Event("grow", 0, 8), Event("shake", 7, 12))),
        lambda: Camera("rolls"),
        lambda: Scene((), "black"),
        lambda: Scene((Object("star", "red", "small", 0, 0),) * 5, "black"),
        lambda: Scene((Object("star", "red", "small", 0, 0),), "beach"),
        lambda: Scene((Object("star", "red", "small", 0, 0),), "black", frames=16),
        lambda: Scene((Object("star", "red", "small", 0, 0),), "black", frames=517),
        lambda: Scene((Object("star", "red", "small", 0, 0, (Event("grow", 0, 20),)),), "black"),
        lambda: Scene.from_json("{"),
        lambda: Scene.from_json("[]"),
        lambda: Scene.from_dict({"objects": [{"shape": "star"}], "background": "black"}),
    ],
)
def test_what_the_world_does_not_have_is_refused_in_one_line(make):
    with pytest.raises(UsageError) as caught:
        make()
    assert "\n" not in str(caught.value)
