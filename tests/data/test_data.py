"""Caches, shuffled epochs and dense targets."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unireel.data.cache import CacheConfig, FilmCache, build, epoch_order, scene_of
from unireel.data.targets import CELL_TARGETS, FILM_TARGETS, cell_targets, film_targets, latent_groups
from unireel.errors import UserError
from unireel.world.language import rounded
from unireel.world.render import render_frames
from unireel.world.scene import Event, Object, Scene
from unireel.world.splits import split_of


def test_a_cache_holds_what_the_renderer_draws(tmp_path):
    config = CacheConfig(count=6, size=32)
    build(tmp_path / "films", config, progress=False)
    films = FilmCache(tmp_path / "films")
    assert len(films) == 6
    for index in range(6):
        assert films.scene(index) == scene_of(config, index)
        assert split_of(films.scene(index)) == "train"
        assert np.array_equal(films.frames[index], render_frames(films.scene(index)))
    with pytest.raises(UserError, match="choose another folder"):
        build(tmp_path / "films", CacheConfig(count=7, size=32), progress=False)


def test_films_of_a_rounded_cache_have_the_numbers_of_their_plans(tmp_path):
    config = CacheConfig(count=6, size=48, rounded=True)
    build(tmp_path / "films", config, progress=False)
    films, plain = FilmCache(tmp_path / "films"), CacheConfig(count=6, size=48)
    for index in range(6):
        scene = films.scene(index)
        assert scene == rounded(scene_of(plain, index), places=index % 2 == 0)
        assert np.array_equal(films.frames[index], render_frames(scene))
    with pytest.raises(UserError, match="choose another folder"):
        build(tmp_path / "films", plain, progress=False)


def test_a_cache_from_before_an_option_is_one_without_it(tmp_path):
    build(tmp_path, CacheConfig(count=2, size=32), progress=False)
    made_from = json.loads((tmp_path / "cache.json").read_text())
    del made_from["rounded"]
    (tmp_path / "cache.json").write_text(json.dumps(made_from))
    build(tmp_path, CacheConfig(count=2, size=32), progress=False)
    assert len(FilmCache(tmp_path)) == 2


def test_an_unfinished_cache_is_refused_and_made_anew(tmp_path):
    config = CacheConfig(count=2, size=32)
    build(tmp_path, config, progress=False)
    (tmp_path / "cache.json").unlink()
    with pytest.raises(UserError, match="not a finished cache"):
        FilmCache(tmp_path)
    build(tmp_path, config, progress=False)
    assert len(FilmCache(tmp_path)) == 2


@given(st.integers(0, 99), st.integers(1, 50), st.integers(0, 5))
def test_every_epoch_has_every_item_once(seed, count, epoch):
    order = [epoch_order(seed, count, epoch * count + place) for place in range(count)]
    assert sorted(order) == list(range(count))


def test_latent_groups_of_a_causal_autoencoder():
    assert latent_groups(1) == [(0, 1)]
    assert latent_groups(9) == [(0, 1), (1, 5), (5, 9)]


def test_cells_hold_what_is_drawn_in_them():
    """An object alone on black: the cells that are marked are those where its pixels are, in the frames it is there."""
    figure = Object("square", "yellow", "large", 12.0, 30.0, (Event("disappear", 7, 8),))
    scene = Scene((figure,), "black", size=48)
    groups = latent_groups(17)
    targets = cell_targets(scene, groups, 3)
    assert targets.shape == (5, 3, 3, CELL_TARGETS)
    frames = render_frames(scene).astype(int)
    bright = (frames[..., 0] > 150).reshape(17, 3, 16, 3, 16)
    drawn = bright.sum(axis=(2, 4)) >= 8
    expected = np.stack([drawn[start:end].any(0) for start, end in groups])
    assert np.array_equal(targets.any(-1), expected)
    assert set(targets[0].any((0, 1)).nonzero()[0]) == set(targets.any((0, 1, 2)).nonzero()[0])
    assert targets[0][targets[0].any(-1)].sum(-1).tolist() == [3] * int(expected[0].sum())


def test_a_colour_that_turns_marks_both():
    figure = Object("circle", "red", "small", 24.0, 24.0, (Event("turn", 6, 8, colour="blue"),))
    marks = cell_targets(Scene((figure,), "black", size=48), latent_groups(17), 3).any((1, 2))
    assert (marks[0] != marks[4]).sum() == 2


def test_film_targets_are_one_hot_three_times():
    target = film_targets(Scene((Object("circle", "red", "small", 24, 24),), "navy", style="night"))
    assert target.shape == (FILM_TARGETS,) and target.sum() == 3
