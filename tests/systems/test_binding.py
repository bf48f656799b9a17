"""The generator's auxiliary losses: nouns are those of the grammar, looking there costs nothing, and heads learn."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
# pyright: reportOptionalMemberAccess=false

import math

import numpy as np
import pytest
import torch

from unireel.backbones.text import SPECIAL_TOKENS, tokenize, word_tokenizer
from unireel.backbones.wan import PLACE_WAVES, MatmulAttention, pocket_transformer, predict, waves
from unireel.data.cache import CacheConfig, FilmCache, build
from unireel.data.lessons import Lessons
from unireel.data.sights import TUBE, shape_masks
from unireel.data.wording import named_objects
from unireel.systems.base.stages.binding import Binding, Uncertainty, latent_frames
from unireel.world.language import PLAN_WORDS, parse, plan_for, plan_numbers, prompt_for, vocabulary
from unireel.world.language.vocabulary import words
from unireel.world.render import render_frames
from unireel.world.scene import MAX_OBJECTS, SHAPES, Object, Scene
from unireel.world.tracks import tracks

FILMS = 24
LENGTH = PLAN_WORDS + 1


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> FilmCache:
    folder = tmp_path_factory.mktemp("binding")
    build(folder, CacheConfig(FILMS, 32), progress=False)
    return FilmCache(folder)


@pytest.fixture(scope="module")
def batch(films) -> dict[str, torch.Tensor]:
    lessons = Lessons(films, progress=False)
    scenes = [films.scene(place) for place in range(FILMS)]
    texts = [prompt_for(scene, place).text for place, scene in enumerate(scenes)]
    return _batch(scenes, texts, lessons) | {"planned": torch.zeros(FILMS, dtype=torch.bool)}


@pytest.fixture(scope="module")
def plans(films) -> dict[str, torch.Tensor]:
    scenes = [films.scene(place) for place in range(FILMS)]
    texts = [plan_for(scene) for scene in scenes]
    batch = _batch(scenes, texts, Lessons(films, progress=False))
    return batch | {"planned": torch.ones(FILMS, dtype=torch.bool)}


def _batch(scenes, texts, lessons) -> dict[str, torch.Tensor]:
    ids, _ = tokenize(word_tokenizer(vocabulary()), texts, LENGTH)
    numbers = torch.zeros(FILMS, MAX_OBJECTS, 6)
    for place, scene in enumerate(scenes):
        for number, figure in enumerate(scene.objects):
            numbers[place, number] = torch.tensor(plan_numbers(figure, scene))
    return {
        "ids": ids,
        "numbers": numbers,
        "states": torch.from_numpy(lessons.states[:, :, latent_frames(17)].astype(np.float32)),
        "shapes": torch.from_numpy(lessons.shapes).long(),
        "motions": torch.from_numpy(lessons.motions),
        "film": torch.from_numpy(lessons.films),
    }


@pytest.fixture
def binding() -> Binding:
    torch.manual_seed(0)
    return Binding(width=16, text_width=12, size=32, side=8)


def test_latent_frames_are_the_causal_autoencoders():
    assert latent_frames(9).tolist() == [[0] * TUBE, [1, 2, 3, 4], [5, 6, 7, 8]]


def test_nouns_name_the_objects_that_the_parser_reads(films, batch, binding):
    named = binding.named(batch)
    for place in range(FILMS):
        scene = films.scene(place)
        prompt = prompt_for(scene, place)
        said = words(prompt.text)
        for number, figure in enumerate(scene.objects):
            marked = [said[each] for each in named[place, number].nonzero().flatten()]
            assert marked and all(word.rstrip("es") == figure.shape.rstrip("es") for word in marked)
        assert not named[place, len(scene.objects) :].any()
        referents = {fact.subject for fact in parse(prompt.text) if fact.kind == "object"}
        groups = {(figure.shape, figure.colour) for figure in scene.objects}
        assert len(referents) == (len(groups) if scene.style != "grayscale" else len({s for s, _ in groups}))


def test_a_colour_keeps_objects_of_one_shape_apart():
    ids, _ = tokenize(word_tokenizer(vocabulary()), ["a red star moves left, a blue star jumps once"], 12)
    star, red, blue = SHAPES.index("star"), 0, 4
    named = named_objects(
        ids, torch.tensor([[star, star, -1]]), torch.tensor([[red, blue, 0]]), torch.zeros(1, 3, 2)
    )
    assert named[0].nonzero().tolist() == [[0, 2], [1, 8]]


def test_in_a_plan_each_noun_names_one_object(films, plans, binding):
    named = binding.named(plans)
    for place in range(FILMS):
        count = len(films.scene(place).objects)
        assert named[place].sum(1).tolist() == [1] * count + [0] * (MAX_OBJECTS - count)
        assert named[place].sum(0).max() == 1
        said = words(plan_for(films.scene(place)))
        order = [int(each.nonzero()) for each in named[place, :count]]
        assert order == sorted(order) and [said[i] for i in order] == [
            o.shape for o in films.scene(place).objects
        ]


def test_numbers_of_plans_are_learned_where_they_are_said(plans, binding):
    """A head that knows the right waves has no loss from numbers; without places only times count."""
    named = binding.named(plans)
    b, o, place = named.nonzero(as_tuple=True)
    wanted = waves(plans["numbers"][b, o] / 10, PLACE_WAVES).flatten(1)
    width = wanted.shape[1]
    text = torch.zeros(FILMS, LENGTH, width)
    text[b, place] = wanted
    wide = Binding(width=16, text_width=width, size=32, side=8)
    with torch.no_grad():
        wide.numbers.weight.copy_(torch.eye(width))
        wide.numbers.bias.zero_()
    right, _ = wide.words(text, named, plans)
    with torch.no_grad():
        wide.numbers.bias[: 4 * 2 * PLACE_WAVES] += 1
    wrong, _ = wide.words(text, named, plans)
    assert float(wrong - right) == pytest.approx(4 / 6 * 2 * PLACE_WAVES, rel=1e-3)
    unplanned = plans | {"planned": torch.zeros(FILMS, dtype=torch.bool)}
    assert float(wide.words(text, named, unplanned)[0]) == pytest.approx(float(right), rel=1e-4)


def test_looking_at_the_nouns_costs_nothing_and_elsewhere_what_it_misses(batch, binding):
    named, owner, ids = binding.named(batch), binding.owner(batch), batch["ids"]
    flat = owner.flatten(1)
    right = (ids == SPECIAL_TOKENS.index("</s>"))[:, None].repeat(1, flat.shape[1], 1).float()
    b, n = (flat >= 0).nonzero(as_tuple=True)
    right[b, n] = named[b, flat[b, n]].float()
    right = right / right.sum(-1, keepdim=True)
    assert float(binding.attention(right, named, owner, ids)) == pytest.approx(0, abs=1e-3)
    uniform = torch.full_like(right, 1 / LENGTH)
    share = named[b, flat[b, n]].sum(-1) / LENGTH
    nouns, end = -(share + 1e-4).log().mean(), -math.log(1 / LENGTH + 1e-4)
    assert float(binding.attention(uniform, named, owner, ids)) == pytest.approx(float(nouns) + end, rel=1e-5)


def test_tokens_belong_to_objects_that_touch_them(batch, binding):
    owner = binding.owner(batch)
    assert owner.shape == (FILMS, 5, 16)
    state, place = batch["states"][0, 0, 0, 0], torch.tensor([3.5, 11.5, 19.5, 27.5])
    near = ((state[0] - place)[None] ** 2 + (state[1] - place)[:, None] ** 2).sqrt() < state[2] + 3
    assert ((owner[0, 0] == 0).view(4, 4) <= near).all() and (owner[0, 0] == 0).any() == bool(state[3])


def test_watched_attention_keeps_the_weights_of_its_first_head():
    torch.manual_seed(0)
    model = pocket_transformer(32, 2, 2, 48, 4, 2, 12)
    watched = MatmulAttention(watched=0)
    model.blocks[1].attn2.set_processor(watched)
    text = torch.randn(3, 7, 12)
    plain = predict(model, torch.randn(3, 4, 2, 8, 8), torch.rand(3), text)
    assert plain.shape == (3, 4, 2, 8, 8)
    assert watched.seen.shape == (3, 32, 7)
    assert torch.allclose(watched.seen.sum(-1), torch.ones(3, 32), atol=1e-5)


def test_the_heads_learn_what_states_hold(batch, binding):
    """States that say which object they draw let the heads get shapes right; random ones do not."""
    owner = binding.owner(batch)
    hidden = torch.zeros(FILMS, owner[0].numel(), 16)
    shape = batch["shapes"].gather(1, owner.flatten(1).clamp(min=0))
    hidden.scatter_(2, torch.where(owner.flatten(1) >= 0, shape, 15)[..., None], 4.0)
    optimizer = torch.optim.Adam(binding.parameters(), lr=0.03)
    for _ in range(120):
        loss, logs = binding.drawing(hidden, owner, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(logs["shape"]) == 1.0 and float(logs["there"]) == 1.0
    noise, shares = binding.drawing(torch.randn_like(hidden), owner, batch)
    assert float(noise.detach()) > 2 * float(loss.detach()) and float(shares["shape"]) < 0.6


def test_words_at_nouns_and_at_the_end(batch, binding):
    named = binding.named(batch)
    text = torch.zeros(FILMS, LENGTH, 12)
    b, o, place = named.nonzero(as_tuple=True)
    text[b, place, batch["shapes"][b, o]] = 5.0
    optimizer = torch.optim.Adam(binding.parameters(), lr=0.05)
    for _ in range(60):
        loss, right = binding.words(text, named, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(right) == 1.0 and math.isfinite(float(loss.detach()))


def test_masks_are_the_pixels_that_the_renderer_draws(batch, binding):
    """A head that puts out the rendered film's own coverage has no more loss than the entropy of its soft edges."""
    scene = Scene((Object("star", "red", "large", 15.3, 14.6),), "black", size=32)
    track = tracks(scene)[0]
    row = np.stack(
        [track.screen_x, track.screen_y, track.screen_radius, track.visible, track.colour], axis=-1
    )
    state = torch.from_numpy(row[:1].astype(np.float32))[None]
    corners = torch.tensor([[8.0, 8.0], [16.0, 8.0], [8.0, 16.0], [16.0, 16.0]])
    shape = torch.full((4,), SHAPES.index("star"))
    found = shape_masks(shape, state.expand(4, -1, -1), corners, 8)[:, 0].numpy()
    red = render_frames(scene)[0, ..., 0].astype(float)
    drawn = np.clip((red - 18) / (red.max() - 18), 0, 1)
    squares = [drawn[y : y + 8, x : x + 8] for x, y in corners.int().tolist()]
    assert np.abs(found - np.stack(squares)).mean() < 0.03
    assert 0.2 < found.mean() < 0.8


def test_uncertainty_is_least_where_it_expects_what_comes():
    torch.manual_seed(0)
    expected = Uncertainty(kinds=2)
    optimizer = torch.optim.Adam(expected.parameters(), lr=0.05)
    for _ in range(400):
        time, kind = torch.rand(256), torch.randint(2, (256,))
        loss = (0.1 + kind + time) * torch.rand(256) * 2
        weighed = expected(loss, time, kind).mean()
        optimizer.zero_grad()
        weighed.backward()
        optimizer.step()
    for kind in (0, 1):
        curve = expected.curves[kind].detach().exp()
        assert torch.allclose(curve, 0.1 + kind + torch.linspace(0, 1, 17), rtol=0.35)
