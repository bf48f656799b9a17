"""The checker: it sees what was rendered, also through a codec, and nothing else."""

import dataclasses

import numpy as np
import pytest

from unireel.clip import Clip
from unireel.errors import UsageError, UserError
from unireel.world.agreement import corrupt, measure, quick_figures, table
from unireel.world.checker import agrees, check, observe
from unireel.world.facts import Fact, Referent
from unireel.world.render import render, render_frames
from unireel.world.sampling import sample_scene
from unireel.world.scene import BACKGROUNDS, Camera, Event, Object, Scene
from unireel.world.tracks import tracks

STAR = Referent("star", "red")


def scene_of(*objects: Object, background: str = "navy", **more) -> Scene:
    return Scene(objects, background, size=48, **more)


def star(*events: Event, size: str = "small", x: float = 24.0, y: float = 30.0) -> Object:
    return Object("star", "red", size, x, y, events)


def without(scene: Scene) -> np.ndarray:
    """The frames of ``scene`` with nothing in them."""
    away = tuple(dataclasses.replace(each, x=-999.0, events=()) for each in scene.objects)
    return render_frames(dataclasses.replace(scene, objects=away))


@pytest.mark.parametrize("corruption", ["none", "all"])
def test_what_is_true_is_accepted_and_what_is_false_rejected(corruption):
    tallies = measure(44, size=48, seed=5, corruption=corruption)
    assert {"objects", "shape", "colour", "size", "count", "background", "camera", "style"} <= set(tallies)
    trues, falses = sum(t.trues for t in tallies.values()), sum(t.falses for t in tallies.values())
    assert sum(t.accepted for t in tallies.values()) >= 0.99 * trues
    assert sum(t.rejected for t in tallies.values()) >= 0.99 * falses
    assert "shape" in table(tallies, corruption)


def test_the_quick_figures_are_shares():
    figures = quick_figures(n=4)
    assert 0.9 <= figures["agreement"] <= 1 and 0.9 <= figures["rejection"] <= 1 and figures["n"] == 4


@pytest.mark.parametrize("index", range(8))
def test_places_radii_and_camera_are_measured(index):
    scene = sample_scene(21, index, category="camera", size=48)
    seen = observe(render(scene))
    left = list(seen.objects)
    for truth in tracks(scene):

        def distance(each, truth=truth):
            return np.nanmean(np.hypot(each.x - truth.screen_x, each.y - truth.screen_y))

        nearest = min(left, key=distance)
        left.remove(nearest)
        assert distance(nearest) < 0.5
        melts = (
            np.abs(np.diff(truth.rgb, axis=0)).max() > 0
        )  # between two colours it may look like the ground
        assert (nearest.visible != truth.visible).sum() <= melts
        assert np.nanmean(np.abs(nearest.radius - truth.screen_radius)) < 0.5
    assert not left
    assert seen.camera.motion == scene.camera.motion
    amount = max(abs(seen.camera.shift_x[-1]), abs(seen.camera.shift_y[-1]), key=float)
    if scene.camera.motion.startswith("pans"):
        assert amount == pytest.approx(scene.camera.amount, abs=0.3)
    else:
        assert seen.camera.zoom[-1] == pytest.approx(scene.camera.amount, abs=0.04)


@pytest.mark.parametrize(
    ("event", "value"),
    [
        (Event("move", 2, 14, direction="left", amount=16.0), "move left"),
        (Event("circle", 0, 15, direction="clockwise", amount=6.0), "circle clockwise"),
        (Event("jump", 1, 12, count=2, amount=8.0), "jump 2"),
        (Event("shake", 2, 14, amount=2.25), "shake"),
        (Event("grow", 2, 14), "grow"),
        (Event("turn", 6, 8, colour="green"), "turn green"),
        (Event("appear", 6, 7), "appear"),
        (Event("disappear", 6, 7), "disappear"),
        (Event("blink", 0, 15, count=3), "blink 3"),
    ],
)
def test_every_motion_is_seen_and_undone_by_freezing_the_film(event, value):
    scene = scene_of(star(event))
    seen = observe(render(scene))
    assert seen.holds(Fact("motion", STAR, value))
    start = seen.objects[0].events[0].start
    assert abs(start - event.start) <= 2
    shown = tracks(scene)[0].visible.argmax()
    frozen = Clip(np.repeat(render_frames(scene)[shown : shown + 1], 17, axis=0), 8)
    assert observe(frozen).holds(Fact("motion", STAR, "still"))
    assert not observe(frozen).holds(Fact("motion", STAR, value))


def test_a_reversed_film_moves_the_other_way():
    scene = scene_of(star(Event("move", 2, 14, direction="left", amount=16.0)), camera=Camera("pans up", 8.0))
    clip = Clip(render_frames(scene)[::-1], 8)
    assert check(clip, [Fact("motion", STAR, "move right"), Fact("camera", value="pans down")]).all_hold


def test_order_and_relation_are_read_from_the_film():
    early = star(Event("jump", 0, 5, count=1, amount=8.0), x=10.0)
    late = Object("ring", "white", "small", 36.0, 30.0, (Event("jump", 9, 14, count=1, amount=8.0),))
    clip = render(scene_of(early, late))
    ring = Referent("ring", "white")
    assert check(
        clip, [Fact("order", STAR, other=ring), Fact("relation", STAR, "left of", ring, "first")]
    ).all_hold
    wrong = check(clip, [Fact("order", ring, other=STAR), Fact("relation", STAR, "above", ring, "last")])
    assert [holds for _, holds in wrong.outcomes] == [False, False]
    assert "FAILS" in str(wrong)


def test_a_flicker_of_one_frame_is_forgiven_and_a_longer_gap_is_not():
    scene = scene_of(star(Event("move", 0, 16, direction="right", amount=16.0), x=14.0))
    frames, empty = render_frames(scene), without(scene)
    flicker = frames.copy()
    flicker[7] = empty[7]
    assert all(agrees(Clip(flicker, 8), scene).values())
    gap = frames.copy()
    gap[6:9] = empty[6:9]
    assert not agrees(Clip(gap, 8), scene)["objects"]


def test_a_visitor_of_one_frame_is_no_object_and_a_second_figure_is():
    scene = scene_of(star(x=12.0))
    frames = render_frames(scene)
    guest = render_frames(scene_of(star(x=12.0), Object("circle", "green", "small", 36.0, 12.0)))
    spotted = frames.copy()
    spotted[5] = guest[5]
    assert all(agrees(Clip(spotted, 8), scene).values())
    outcome = agrees(Clip(guest, 8), scene)
    assert not outcome["objects"] and not outcome["count"]
    assert outcome["shape"] and outcome["colour"] and outcome["background"]


def test_a_figure_that_changes_its_shape_is_no_shape():
    other = dataclasses.replace(star(size="large"), shape="circle")
    frames = render_frames(scene_of(star(size="large")))
    frames[9:] = render_frames(scene_of(other))[9:]
    seen = observe(Clip(frames, 8))
    assert not seen.holds(Fact("object", STAR)) and not seen.holds(Fact("object", Referent("circle", "red")))


def test_what_is_not_the_world_is_implausible():
    random = np.random.default_rng(0)
    noise = Clip(random.integers(0, 256, (17, 48, 48, 3), dtype=np.uint8), 8)
    ramp = np.broadcast_to(np.linspace(0, 255, 48)[:, None, None] * [1.0, 0.6, 0.2], (17, 48, 48, 3))
    blank = Clip(without(scene_of(star())), 8)
    for clip in (noise, Clip(ramp.astype(np.uint8), 8), blank):
        assert not observe(clip).plausible
    for index in range(6):
        assert observe(corrupt(render(sample_scene(8, index, size=48)), "all", index)).plausible


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_single_pictures_are_read_too(background):
    scene = dataclasses.replace(scene_of(star(size="large"), background=background), frames=1)
    outcome = agrees(render(scene), scene)
    assert all(outcome.values())


def test_colours_cannot_be_asked_of_a_film_in_shades_of_gray():
    scene = scene_of(star(size="large"), background="sand", style="grayscale")
    seen = observe(render(scene))
    assert seen.style == "grayscale"
    assert seen.holds(Fact("object", Referent("star"))) and not seen.holds(Fact("object", STAR))


def test_other_sizes_and_corruptions_are_refused():
    with pytest.raises(UserError, match="resize"):
        observe(Clip(np.zeros((3, 48, 64, 3), dtype=np.uint8), 8))
    with pytest.raises(UsageError, match="accepted"):
        corrupt(render(scene_of(star())), "mould")
