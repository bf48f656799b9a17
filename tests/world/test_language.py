"""Prompts and captions: closed, complete, of bounded length, and the same for the same arguments."""

import dataclasses
import itertools

import pytest

from unireel.world.edits import edit_for
from unireel.world.facts import holds_in
from unireel.world.language import (
    caption_for,
    prompt_for,
    questions_for,
    repeated_names,
    unknown_words,
    vocabulary,
    words,
)
from unireel.world.needles import needle_questions
from unireel.world.sampling import CATEGORIES, MIXTURE, sample_scene
from unireel.world.scene import COLOURS, Camera, Event, Object, Scene
from unireel.world.stories import describe_frame, sample_story

SPLITS = ("train", "test", "compositional")

STAR = Object("star", "red", "large", 15.0, 40.0, (Event("jump", 0, 10, count=2, amount=10.0),))
RING = Object("ring", "blue", "small", 45.0, 40.0)


def scenes(count: int, category: str = MIXTURE) -> list[Scene]:
    """Scenes of all splits."""
    return [sample_scene(11, index, SPLITS[index % 3], category) for index in range(count)]


def test_twenty_thousand_texts_stay_in_the_vocabulary():
    texts = []
    for index, category in itertools.product(range(50), (MIXTURE, *CATEGORIES)):
        scene = sample_scene(5, index, SPLITS[index % 3], category)
        for seed in range(5):
            texts += [prompt_for(scene, seed, category).text, caption_for(scene, seed)]
            texts += [text for each in questions_for(scene, seed) for text in (each.text, each.answer)]
            edit = edit_for(scene, None, seed)
            texts += [edit.instruction] if edit else []
    for index in range(8):
        story = sample_story(5, index, frames=129)
        texts += [describe_frame(story, frame) for frame in range(story.frames)]
        texts += [text for each in needle_questions(story, 0) for text in (each.text, each.answer)]
    assert len(texts) >= 20_000
    assert {word for text in texts for word in unknown_words(text)} == set()


def test_every_word_is_one_token_and_there_are_few():
    known = vocabulary()
    assert len(set(known)) == len(known) < 500
    assert all(words(each) == [each] for each in known)


def test_words_split_at_punctuation_but_not_at_hyphens():
    assert words("A red star, orbiting counter-clockwise.") == [
        *("a", "red", "star", ",", "orbiting", "counter-clockwise", "."),
    ]
    assert unknown_words("a mauve star, a mauve ring") == ["mauve"]


def test_common_spellings_are_understood():
    assert words("what color is the grey background?") == words("what colour is the gray background?")


@pytest.mark.parametrize("category", [MIXTURE, *CATEGORIES])
def test_lengths_are_bounded(category: str):
    for index in range(120):
        scene = sample_scene(2, index, "train", category)
        assert len(words(prompt_for(scene, index, category).text)) <= 48
        assert len(words(caption_for(scene, index))) <= 80


def test_crowded_prompts_are_shortened():
    figures = tuple(
        Object(
            shape,
            "orange",
            "large",
            10.0 + 14 * i,
            20.0,
            (Event("circle", 0, 12, "counter-clockwise", amount=1.0),),
        )
        for i, shape in enumerate(("triangle", "diamond", "circle", "square"))
    )
    scene = Scene(figures, "forest", Camera("zooms out", 0.75), "outline")
    longest = [len(words(prompt_for(scene, seed).text)) for seed in range(300)]
    assert max(longest) <= 48
    assert max(longest) > 40


def test_texts_are_reproducible_and_vary_with_the_seed():
    for scene in scenes(20):
        assert prompt_for(scene, 3) == prompt_for(scene, 3)
        assert caption_for(scene, 3) == caption_for(scene, 3)
        assert len({caption_for(scene, seed) for seed in range(40)}) > 5
        assert len({prompt_for(scene, seed).text for seed in range(40)}) > 5


def test_canonical_caption_says_everything_in_order():
    scene = Scene((RING, STAR), "navy")
    assert caption_for(scene) == (
        "there are two objects. a large red star jumps twice, a small blue ring stays still. "
        "at the start the red star is left of the blue ring. at the end the red star is left of the blue ring. "
        "the background is navy. the camera stays still. the style is plain."
    )


def test_captions_do_not_depend_on_how_a_scene_is_stored():
    for scene in scenes(60):
        backwards = dataclasses.replace(scene, objects=scene.objects[::-1])
        assert caption_for(backwards) == caption_for(scene)


def test_what_prompts_state():
    stated = {"background": 0, "size": 0}
    count = 300
    for scene in scenes(count):
        prompt = prompt_for(scene, 1)
        kinds = [each.kind for each in prompt.facts]
        assert all(holds_in(scene, each) for each in prompt.facts)
        assert len(set(prompt.facts)) == len(prompt.facts)
        assert scene.camera.motion == "still" or "camera" in kinds
        assert (scene.style != "plain") == ("style" in kinds)
        moving = {each.shape for each in scene.objects if each.events}
        assert moving <= {
            each.subject.shape for each in prompt.facts if each.kind == "motion" and each.subject
        }
        stated["background"] += "background" in kinds
        stated["size"] += "size" in kinds
    assert 0.85 < stated["background"] / count < 0.98
    assert 0.4 < stated["size"] / count < 0.9


def test_positions_are_always_asked_for_in_their_category():
    for scene in scenes(60, "position"):
        facts = prompt_for(scene, 0, "position").facts
        assert [each.when for each in facts if each.kind == "relation"] == ["first"]


def test_sequences_are_stated_in_the_order_category():
    for scene in scenes(60, "order"):
        facts = prompt_for(scene, 0, "order").facts
        earlier = min(scene.objects, key=lambda each: each.events[0].start)
        assert [each.subject.shape for each in facts if each.kind == "order" and each.subject] == [
            earlier.shape
        ]


def test_groups_are_named_together():
    triple = Object("star", "red", "small", 0.0, 0.0, STAR.events)
    scene = Scene(tuple(dataclasses.replace(triple, x=10.0 + 20 * i, y=40.0) for i in range(3)), "sand")
    assert "three small red stars jump twice" in caption_for(scene)
    assert any(text.startswith("three ") for text in (prompt_for(scene, seed).text for seed in range(9)))


def test_grayscale_films_never_mention_colours_of_objects():
    gray = [s for s in scenes(400) if s.style == "grayscale"]
    assert len(gray) > 10
    for scene in gray:
        texts = [prompt_for(scene, 0).text, caption_for(scene, 0)]
        texts += [text for each in questions_for(scene, 0) for text in (each.text, each.answer)]
        assert not set(COLOURS) & {word for text in texts for word in words(text)}


def test_captions_never_say_what_would_repeat_a_name():
    for index in range(150):
        said = words(caption_for(sample_scene(3, index, size=48), index))
        for place, word in enumerate(said):
            assert word not in repeated_names(said[:place]), " ".join(said[: place + 1])


@pytest.mark.parametrize(
    ("said", "next_word"),
    [
        ("there are two objects. a small red star jumps once, a small red", "star"),
        ("there are two objects. a small red star jumps once, two large red", "stars"),
        ("there are two objects. a small star jumps once, a large", "star"),
        (
            "a small red star stays still, a large blue star stays still. at the start the red star is above the red",
            "star",
        ),
    ],
)
def test_a_name_said_twice_is_a_repetition(said, next_word):
    assert next_word in repeated_names(words(said))
    assert "ring" not in repeated_names(words(said))


def test_relations_may_name_who_was_introduced():
    said = words("a small red star stays still, a large blue star stays still. at the start the red")
    assert repeated_names(said) == set()
    assert "star" not in repeated_names([*said, "star", "is", "above", "the", "blue"])
