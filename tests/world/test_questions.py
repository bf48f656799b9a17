"""Questions: their answers are checked against rendered pixels, not against the code that wrote them."""

# NumPy's scalar and array types are too loose for these rules.
# pyright: reportIndexIssue=false

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest
from pixels import centres, index_of, masks

from unireel.errors import UsageError
from unireel.world.language import (
    DYNAMIC_TYPES,
    QUESTION_TYPES,
    Question,
    answer_choices,
    questions_for,
    sample_question,
)
from unireel.world.render import render_frames
from unireel.world.sampling import CATEGORIES, MIXTURE, sample_scene
from unireel.world.scene import COLOURS, SHAPES, Camera, Event, Object, Scene
from unireel.world.splits import held_out

SPLITS = ("train", "test", "compositional")


@cache
def scenes() -> list[Scene]:
    """Scenes of every category and split."""
    return [
        sample_scene(21, index, SPLITS[index % 3], category)
        for index in range(20)
        for category in (MIXTURE, *CATEGORIES)
    ]


@cache
def asked(type: str) -> list[tuple[Scene, Question]]:
    """Questions of one type about those scenes that allow one."""
    drawn = [(scene, sample_question(scene, type, number)) for number, scene in enumerate(scenes())]
    found = [(scene, question) for scene, question in drawn if question]
    assert len(found) >= 20, f"too few questions about {type}"
    return found


def subject(question: Question) -> str:
    """The one object that a question names."""
    names = re.findall(rf"the ((?:(?:{'|'.join(COLOURS)}) )?(?:{'|'.join(SHAPES)}))\b", question.text)
    assert len(names) == 1, question.text
    return names[0]


def frame_asked(scene: Scene, question: Question) -> int:
    """0 for "at the start", the last frame for "at the end"."""
    assert ("at the start" in question.text) != ("at the end" in question.text)
    return 0 if "at the start" in question.text else scene.frames - 1


@pytest.mark.parametrize("type", QUESTION_TYPES)
def test_answers_are_short_and_from_the_closed_list(type: str):
    for _, question in asked(type):
        assert question.answer in answer_choices(type)
        assert len(question.answer.split()) <= 3
        assert question.text.endswith("?")
        assert question.type == type
        assert question.dynamic == (type in DYNAMIC_TYPES)
        if question.evidence:
            assert 0 <= question.evidence[0] < question.evidence[1] < 17


def test_unknown_types_are_refused():
    with pytest.raises(UsageError, match="existence"):
        sample_question(sample_scene(0, 0), "weather", 0)
    with pytest.raises(UsageError, match="needle"):
        answer_choices("weather")


def test_questions_are_reproducible():
    scene = sample_scene(3, 3)
    assert questions_for(scene, 1) == questions_for(scene, 1)
    assert len({tuple(questions_for(scene, seed)) for seed in range(10)}) > 1


def test_existence_is_balanced_and_its_negatives_are_hard():
    answers = Counter(question.answer for _, question in asked("existence"))
    assert 0.4 < answers["yes"] / answers.total() < 0.6
    for scene, question in asked("existence"):
        *colour, shape = re.findall("|".join((*COLOURS, *SHAPES)), question.text)
        there = [each for each in scene.objects if each.shape == shape and colour in ([], [each.colour])]
        assert bool(there) == (question.answer == "yes"), question.text
        if not there and colour:
            assert any(each.shape == shape or each.colour == colour[0] for each in scene.objects)
            assert not held_out(shape, colour[0])


def test_places_are_where_the_pixels_are():
    for scene, question in asked("position"):
        x, y = centres(scene, index_of(scene, subject(question)))[frame_asked(scene, question)]
        column, row = (min(int((value + 0.5) * 3 / scene.size), 2) for value in (x, y))
        rows = ("top", "", "bottom")[row], ("left", "", "right")[column]
        assert question.answer == (" ".join(filter(None, rows)) or "middle"), question.text


def test_relations_are_those_of_the_pixels():
    for scene, question in asked("relation"):
        _, one, two = re.split(r", where is | compared to ", question.text.rstrip("?"))
        frame = frame_asked(scene, question)
        dx, dy = centres(scene, index_of(scene, one))[frame] - centres(scene, index_of(scene, two))[frame]
        sideways, upright = ("left of" if dx < 0 else "right of"), ("above" if dy < 0 else "below")
        assert question.answer == (sideways if abs(dx) > abs(dy) else upright), question.text


def test_directions_are_those_of_the_net_displacement():
    for scene, question in asked("direction"):
        assert scene.camera.motion == "still"
        path = centres(scene, index_of(scene, subject(question)))
        if "clockwise" in question.answer:
            around = path - path.mean(0)
            turned = np.unwrap(np.arctan2(around[:, 1], around[:, 0]))
            # The y axis points down, so growing angles turn clockwise on the screen.
            assert (turned[-1] > turned[0]) == (question.answer == "clockwise"), question.text
            continue
        dx, dy = path[-1] - path[0]
        assert max(abs(dx), abs(dy)) > 5 * min(abs(dx), abs(dy))
        sideways, upright = ("left" if dx < 0 else "right"), ("up" if dy < 0 else "down")
        assert question.answer == (sideways if abs(dx) > abs(dy) else upright), question.text


def test_repetitions_can_be_counted_in_the_pixels():
    for scene, question in asked("repetition"):
        index = index_of(scene, subject(question))
        times = {"once": 1, "twice": 2, "three times": 3}[question.answer]
        if re.search("blink|flash", question.text):
            shown = masks(scene, index).any((1, 2))
            assert (shown[:-1] & ~shown[1:]).sum() == times, question.text
        elif scene.camera.motion == "still":
            path = centres(scene, index)
            up: np.ndarray = path[0, 1] - path[:, 1] > (path[0, 1] - path[:, 1].min()) / 2
            assert (~up[:-1] & up[1:]).sum() == times, question.text


def test_orders_are_those_of_the_first_changes():
    for scene, question in asked("order"):
        if scene.camera.motion != "still":
            continue
        names = re.findall(r"the ([a-z ]+?)(?: or|\?)", question.text)
        first_change = {}
        for name in names:
            mask = masks(scene, index_of(scene, name))
            colours = scene.objects[index_of(scene, name)].events[0].action == "turn"
            changed = (mask != mask[0]).any((1, 2))
            begun = scene.objects[index_of(scene, name)].events[0].start if colours else int(changed.argmax())
            first_change[name] = begun
        pick = min if "first" in question.text else max
        answer = pick(names, key=lambda name: first_change[name])
        assert question.answer in answer, question.text


def test_counts_and_background_match_the_scene():
    for scene, question in asked("count"):
        colour = next((each for each in COLOURS if f" {each} " in question.text), None)
        shape = next((each for each in SHAPES if re.search(rf"\b{each}(es|s)\b", question.text)), None)
        number = sum(colour in (None, e.colour) and shape in (None, e.shape) for e in scene.objects)
        assert question.answer == ("zero", "one", "two", "three", "four")[number], question.text
    assert all(question.answer == scene.background for scene, question in asked("background"))
    assert all(question.answer == scene.style for scene, question in asked("style"))


def test_colours_are_those_of_the_pixels():
    names, palette = tuple(COLOURS), np.array(list(COLOURS.values()))
    for scene, question in asked("colour"):
        assert scene.style != "grayscale"
        if scene.style != "plain":
            continue
        shape = next(each for each in SHAPES if re.search(rf"\b{each}(es|s)?\b", question.text))
        index = next(i for i, each in enumerate(scene.objects) if each.shape == shape)
        shown = masks(scene, index)
        frame = scene.frames - 1 if "at the end" in question.text else int(shown.any((1, 2)).argmax())
        pixels = render_frames(scene)[frame][shown[frame]].astype(int)
        nearest = np.abs(pixels[:, None] - palette).sum(-1).argmin(1)
        assert names[np.bincount(nearest).argmax()] == question.answer, question.text


def test_sizes_changes_and_actions():
    star = Object("star", "red", "small", 30.0, 30.0, (Event("grow", 2, 12),))
    scene = Scene((star,), "navy")
    sizes = {
        (q.text.split(" at ")[-1], q.answer) for s in range(30) if (q := sample_question(scene, "size", s))
    }
    assert sizes == {("the start?", "small"), ("the end?", "large")}
    changes = {q.answer for s in range(30) if (q := sample_question(scene, "state change", s))}
    assert changes == {"grows"}
    zoomed = Scene((star,), "navy", Camera("zooms in", 1.3))
    assert sample_question(zoomed, "state change", 0) is None
    assert sample_question(zoomed, "action", 0) is None
    endings = {q.text[-13:] for s in range(9) if (q := sample_question(zoomed, "size", s))}
    assert endings == {"at the start?"}


def test_nothing_ambiguous_is_asked():
    turning = Object("ring", "blue", "small", 10.0, 30.0, (Event("turn", 4, 6, colour="red"),))
    scene = Scene((turning, Object("ring", "red", "small", 50.0, 30.0)), "navy")
    for seed in range(60):
        for question in questions_for(scene, seed):
            assert "red ring" not in question.text or question.answer == "yes", question.text
            assert question.type not in ("colour", "order")


def test_what_moves_is_not_asked_while_the_camera_moves():
    moving = Object("ring", "blue", "small", 40.0, 30.0, (Event("move", 0, 16, "left", amount=20.0),))
    scene = Scene((moving,), "navy", Camera("pans left", 12.0))
    assert [sample_question(scene, each, 0) for each in ("direction", "action")] == [None, None]
