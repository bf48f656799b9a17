"""Stories: long, in order, and with needles whose evidence is where they say."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from unireel.errors import UsageError
from unireel.world.language import answer_choices, questions_for, words
from unireel.world.needles import is_visitor, needle_questions
from unireel.world.render import render_frames
from unireel.world.scene import Scene
from unireel.world.splits import SPLITS, split_of
from unireel.world.stories import describe_frame, sample_story
from unireel.world.tracks import COLOUR_NAMES, reach, tracks


@cache
def stories(frames: int = 257, size: int = 64) -> list[Scene]:
    """Stories of all splits."""
    return [sample_story(2, index, SPLITS[index % 3], frames, size) for index in range(9)]


@pytest.mark.parametrize(("frames", "size"), [(513, 64), (257, 64), (65, 64), (257, 48), (257, 32)])
def test_objects_stay_on_the_screen_and_apart(frames: int, size: int):
    for story in stories(frames, size):
        found = tracks(story)
        rooms = [t.screen_radius * reach(o.shape) for o, t in zip(story.objects, found, strict=True)]
        for track, room in zip(found, rooms, strict=True):
            for axis in (track.screen_x, track.screen_y):
                assert (axis - room > 0).all()
                assert (axis + room < size - 1).all()
        for i, one in enumerate(found):
            for j in range(i):
                apart = np.hypot(one.screen_x - found[j].screen_x, one.screen_y - found[j].screen_y)
                assert (apart > rooms[i] + rooms[j]).all()


def test_what_a_story_is_made_of():
    events = []
    for index, story in enumerate(stories(513)):
        assert story.frames == 513
        assert split_of(story) == SPLITS[index % 3]
        assert 2 <= len(story.objects) <= 4
        assert len({each.shape for each in story.objects}) == len(story.objects)
        assert is_visitor(story.objects[-1])
        events += [len(each.events) for each in story.objects[:-1]]
    assert np.mean(events) > 4


def test_stories_are_reproducible():
    assert sample_story(2, 0, frames=129) == sample_story(2, 0, frames=129)
    assert sample_story(2, 0, frames=129) != sample_story(2, 1, frames=129)


@pytest.mark.parametrize(
    "arguments", [{"split": "dev"}, {"frames": 100}, {"frames": 61}, {"frames": 517}, {"size": 50}]
)
def test_impossible_stories_are_refused(arguments: dict):
    with pytest.raises(UsageError):
        sample_story(0, 0, **arguments)


def without(story: Scene, index: int, first: int, last: int) -> Scene:
    """``story`` in which object ``index`` does nothing between two frames."""
    figure = story.objects[index]
    kept = tuple(each for each in figure.events if each.end < first or each.start > last)
    figures = list(story.objects)
    figures[index] = dataclasses.replace(figure, events=kept)
    return dataclasses.replace(story, objects=tuple(figures))


def test_evidence_is_where_needles_say():
    checked = 0
    for story in stories():
        film = render_frames(story)
        for question in needle_questions(story, 0):
            assert question.answer in answer_choices("needle")
            assert question.type == "needle"
            assert question.evidence is not None
            first, last = question.evidence
            assert 0 <= first < last < story.frames
            if not ("how many times" in question.text or "turn briefly" in question.text):
                continue
            index = next(i for i, each in enumerate(story.objects) if f"{each.shape} " in question.text)
            other = render_frames(without(story, index, first, last))
            changed = (film != other).any((1, 2, 3)).nonzero()[0]
            assert first <= changed.min() <= changed.max() <= last
            checked += 1
    assert checked > 10


def test_visitors_show_in_their_evidence_only():
    for story in stories():
        visitor = story.objects[-1]
        shown = [f for f in range(story.frames) if f" {visitor.shape} " in describe_frame(story, f)]
        assert shown == list(range(shown[0], shown[-1] + 1))
        assert 9 <= len(shown) <= 14
        asked = [each for each in needle_questions(story, 1) if "appears briefly" in each.text]
        assert {each.answer for each in asked} == {visitor.shape, visitor.colour, visitor.size}
        assert {each.evidence for each in asked} == {(shown[0], shown[-1])}


def test_descriptions_say_what_is_visible():
    for story in stories()[:3]:
        found = tracks(story)
        for frame in range(0, story.frames, 3):
            text = describe_frame(story, frame)
            visible = [i for i, each in enumerate(found) if each.visible[frame]]
            assert text.count(" the ") == len(visible)
            for index in visible:
                assert f"{COLOUR_NAMES[found[index].colour[frame]]} {story.objects[index].shape}" in text
            assert len(words(text)) <= 40


def test_descriptions_differ_when_the_picture_does():
    for story in stories(513):
        assert len({describe_frame(story, frame) for frame in range(story.frames)}) >= 4


def test_frames_outside_the_film_are_refused():
    with pytest.raises(UsageError, match="accepted: 0 to 256"):
        describe_frame(stories()[0], 257)


def test_ordinary_questions_work_on_stories():
    for story in stories():
        for question in questions_for(story, 0):
            assert question.answer in answer_choices(question.type)
