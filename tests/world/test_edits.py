"""Edits: the target fulfils the instruction, and everything else stays as it was."""

import dataclasses
from collections import Counter
from functools import cache

import numpy as np
import pytest

from unireel.errors import UsageError
from unireel.world.edits import OPERATIONS, Edit, edit_for
from unireel.world.facts import Fact, Referent, holds_in
from unireel.world.language import caption_for, facts_after, parse_instruction, unknown_words, words
from unireel.world.render import render_frames
from unireel.world.sampling import sample_scene
from unireel.world.scene import Object, Scene
from unireel.world.splits import split_of
from unireel.world.tracks import reach, tracks

SPLITS = ("train", "test", "compositional")


@cache
def edits(operation: str) -> list[Edit]:
    """Edits of one kind, of scenes of all splits."""
    drawn = [edit_for(sample_scene(9, index, SPLITS[index % 3]), operation, index) for index in range(120)]
    return [each for each in drawn if each]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_targets_fulfil_their_instructions(operation: str):
    assert len(edits(operation)) > 40
    for edit in edits(operation):
        assert edit.operation == operation
        assert edit.target != edit.source
        assert all(holds_in(edit.target, each) for each in edit.facts), edit.instruction
        assert not all(holds_in(edit.source, each) for each in edit.facts), edit.instruction
        assert (edit.target.frames, edit.target.size) == (edit.source.frames, edit.source.size)
        assert edit.target.camera == edit.source.camera


@pytest.mark.parametrize("operation", OPERATIONS)
def test_instructions_are_read_back(operation: str):
    for edit in edits(operation):
        read = parse_instruction(edit.instruction)
        assert read
        assert all(holds_in(edit.target, each) for each in read), edit.instruction
        assert {each.kind for each in read} <= {each.kind for each in edit.facts}
        assert unknown_words(edit.instruction) == []
        assert len(words(edit.instruction)) <= 20


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_caption_and_an_instruction_say_what_the_edited_film_shows(operation: str):
    for edit in edits(operation):
        said = facts_after(caption_for(edit.source), edit.instruction)
        assert all(holds_in(edit.target, each) for each in said), edit.instruction
        assert not all(holds_in(edit.source, each) for each in said), edit.instruction
        assert set(parse_instruction(edit.instruction)) <= set(said)
        for each in edit.target.objects:
            if edit.target.objects.count(each) == 1 and edit.source.style != "grayscale":
                assert any(f.kind == "object" and f.subject and f.subject.matches(each) for f in said)


def test_of_an_unclear_object_only_what_is_asked_for_holds():
    two = "there are two objects. a red star jumps once, a blue star stays still. the background is sand."
    asked = parse_instruction("make the star green")
    assert facts_after(two, "make the star green") == (*asked, Fact("background", value="sand"))
    assert set(facts_after(two, "make the blue star green")) == {
        Fact("object", Referent("star", "green")),
        Fact("count", Referent(), 2),
        Fact("object", Referent("star", "red")),
        Fact("motion", Referent("star", "red"), "jump 1"),
        Fact("motion", Referent("star", "green"), "still"),
        Fact("background", value="sand"),
    }
    assert facts_after("", "let it rain") == ()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_untouched_objects_stay_as_they_were(operation: str):
    for edit in edits(operation):
        kept = Counter(edit.source.objects) & Counter(edit.target.objects)
        touched = 0 if operation in ("add", "background", "style") else 1
        assert kept.total() == len(edit.source.objects) - touched
        if operation not in ("background", "style"):
            assert (edit.target.background, edit.target.style) == (edit.source.background, edit.source.style)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_targets_are_placed_apart_and_on_the_screen(operation: str):
    for edit in edits(operation):
        scene, found = edit.target, tracks(edit.target)
        rooms = [t.screen_radius * reach(o.shape) for o, t in zip(scene.objects, found, strict=True)]
        for track, room in zip(found, rooms, strict=True):
            for axis in (track.screen_x, track.screen_y):
                assert (axis - room > 0).all()
                assert (axis + room < scene.size - 1).all()
        for i, one in enumerate(found):
            for j in range(i):
                apart = np.hypot(one.screen_x - found[j].screen_x, one.screen_y - found[j].screen_y)
                assert (apart > rooms[i] + rooms[j]).all()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_edit_leads_into_a_split_that_must_not_be_seen(operation: str):
    for edit in edits(operation):
        before, after = split_of(edit.source), split_of(edit.target)
        assert before != "train" or after == "train"
        assert before != "test" or after != "compositional"


def test_pixels_outside_a_recoloured_object_do_not_change():
    for edit in edits("recolour")[:20]:
        change = (render_frames(edit.source) != render_frames(edit.target)).any(-1)
        index = next(i for i, each in enumerate(edit.source.objects) if each != edit.target.objects[i])
        track = tracks(edit.source)[index]
        axis = np.arange(edit.source.size)
        away = np.hypot(
            axis[None, None, :] - track.screen_x[:, None, None],
            axis[None, :, None] - track.screen_y[:, None, None],
        )
        room = track.screen_radius * reach(edit.source.objects[index].shape) + 3
        assert not (change & (away > room[:, None, None])).any()


def test_edits_are_reproducible_and_varied():
    scene = sample_scene(9, 4)
    assert edit_for(scene, None, 5) == edit_for(scene, None, 5)
    drawn = [edit_for(scene, None, seed) for seed in range(60)]
    assert len({each.operation for each in drawn if each}) >= 5


def test_the_impossible_is_not_attempted():
    alone = Scene((Object("star", "red", "small", 20.0, 20.0),), "navy")
    assert edit_for(alone, "remove", 0) is None
    four = tuple(
        Object(shape, "red", "small", 16.0 + 30 * (i % 2), 16.0 + 30 * (i // 2))
        for i, shape in enumerate(("star", "ring", "cross", "circle"))
    )
    assert edit_for(Scene(four, "navy"), "add", 0) is None
    gray = dataclasses.replace(alone, style="grayscale")
    assert [edit_for(gray, each, 0) for each in ("recolour", "style")] == [None, None]


def test_unknown_operations_are_refused():
    with pytest.raises(UsageError, match="recolour"):
        edit_for(sample_scene(0, 0), "explode", 0)


def test_instructions_of_people():
    assert parse_instruction("make the star green") == (Fact("object", Referent("star", "green")),)
    assert parse_instruction("Make the background navy.") == (Fact("background", value="navy"),)
    assert parse_instruction("let it rain") == ()
    assert parse_instruction("") == ()
