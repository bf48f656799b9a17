"""Edit pairs, other frame rates, indirect requests, public lists, and the batches that are mixed of them."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportOptionalSubscript=false

import dataclasses
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unireel.clip import Clip
from unireel.config import from_dict
from unireel.data.cache import CacheConfig, FilmCache, build
from unireel.data.edit_lists import EditList
from unireel.data.edit_pairs import EditPairs, retimed, retimed_cache
from unireel.data.indirect import KINDS, OPPOSITES, indirect_for
from unireel.errors import UsageError, UserError
from unireel.systems.omnivideo.building import EXTRA_WORDS
from unireel.systems.omnivideo.speech import Thought
from unireel.systems.omnivideo.stages.looking import repeated, told_of
from unireel.systems.omnivideo.stages.mixture import Mixture, MixtureConfig, Sample
from unireel.world.edits import OPERATIONS
from unireel.world.language import parse_instruction, prompt_for, read_plan, unknown_words, words
from unireel.world.render import render_frames
from unireel.world.sampling import sample_scene
from unireel.world.scene import Event, Object, Scene


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> FilmCache:
    folder: Path = tmp_path_factory.mktemp("omnivideo") / "films"
    build(folder, CacheConfig(12, 48), progress=False)
    return FilmCache(folder)


def test_edits_of_cached_films(films):
    edits = EditPairs(films, 16, progress=False)
    assert len(edits) == 16
    for number, pair in enumerate(edits.pairs):
        target = edits.scene(number)
        assert parse_instruction(pair.instruction), pair.instruction
        assert target != films.scene(pair.source)
        assert np.array_equal(edits.frames[number], render_frames(target))
    done = [pair.operation for pair in edits.pairs]
    assert len(set(done)) > len(OPERATIONS) / 2
    again = EditPairs(films, 16, progress=False)
    assert again.pairs == edits.pairs


def test_another_frame_rate_is_the_same_film(films):
    figure = Object("star", "red", "large", 12.0, 30.0, (Event("jump", 2, 14, count=2, amount=9.0),))
    scene = Scene((figure,), "navy", size=48)
    faster = retimed(scene, 12)
    assert faster.frames == 25
    # At 12 a second every third frame is at the time of every second one at 8.
    assert np.array_equal(render_frames(faster)[::3], render_frames(scene)[::2])
    assert retimed(scene, 8) is scene
    with pytest.raises(UserError, match="films have 4 k"):
        retimed(scene, 9)
    cache = retimed_cache(films, 12, 2, progress=False)
    assert cache.frames.shape == (2, 25, 48, 48, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_indirect_requests_mean_the_direct_ones(kind):
    found = []
    for number in range(200):
        scene = sample_scene(9, number, "train", size=48)
        direct = prompt_for(scene, number).text
        indirect = indirect_for(direct, scene, number, kind)
        assert indirect == indirect_for(direct, scene, number, kind)
        if indirect:
            found.append((scene, indirect))
    assert len(found) > 10
    for scene, indirect in found:
        assert indirect.text != indirect.direct
        assert set(unknown_words(indirect.text)) <= set(EXTRA_WORDS)
        assert set(unknown_words(indirect.reasoning)) <= set(EXTRA_WORDS)
        if kind == "opposite":
            said = re.search(r"(?:direction|way) of ([\w-]+)", indirect.text)[1]
            kept = re.sub(
                r"(in the opposite direction of|the opposite way of) [\w-]+", OPPOSITES[said], indirect.text
            )
        else:
            noun = re.search(r"there are (\w+)", indirect.text)[1]
            count = sum(noun.startswith(each.shape) for each in scene.objects) or len(scene.objects)
            times = {1: "once", 2: "twice", 3: "three times"}[count]
            kept = re.sub(r"as many times as there are \w+", times, indirect.text)
        assert kept == indirect.direct


def test_what_cannot_be_said_indirectly():
    scene = sample_scene(9, 0, "train", size=48)
    assert indirect_for("a red star stays still", scene, 0) is None


COLUMNS = [
    ("source_path", "instruction", "edited_path"),
    ("src_video", "prompt", "tgt_video"),
    ("original_file_name", "edit_prompt", "edited_file_name"),
]


@pytest.mark.parametrize("columns", COLUMNS)
def test_public_lists_of_edits(tmp_path, clip, columns):
    clip.save(tmp_path / "before")
    Clip(255 - clip.frames, clip.fps)[:15].save(tmp_path / "after")
    row = dict(zip(columns, ("before", "make it bright", "after"), strict=True))
    (tmp_path / "list.jsonl").write_text(f"{json.dumps(row)}\n" * 2)
    edits = EditList(tmp_path / "list.jsonl", size=32)
    assert len(edits) == 2
    example = edits[0]
    assert example.instruction == "make it bright"
    assert example.source.frames.shape == example.target.frames.shape == (13, 32, 32, 3)
    whole = EditList(tmp_path / "list.jsonl")[0]
    assert np.array_equal(whole.source.frames, clip.frames[:13])
    assert np.array_equal(whole.target.frames, 255 - clip.frames[:13])


def test_lists_with_bad_rows(tmp_path):
    (tmp_path / "list.jsonl").write_text('{"source_path": "a", "edited_path": "b"}\n' * 2)
    with pytest.raises(UserError, match="2 rows cannot be used; 00001: no instruction"):
        EditList(tmp_path / "list.jsonl")


def mixture(films: FilmCache, **settings) -> Mixture:
    data = {
        "films": str(films.folder),
        "film_count": 12,
        "edit_count": 16,
        "batch_size": 40,
        "picture_batch": 60,
    }
    return Mixture(from_dict(MixtureConfig, data | settings))


def test_batches_mix_tasks_of_one_shape(films):
    mixed = mixture(films, pictures=0.25, shares={"t2v": 1, "v2v": 3, "t2i": 1, "i2i": 1})
    assert [mixed.group(index) for index in range(8)] == ["video"] * 3 + ["image"] + ["video"] * 3 + ["image"]
    for index, lengths in ((0, {17}), (3, {1})):
        batch = mixed.batch(index)
        assert len(batch) == (40 if index == 0 else 60)
        assert {len(each.source) for each in batch if each.source is not None} == lengths
        again = mixed.batch(index)
        assert [each.text for each in batch] == [each.text for each in again]
        for each in batch:
            assert (each.shown >= 0) == (each.source is not None) == (each.task in ("v2v", "i2i"))
    many = Counter(each.task for index in (0, 1, 2, 4) for each in mixed.batch(index))
    assert 0.6 < many["v2v"] / many.total() < 0.9


def test_edits_can_begin_later(films):
    mixed = mixture(films, editing_from=4, pictures=0.0)
    assert {each.task for each in mixed.batch(3)} == {"t2v"}
    assert {each.task for each in mixed.batch(4)} == {"t2v", "v2v"}


def test_films_can_begin_later(films):
    mixed = mixture(films, films_from=4, pictures=0.5)
    assert [mixed.group(index) for index in range(4)] == ["image"] * 4
    assert {mixed.group(index) for index in (4, 5)} == {"image", "video"}


def test_single_batches_have_one_task(films):
    mixed = mixture(films, mixed=False, pictures=0.0)
    tasks = [{each.task for each in mixed.batch(index)} for index in range(8)]
    assert all(len(each) == 1 for each in tasks)
    assert set.union(*tasks) == {"t2v", "v2v"}


def test_the_report_says_what_buckets_hold(films):
    mixed = mixture(films, editing_from=4, pictures=0.25)
    assert mixed.report() == [
        "bucket video: 75% of the batches, 40 samples of 17 x 48x48 at 8 fps: t2v 50% of 12, v2v 50% of 16, "
        "edits from batch 4",
        "bucket image: 25% of the batches, 60 samples of 1 x 48x48 at 8 fps: t2i 50% of 12, i2i 50% of 16, "
        "edits from batch 4",
    ]


def test_thoughts_are_about_what_is_shown(films):
    mixed = mixture(films, shares={"think": 1}, pictures=0.0, indirect=1.0)
    samples = mixed.batch(0)
    assert any(each.source is None for each in samples)
    for each in samples:
        assert each.thought.prompt
        assert not each.thought.caption, "what is foreseen is asked for by itself"
    assert any(each.text != each.thought.prompt for each in samples)
    assert dataclasses.replace(samples[0].thought, prompt="a star").prompt == "a star"


def test_edits_have_plans_as_often_as_asked(films):
    for share in (0.0, 1.0):
        for sample in mixture(films, shares={"v2v": 1}, pictures=0.0, captions=share).batch(0):
            assert bool(sample.plan) == bool(share)
    samples = mixture(films, shares={"v2v": 1}, pictures=0.0, captions=0.5).batch(0)
    assert 0 < sum(bool(each.plan) for each in samples) < len(samples)


@pytest.mark.parametrize("pictures", [0.0, 1.0])
def test_plans_are_of_the_edited_film_and_nothing_moves_in_a_picture(films, pictures):
    mixed = mixture(films, shares={"plan": 1}, pictures=pictures)
    samples = mixed.batch(0)
    for each in samples:
        scene, target = read_plan(each.plan), mixed.edits.scene(each.place)
        assert len(scene.objects) == len(each.about) == len(target.objects)
        assert scene.background == target.background and scene.style == target.style
        assert [len(figure.events) for figure in scene.objects].count(0) == len(scene.objects) or not pictures
    assert any(each.changes for each in samples) and any(-1 in each.about for each in samples)


def test_words_look_at_their_objects_and_at_what_they_repeat():
    plan = (
        "plain style, sand background, camera still. large blue star at two seven turns green at five. "
        "small red ring at five five stays still."
    )
    description = (
        "there are two objects. a small red ring stays still, a large red star turns green. "
        "the background is sand. the camera stays still. the style is plain."
    )
    sample = Sample(
        "plan",
        "make the red star blue",
        description=description,
        plan=plan,
        about=(2, 0),
        described=(1, 0),
        changes=True,
    )
    said = [
        "<think>",
        *words(sample.text),
        "<answer>",
        "<caption>",
        *words(description),
        "<rewrite>",
        *words(plan),
    ]
    begin = 10
    rows = [(said[place - begin + 1], mask) for _, place, _, mask, *_ in told_of([sample], [begin]).tolist()]
    _, star, ring = ([*words(each), "."] for each in plan.rstrip(".").split(". "))
    assert rows == [(word, 1 << 2) for word in star] + [(word, 1 << 0) for word in ring]
    pairs = [(place - begin + 1, target - begin) for _, place, target in repeated([sample], [begin]).tolist()]
    assert all(said[one] == said[two] for one, two in pairs)
    start = said.index("<rewrite>") + 1
    sources = {plan_word - start: two for plan_word, two in pairs}
    spoken = words(plan)
    own, other = spoken.index("star"), spoken.index("ring")
    assert sources[own - 1] == said.index("blue"), "the new colour is the instruction's"
    assert sources[own] == said.index("star", said.index("<caption>")), (
        "the rest is that object's in the description"
    )
    assert sources[other - 1] == said.index("red", said.index("<caption>")), (
        "the other's colour is not the star's"
    )
    assert not any(word in ("at", "two", "seven", "five") for word in (spoken[each] for each in sources))
    new = replace(sample, text="add a large blue star", about=(-1, 0), described=(-1, 0))
    assert {each[3] for each in told_of([new], [begin]).tolist()} == {0, 1}


@pytest.mark.parametrize(
    ("text", "reasoning", "prompt", "inferred"),
    [
        (
            "a red star moves the opposite way of left, a blue ring stays still",
            "the opposite of left is right.",
            "a red star moves right, a blue ring stays still",
            [("the", 5), ("opposite", 6), ("of", 8), ("left", 9), ("right", 20), ("right", 22)],
        ),
        (
            "make it jump as many times as there are crosses",
            "there are two crosses.",
            "make it jump twice",
            [("there", 8), ("are", 9), ("crosses", 10), ("twice", 14)],
        ),
        (
            "make it blink as many times as there are rings",
            "there is one ring.",
            "make it blink once",
            [("there", 8), ("ring", 10), ("once", 14)],
        ),
        ("a red star jumps", "nothing is hidden.", "a red star jumps", []),
    ],
)
def test_thoughts_take_words_from_what_was_said(text, reasoning, prompt, inferred):
    thought = Thought(reasoning, prompt)
    sample = Sample("think", text, thought=thought)
    said = ["<think>", *words(text), "<answer>", *words(reasoning), "<rewrite>", *words(prompt)]
    rows = repeated([sample], [4]).tolist()
    taken = [(place - 4 + 1, target - 4) for _, place, target in rows]
    assert all(source < place for place, source in taken)
    rewritten = said.index("<rewrite>") + 1
    same = [(place, source) for place, source in taken if place >= rewritten and source <= len(words(text))]
    assert [said[place] for place, _ in same] == [
        word for word in words(prompt) if word not in {"right", "twice", "once"}
    ]
    assert all(said[place] == said[source] for place, source in same)
    rest = [(said[place], source) for place, source in taken if (place, source) not in same]
    assert rest == inferred


def test_impossible_mixtures(films):
    with pytest.raises(UsageError, match="no task dance"):
        mixture(films, shares={"dance": 1})
    with pytest.raises(UsageError, match="no task with a share"):
        mixture(films, shares={"t2v": 1}, pictures=1.0)
