"""Pools of stories: what is kept of a story, where its needles are, and what views of it hold."""

import numpy as np
import pytest

from unireel.data.stories import LENGTHS, POOL, VIEWS, StoryPools, ViewKind, draw_view
from unireel.world.render import render_frames
from unireel.world.scene import COLOURS, SHAPES
from unireel.world.stories import sample_story

COUNT = 12


@pytest.fixture(scope="module")
def pools(tmp_path_factory) -> StoryPools:
    return StoryPools(tmp_path_factory.mktemp("films"), COUNT, progress=False)


def test_frames_are_evenly_spread_over_the_story(pools):
    for index in range(3):
        story = sample_story(1, index, "train", LENGTHS[index], 48)
        frames = render_frames(story)
        for number, each in enumerate(pools.frames[index]):
            part = frames[number * story.frames // POOL : (number + 1) * story.frames // POOL + 1]
            assert (part == each).all((1, 2, 3)).any()
        assert [SHAPES[each] for each in pools.shapes[index] if each >= 0] == [o.shape for o in story.objects]


def test_the_evidence_shows_what_is_asked(pools):
    """What is asked of a visitor can be seen in the tracks of the frames of evidence, and nowhere else."""
    seen = 0
    for index in range(COUNT):
        for needle in pools.needles[index]:
            assert 0 <= needle.first <= needle.last < POOL
            if needle.question != "what colour is the object that appears briefly?":
                continue
            visible = pools.states[index, needle.subject, :, 3] > 0
            assert visible[needle.first : needle.last + 1].any()
            assert not visible[: needle.first - 1].any() and not visible[needle.last + 2 :].any()
            colours = pools.states[index, needle.subject, visible, 4].astype(int)
            assert {tuple(COLOURS)[each] for each in colours} == {needle.answer}
            seen += 1
    assert seen > COUNT / 3


def test_views_have_their_size_and_rather_hold_what_is_asked(pools):
    random = np.random.default_rng(0)
    sizes: dict[ViewKind, int] = {"pool": POOL, "even": 16, "shrunk": 32, "few": 8}
    for kind, size in sizes.items():
        view = draw_view(kind, pools.needles[0], 8, random)
        assert len(view) == size and (np.diff(view) > 0).all()
        assert view[0] >= 0 and view[-1] < POOL
    assert set(VIEWS) == {"pool", "even", "shrunk", "few"} and sum(VIEWS.values()) == pytest.approx(1)
    needle = pools.needles[0][:1]
    span = range(needle[0].first, needle[0].last + 1)
    held = np.mean([bool(set(span) & set(draw_view("few", needle, 4, random).tolist())) for _ in range(300)])
    by_chance = np.mean([bool(set(span) & set(draw_view("few", [], 4, random).tolist())) for _ in range(300)])
    assert held > by_chance + 0.2


def test_pools_are_made_once(pools, tmp_path):
    first = StoryPools(tmp_path, 2, progress=False)
    again = StoryPools(tmp_path, 2, progress=False)
    assert again.needles == first.needles
    np.testing.assert_array_equal(again.frames, first.frames)
