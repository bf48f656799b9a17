"""The renderer: areas by closed form, colours that are told apart, motion on the screen, the same bytes everywhere."""

import hashlib
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unireel.world.render import (
    LUMA,
    NIGHT,
    RING_HOLE,
    TEXTURE_AMPLITUDE,
    distance_table,
    render,
    render_frames,
    shape_distance,
)
from unireel.world.sampling import sample_scene
from unireel.world.scene import BACKGROUNDS, COLOURS, RADII, SHAPES, Camera, Event, Object, Scene

FINGERPRINTS = {
    (0, 0, "train", "mixture", 48): "e5f880e122df6f05",
    (0, 1, "test", "camera", 64): "28f0c1c174fbb347",
    (7, 2, "compositional", "state change", 48): "e987f5ba43c0883e",
    (7, 3, "train", "motion", 32): "c611d17de5a0d04f",
}
"""Heads of the SHA-256 of some films: what models were trained on must not change unnoticed, nor by platform."""

AREAS = {
    "circle": math.pi,
    "square": 1.68**2,
    "triangle": 2.16 * 1.92 / 2,
    "diamond": 2 * 1.2,
    "cross": 2 * 2 * 0.68 - 0.68**2,
    "ring": math.pi * (1 - RING_HOLE**2),
}
"""Areas in squares of the radius, by the shapes' corners; the star has no short formula."""


def film(
    shape="circle", colour="red", background="black", size=64, frames=1, events=(), camera="still", amount=1.0
):
    figure = Object(shape, colour, "large", size / 2, size / 2, events)
    return render_frames(Scene((figure,), background, Camera(camera, amount), frames=frames, size=size))


@pytest.mark.parametrize("arguments", FINGERPRINTS)
def test_films_have_the_same_bytes_on_every_platform(arguments):
    frames = render_frames(sample_scene(*arguments))
    assert hashlib.sha256(frames.tobytes()).hexdigest()[:16] == FINGERPRINTS[arguments]


@pytest.mark.parametrize("shape", AREAS)
def test_every_shape_covers_its_area(shape):
    frame = film(shape, "white").astype(float)[0, :, :, 0]
    texture = render_frames(Scene((Object(shape, "white", "large", -99, -99),), "black", frames=1))[
        0, :, :, 0
    ]
    covered = (frame - texture).sum() / (238 - 18)
    assert covered == pytest.approx(AREAS[shape] * RADII[64]["large"] ** 2, rel=0.04)


@pytest.mark.parametrize("shape", SHAPES)
def test_distances_are_those_to_the_nearest_outline_point(shape):
    """Against brute force: the zero crossings of the coverage on a fine grid."""
    axis = np.linspace(-1.5, 1.5, 301)
    field = shape_distance(shape, axis, axis)
    inside = field < 0
    edge = np.argwhere(inside[1:, 1:] != inside[:-1, 1:]) / 100 - 1.495
    edge2 = np.argwhere(inside[1:, 1:] != inside[1:, :-1]) / 100 - 1.495
    points = np.concatenate([edge + np.array([0, 0.005]), edge2 + np.array([0.005, 0])])
    for x, y in np.random.default_rng(0).uniform(-1.4, 1.4, (200, 2)):
        nearest = np.hypot(points[:, 0] - y, points[:, 1] - x).min()
        found = abs(float(shape_distance(shape, np.array([x]), np.array([y]))[0, 0]))
        assert found == pytest.approx(nearest, abs=0.035)


def test_distance_tables_are_mirrored_and_negative_inside():
    for shape in SHAPES:
        table = distance_table(shape)
        assert np.allclose(table, table[:, ::-1], atol=1e-5)
        assert (table[80, 80] < 0) == (shape != "ring")
        assert table[0, 0] > 0


@pytest.mark.parametrize("size", RADII)
@pytest.mark.parametrize("colour", COLOURS)
def test_the_nearest_colour_of_a_shaded_object_is_its_own(colour, size):
    figure = Object("square", colour, "large", size / 2, size / 2)
    frame = render_frames(Scene((figure,), "navy", frames=1, size=size))[0].astype(float)
    middle, half = size // 2, RADII[size]["large"] // 2
    pixels = frame[middle - half : middle + half, middle - half : middle + half].reshape(-1, 3)
    palette = np.array(list(COLOURS.values()), dtype=float)
    nearest = np.linalg.norm(pixels[:, None] - palette, axis=-1).argmin(1)
    assert (nearest == list(COLOURS).index(colour)).all()


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_backgrounds_keep_near_their_colour_and_styles_tone_them(background):
    nominal = np.array(BACKGROUNDS[background], dtype=float)
    plain = render_frames(Scene((Object("circle", "red", "small", -99, -99),), background, frames=1))[
        0
    ].astype(float)
    assert np.abs(plain - nominal).max() <= TEXTURE_AMPLITUDE + 0.5
    assert np.abs(plain.mean((0, 1)) - nominal).max() < 1
    assert plain[..., 1].std() > 1
    scene = Scene((Object("circle", "red", "small", -99, -99),), background, style="night", frames=1)
    assert np.abs(render_frames(scene)[0].mean((0, 1)) - nominal * NIGHT).max() < 1
    scene = Scene((Object("circle", "red", "small", 32, 32),), background, style="grayscale", frames=1)
    gray = render_frames(scene)[0]
    assert (gray[..., 0] == gray[..., 1]).all() and (gray[..., 1] == gray[..., 2]).all()
    assert gray[0].mean() == pytest.approx(plain[0].mean(0) @ LUMA, abs=1)


def test_objects_go_where_their_events_say():
    still = Event("move", 0, 16, direction="right", amount=16.0)
    frames = film("circle", "white", events=(still,), frames=17).astype(float)[..., 0]
    weight = np.where(frames > 60, frames, 0)
    x = (weight.sum(1) @ np.arange(64)) / weight.sum((1, 2))
    assert np.diff(x) == pytest.approx(np.ones(16), abs=0.1)


@pytest.mark.parametrize(
    ("motion", "axis", "sign"), [("pans right", 0, -1), ("pans down", 1, -1), ("pans left", 0, 1)]
)
def test_the_picture_moves_against_the_camera(motion, axis, sign):
    frames = film("circle", "white", frames=17, camera=motion, amount=12.0).astype(float)[..., 0]
    weight = np.where(frames > 60, frames, 0)
    middle = [(weight.sum(other) @ np.arange(64)) / weight.sum((1, 2)) for other in (1, 2)]
    assert middle[axis][-1] - middle[axis][0] == pytest.approx(12 * sign, abs=0.2)
    assert abs(middle[1 - axis][-1] - middle[1 - axis][0]) < 0.2


def test_zooming_in_enlarges_by_the_square_of_the_factor():
    frames = film("square", "white", frames=17, camera="zooms in", amount=1.3).astype(float)[..., 0]
    area = (frames > 120).sum((1, 2))
    assert area[-1] / area[0] == pytest.approx(1.3**2, rel=0.1)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([32, 48, 64]))
def test_rendering_twice_gives_the_same_film(seed, size):
    scene = sample_scene(seed, 0, size=size)
    clip = render(scene)
    assert clip.frames.shape == (17, size, size, 3) and clip.fps == 8
    assert (clip.frames == render_frames(Scene.from_json(scene.to_json()))).all()


def test_render_speed_is_shown(capsys):
    scenes = [sample_scene(1, index, size=48) for index in range(20)]
    render(scenes[0])
    start = time.process_time()
    for scene in scenes:
        render(scene)
    rate = len(scenes) / max(time.process_time() - start, 1e-6)
    with capsys.disabled():
        print(f"\nrendering: {rate:.0f} clips of 17 frames at 48x48 a second of processor time")
    assert rate > 20
