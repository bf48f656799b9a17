"""Lessons and sights: arrays against the scenes that they were made from."""

import numpy as np
import pytest
import torch

from unireel.data.cache import CacheConfig, FilmCache, build
from unireel.data.lessons import CAPTION, SEEDS, Lessons
from unireel.data.sights import SCALES, SIGHT_TARGETS, TUBE, place_objects, sight_loss
from unireel.world.language import QUESTION_TYPES, caption_for, questions_for, vocabulary
from unireel.world.language.vocabulary import words
from unireel.world.scene import COLOURS, SHAPES
from unireel.world.tracks import tracks

COUNT = 12


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> FilmCache:
    folder = tmp_path_factory.mktemp("films")
    build(folder, CacheConfig(COUNT, size=48), progress=False)
    return FilmCache(folder)


@pytest.fixture(scope="module")
def lessons(films) -> Lessons:
    return Lessons(films, progress=False)


def test_turns_are_the_questions_and_the_caption(films, lessons):
    known = np.array(vocabulary())
    for index in range(COUNT):
        scene = films.scene(index)
        found = set()
        for kind, start, middle, end in lessons.turns[
            lessons.first_turn[index] : lessons.first_turn[index + 1]
        ]:
            name = "caption" if kind == CAPTION else QUESTION_TYPES[kind]
            found.add(
                (name, *(tuple(known[lessons.words[a:b]]) for a, b in ((start, middle), (middle, end))))
            )
        expected: set[tuple[str, tuple[str, ...], tuple[str, ...]]]
        expected = {("caption", (), tuple(words(caption_for(scene))))}
        for seed in SEEDS:
            for each in questions_for(scene, seed):
                expected.add((each.type, tuple(words(each.text)), tuple(words(each.answer))))
        assert found == expected


def test_states_are_the_tracks(films, lessons):
    for index in range(COUNT):
        scene = films.scene(index)
        for number, (figure, track) in enumerate(zip(scene.objects, tracks(scene), strict=True)):
            x, y, radius, visible, colour = lessons.states[index, number].T
            assert SHAPES[lessons.shapes[index, number]] == figure.shape
            assert np.allclose(x, track.screen_x, atol=0.05) and np.allclose(y, track.screen_y, atol=0.05)
            assert np.allclose(radius, track.screen_radius, atol=0.02)
            assert (visible == track.visible).all() and (colour == track.colour).all()
        assert (lessons.shapes[index, len(scene.objects) :] == -1).all()
        assert not lessons.states[index, len(scene.objects) :, :, 3].any()


def test_made_lessons_are_read_again(films, lessons):
    again = Lessons(films, progress=False)
    assert (again.turns == lessons.turns).all() and (again.motions == lessons.motions).all()


CENTRES = torch.tensor([[7.5, 7.5], [23.5, 7.5], [7.5, 23.5], [23.5, 23.5]])


def _one_object(x: float, y: float, radius: float = 5.0, visible: float = 1.0) -> torch.Tensor:
    return torch.tensor([x, y, radius, visible, 3.0]).expand(1, 1, 1, TUBE, 5).clone()


def test_a_place_stands_for_what_covers_it_or_has_its_centre_in_it():
    near = _one_object(12.0, 8.0)
    assert place_objects(near, CENTRES).tolist() == [[[0, -1, -1, -1]]]
    assert place_objects(near, CENTRES, side=16).tolist() == [[[0, -1, -1, -1]]]
    far = _one_object(14.0, 14.0)
    assert place_objects(far, CENTRES).tolist() == [[[-1, -1, -1, -1]]]
    assert place_objects(far, CENTRES, side=16).tolist() == [[[0, -1, -1, -1]]]
    assert place_objects(_one_object(8.0, 8.0, visible=0.0), CENTRES).max() == -1
    both = torch.cat([far, near], dim=1)
    assert place_objects(both, CENTRES, side=16)[0, 0, 0] == 1  # the nearer of two


def test_perfect_sight_costs_nothing_and_blindness_much():
    states, shapes, film = _one_object(12.0, 8.0), torch.tensor([[2]]), torch.zeros(1, 16)
    owner = place_objects(states, CENTRES, side=16)
    logits = torch.full((1, 1, 4, SIGHT_TARGETS), -30.0)
    logits[0, 0, 0, 0] = 30
    logits[0, 0, 0, 1 + 2] = 30
    logits[0, 0, 0, 1 + len(SHAPES) + 3] = 30
    first = 1 + len(SHAPES) + len(COLOURS)
    logits[0, 0, 0, first : first + TUBE] = 30
    track = (torch.tensor([12.0 - 7.5, 8.0 - 7.5, 5.0]) / torch.tensor(SCALES)).repeat(TUBE)
    logits[0, 0, 0, first + TUBE :] = track
    loss, logs = sight_loss(logits, owner, (states, shapes, film), CENTRES)
    assert float(loss) < 1e-6 and float(logs["shape"]) == float(logs["colour"]) == float(logs["there"]) == 1
    logits[0, 0, 0, 1 + 2], logits[0, 0, 0, 1 + 4] = -30, 30
    worse, logs = sight_loss(logits, owner, (states, shapes, film), CENTRES)
    assert float(worse) > 10 and float(logs["shape"]) == 0
