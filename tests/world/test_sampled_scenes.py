"""Sampling: every scene fits its split and its category, and everything stays on the screen and apart."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unireel.errors import UsageError
from unireel.world.facts import ORDER_GAP, motion_value
from unireel.world.sampling import CATEGORIES, MIXTURE, relation, sample_scene
from unireel.world.scene import CLIP_FRAMES, COLOURS, RADII, SHAPES
from unireel.world.splits import MOTIONS, SPLITS, held_out, held_out_pairs, split_of
from unireel.world.tracks import reach, tracks

KINDS = (MIXTURE, *CATEGORIES)
any_scene = st.builds(
    sample_scene,
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.sampled_from(SPLITS),
    st.sampled_from(KINDS),
    st.sampled_from(tuple(RADII)),
)


@settings(max_examples=80)
@given(any_scene)
def test_objects_stay_on_the_screen_and_apart(scene):
    rim = 1.5 if scene.style == "outline" else 0.0
    shown = [
        (track, track.screen_radius * reach(each.shape) + rim)
        for each, track in zip(scene.objects, tracks(scene), strict=True)
    ]
    for track, radius in shown:
        for place in (track.screen_x, track.screen_y):
            assert (place - radius >= -0.02).all() and (place + radius <= scene.size - 1 + 0.02).all()
    for (one, first), (two, second) in itertools.combinations(shown, 2):
        apart = np.hypot(one.screen_x - two.screen_x, one.screen_y - two.screen_y)
        assert (apart - first - second >= 1.9).all()


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(SPLITS), st.sampled_from(KINDS), st.sampled_from(tuple(RADII)))
def test_scenes_belong_to_their_split_and_come_again(seed, split, category, size):
    scene = sample_scene(seed, 3, split, category, size)
    assert scene == sample_scene(seed, 3, split, category, size)
    assert split_of(scene) == split
    assert (scene.frames, scene.size) == (CLIP_FRAMES, size)
    unseen = [
        (each.shape, name)
        for each in scene.objects
        for name in (
            each.colour,
            *(event.colour for event in each.events if event.colour),
            *(
                f"{event.action} {event.direction}" if event.direction else event.action
                for event in each.events
            ),
        )
        if held_out(each.shape, name)
    ]
    assert bool(unseen) == (split == "compositional")


def test_splits_leave_enough_of_everything_to_learn_from():
    pairs = held_out_pairs()
    assert set(itertools.chain(*pairs)) <= {*SHAPES, *COLOURS, *MOTIONS}
    for name in (*COLOURS, *MOTIONS):
        assert sum(pair[1] == name for pair in pairs) <= 2
    assert 0.03 < len(pairs) / (len(SHAPES) * (len(COLOURS) + len(MOTIONS))) < 0.2


@pytest.mark.parametrize("category", CATEGORIES)
def test_categories_show_what_they_are_named_after(category):
    for index in range(12):
        scene = sample_scene(11, index, "test", category, 48)
        values = [motion_value(each.events[0] if each.events else None) for each in scene.objects]
        match category:
            case "single object" | "colour":
                assert len(scene.objects) == 1
            case "two objects" | "attribute binding":
                assert len({each.name for each in scene.objects}) == 2
            case "counting":
                assert len(scene.objects) >= 2 and len({each.name for each in scene.objects}) == 1
            case "position":
                assert relation(scene, 0, 1, 0) and values == ["still", "still"]
            case "motion":
                assert values[0].split()[0] in ("move", "circle", "shake")
            case "repetition":
                assert values[0].split()[0] in ("jump", "blink")
            case "order":
                one, two = (each.events[0] for each in scene.objects)
                assert one.start + ORDER_GAP <= two.start
            case "state change":
                assert values[0].split()[0] in ("grow", "shrink", "turn", "appear", "disappear")
            case "camera":
                assert scene.camera.motion != "still"


@pytest.mark.parametrize("arguments", [(0, 0, "dev"), (0, 0, "test", "dancing")])
def test_unknown_splits_and_categories_are_refused(arguments):
    with pytest.raises(UsageError, match="accepted"):
        sample_scene(*arguments)


@pytest.mark.parametrize("category", ["motion", "repetition", "order", "state change", "camera"])
def test_what_has_to_move_cannot_be_still(category):
    with pytest.raises(UsageError, match=f"'{category}' asks for motion"):
        sample_scene(0, 0, "test", category, still=True)
