"""The parser: reads back exactly what prompts and captions say, and survives everything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unireel.evaluation.worldbench.images import TAGS
from unireel.world.facts import Fact, Referent, holds_in
from unireel.world.language import (
    caption_facts,
    caption_for,
    caption_score,
    parse,
    prompt_for,
    read,
    vocabulary,
)
from unireel.world.sampling import CATEGORIES, MIXTURE, sample_scene
from unireel.world.scene import COLOURS, SHAPES, Object, Scene
from unireel.world.splits import split_of
from unireel.world.stories import sample_story

RED_STAR, BLUE_RING = Referent("star", "red"), Referent("ring", "blue")

seeds = st.integers(0, 2**32)
categories = st.sampled_from((MIXTURE, *CATEGORIES))
splits = st.sampled_from(("train", "test", "compositional"))


@given(seeds, seeds, categories, splits)
def test_prompts_are_read_back(index: int, seed: int, category: str, split: str):
    scene = sample_scene(1, index, split, category)
    prompt = prompt_for(scene, seed, category)
    reading = read(prompt.text)
    assert set(reading.facts) == set(prompt.facts), prompt.text
    assert reading.skipped == []
    assert all(holds_in(scene, each) for each in reading.facts)


@given(seeds, seeds, st.sampled_from(tuple(TAGS)), splits)
def test_prompts_for_pictures_speak_of_no_motion(index: int, seed: int, category: str, split: str):
    scene = sample_scene(1, index, split, category, still=True)
    assert split_of(scene) == split
    assert not any(each.events for each in scene.objects) and scene.camera.motion == "still"
    prompt = prompt_for(scene, seed, category, picture=True)
    reading = read(prompt.text)
    assert set(reading.facts) == set(prompt.facts), prompt.text
    assert reading.skipped == []
    kinds = {each.kind for each in prompt.facts}
    assert {"count", "object"} <= kinds <= {"count", "object", "size", "relation", "background", "style"}
    assert category != "position" or "relation" in kinds
    assert not {"start", "end", "while", "still", "camera"} & set(prompt.text.split())


@given(seeds, st.none() | seeds, categories, splits)
def test_captions_are_true_and_complete(index: int, seed: int | None, category: str, split: str):
    scene = sample_scene(1, index, split, category)
    caption = caption_for(scene, seed)
    reading = read(caption)
    assert set(reading.facts) == set(caption_facts(scene)), caption
    assert reading.skipped == []
    score = caption_score(caption, scene)
    assert (score.precision, score.recall, score.f1) == (1.0, 1.0, 1.0)


def test_captions_of_several_events_are_read_back():
    for index in range(5):
        story = sample_story(3, index, frames=65)
        assert set(parse(caption_for(story, index))) == set(caption_facts(story))


def test_the_example_of_the_readme():
    assert set(parse("a red star jumps twice, a blue ring stays still")) == {
        Fact("count", Referent(), 2),
        Fact("object", RED_STAR),
        Fact("motion", RED_STAR, "jump 2"),
        Fact("object", BLUE_RING),
        Fact("motion", BLUE_RING, "still"),
    }


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("three red stars jump twice", Fact("count", RED_STAR, 3)),
        (
            "first a red star jumps once, then a blue ring moves left",
            Fact("order", RED_STAR, other=BLUE_RING),
        ),
        ("a red star vanishes before a blue ring orbits clockwise", Fact("order", RED_STAR, other=BLUE_RING)),
        ("A red star moves left and blinks twice.", Fact("motion", RED_STAR, "blink 2")),
        ("a red star to the left of a blue ring", Fact("relation", RED_STAR, "left of", BLUE_RING, "first")),
        (
            "at the end the red star is over the blue ring",
            Fact("relation", RED_STAR, "above", BLUE_RING, "last"),
        ),
        ("in grayscale style, a star shrinks in front of sand", Fact("style", value="grayscale")),
        ("in grayscale style, a star shrinks in front of sand", Fact("motion", Referent("star"), "shrink")),
        ("on a navy background, a red star turns blue", Fact("background", value="navy")),
        ("a red star stays still, the view zooms in", Fact("camera", value="zooms in")),
        ("two red stars, a blue ring", Fact("count", Referent(), 3)),
        ("a red star jumps on a navy background", Fact("motion", RED_STAR, "jump 1")),
    ],
)
def test_single_statements(text: str, fact: Fact):
    assert fact in parse(text)


def test_only_neighbours_in_a_sentence_are_in_order():
    facts = parse("a blue ring jumps once. then a red star jumps once, a green cross shakes")
    assert [each for each in facts if each.kind == "order"] == []


def test_clauses_outside_the_grammar_are_named():
    reading = read("a red star the jumps, a blue ring stays still, the camera eats a")
    assert reading.skipped == ["a red star the jumps", "the camera eats a"]
    assert Fact("motion", BLUE_RING, "still") in reading.facts


@given(st.lists(st.sampled_from(vocabulary()), max_size=40))
def test_any_words_can_be_read(soup: list[str]):
    score = caption_score(" ".join(soup), sample_scene(1, 1))
    assert 0 <= score.true <= score.stated
    assert 0 <= score.found <= score.complete


@given(st.text(max_size=80))
def test_any_text_can_be_read(text: str):
    assert len(set(parse(text))) == len(parse(text))


def test_scores_fall_with_what_is_missing_and_what_is_wrong():
    scene = Scene((Object("star", "red", "large", 20.0, 30.0),), "navy")
    caption = caption_for(scene)
    shorter = caption.removesuffix(" the style is plain.")
    assert caption_score(shorter, scene).precision == 1
    assert caption_score(shorter, scene).recall == pytest.approx(6 / 7)
    # Of the facts about a green star, only the number of objects is true; background, camera and style stay so.
    wrong = caption_score(caption.replace("red", "green"), scene)
    assert (wrong.stated, wrong.true, wrong.found) == (7, 4, 4)
    assert caption_score("", scene).f1 == 0


@given(st.sampled_from(SHAPES), st.sampled_from(tuple(COLOURS)), seeds)
def test_a_hallucinated_object_is_never_true(shape: str, colour: str, index: int):
    scene = sample_scene(4, index)
    if not any(each.shape == shape for each in scene.objects):
        caption = f"{caption_for(scene)} a {colour} {shape} stays still."
        assert caption_score(caption, scene).precision < 1
