"""``unireel edit`` and ``unireel chat``, and conversations, on an untrained model whose routing is set by hand."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from unireel.cli.main import main
from unireel.clip import Clip
from unireel.errors import UserError
from unireel.systems.base import answering
from unireel.systems.omnivideo.comparison import difference
from unireel.systems.omnivideo.pocket_mllm import FORESEEN
from unireel.systems.omnivideo.speech import Request, Thought, as_heard, bare
from unireel.world.language.vocabulary import words

EDIT = "make the background navy"
QUESTION = "what is the background?"


def say(model, first: dict[str, str]) -> None:
    """Set the text head by hand: what the model says first after each of these words is the token given.

    A row of the text head is put along the state that the words lead to, so that the real model, decoding and routing
    are at work; only the knowledge is given.
    """
    mllm, head = model.mllm, model.vlm.lm_head.weight.data
    for text, token in first.items():
        turn = mllm.turn(text, "video")
        with torch.no_grad():
            states, _, begins = mllm.states(mllm.lay_out([turn], [None]))
        state = states[0, begins[0] + turn.weights.count(0.0) - 1]
        head[model.tokenizer.convert_tokens_to_ids(token)] = 50 * state / state.norm()


@pytest.fixture(scope="module")
def folder(make_model, tmp_path_factory):
    model = make_model()
    folder = tmp_path_factory.mktemp("commands")
    model.save_pretrained(folder / "model", dtype=torch.float32)
    return folder / "model"


@pytest.fixture
def run(folder, tmp_path, monkeypatch, capfd, clip):
    """``run(*words)`` runs a command in a folder with ``film.mp4``-like inputs; returns its code, output and errors."""
    monkeypatch.chdir(tmp_path)
    clip.save(tmp_path / "film")
    clip[:1].save(tmp_path / "picture.png")

    def go(*words):
        capfd.readouterr()
        return main([*map(str, words), "--model", str(folder)]), *capfd.readouterr()

    return go


def test_edit_writes_the_film_and_the_comparison(run, tmp_path, clip):
    code, out, err = run("edit", "film", EDIT, "-o", "edited.mp4", "--compare", "compare.png", "--steps", 1)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "edited.mp4  17 frames, 48x48, 8 fps, seed 0",
        "compare.png  before, after and difference",
    ]
    assert len(Clip.load(tmp_path / "edited.mp4")) == 17
    assert Image.open(tmp_path / "compare.png").width > 500
    assert run("edit", "picture.png", EDIT, "-o", "edited.png", "--compare", "c.gif", "--steps", 1)[0] == 0
    assert len(Clip.load(tmp_path / "edited.png")) == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ("film", " ", "-o", "x.mp4"),
            2,
            "the instruction is empty; write one, for example 'make the red star blue'",
        ),
        (
            ("film", EDIT, "-o", "x.png"),
            2,
            "film has 17 frames; edited it needs .mp4, .webm, .gif or a folder",
        ),
        (("picture.png", EDIT, "-o", "x.mp4"), 2, "picture.png is a picture, which is edited to a picture"),
        (("nothing.mp4", EDIT, "-o", "x.mp4"), 1, "there is no film nothing.mp4"),
        (("film", EDIT, "-o", "x.mp4", "--compare", "c.txt"), 2, "cannot hold a comparison; accepted: .png"),
        (("film", "paint a dog", "-o", "x.mp4"), 1, "does not know: 'paint', 'dog'"),
    ],
)
def test_edit_says_what_is_wrong_in_one_line(run, tmp_path, words, code, message):
    found, out, err = run("edit", *words)
    assert (found, out) == (code, "")
    assert len(err.splitlines()) == 1
    assert message in err
    assert not (tmp_path / "x.mp4").exists()


def test_models_that_cannot_edit(run, untrained, monkeypatch, capfd):
    assert main(["edit", "film", EDIT, "-o", "x.mp4", "--model", str(untrained)]) == 1
    assert "cannot edit; a model of the system omnivideo can" in capfd.readouterr().err


def test_the_difference_is_black_where_nothing_changed(clip):
    other = clip.frames.copy()
    other[:, :10] = 255 - other[:, :10]
    found = difference(clip, Clip(other, clip.fps)).frames
    assert not found[:, 10:].any()
    wanted = np.abs(255 - 2 * clip.frames[:, :10].astype(int))
    assert np.array_equal(found[:, :10], wanted)


@pytest.fixture(scope="module")
def talker(make_model):
    model = make_model()
    say(model, {"a red star jumps twice": "<BOV>", "draw a picture, a red star": "<BOI>"})
    return model


def test_the_model_itself_routes(talker):
    assert talker.reply("a red star jumps twice").makes == "video"
    assert talker.reply("draw a picture, a red star").makes == "image"
    answer = talker.reply("what is the style?")
    assert answer.makes is None or answer.confidence < 1


def test_only_new_pictures_are_asked_for_in_words():
    assert as_heard("a star", "image", False) == "draw a picture, a star"
    assert as_heard("draw a picture of a star", "image", False) == "draw a picture, a star"
    assert as_heard("a star", "video", False) == as_heard("a star", "image", True) == "a star"
    assert bare("draw a picture , a star") == "a star"


def test_a_conversation_is_about_the_running_film(talker, clip, monkeypatch):
    conversation = talker.chat()
    turn = conversation.say("draw a picture, a red star")
    assert len(turn.clip) == 1
    assert np.array_equal(turn.clip.frames, talker.generate("a red star", frames=1, seed=0).frames)
    assert conversation.clip is turn.clip
    assert conversation.undo() is None
    with pytest.raises(UserError, match="nothing to undo"):
        conversation.undo()
    film = conversation.say("a red star jumps twice").clip
    assert np.array_equal(film.frames, talker.generate("a red star jumps twice", seed=0).frames)
    heard = []
    reply = talker.mllm.reply
    monkeypatch.setattr(talker.mllm, "reply", lambda request: heard.append(request) or reply(request))
    conversation.say("a blue ring")
    assert np.array_equal(heard[0].frames, film.frames)
    conversation.forget()
    assert conversation.clip is None
    said = ["draw a picture, a red star", "a red star jumps twice", "a blue ring"]
    assert [each.said for each in conversation.turns] == said


def test_thoughts_are_read_from_what_the_model_says(talker, monkeypatch):
    tokenizer, mllm = talker.tokenizer, talker.mllm
    said = "there are two squares . <rewrite> a red star jumps twice </s>"
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    say_this(monkeypatch, mllm, ids)
    thought = mllm.think(Request("a star jumps as many times as there are squares"))
    assert thought == Thought("there are two squares.", "a red star jumps twice")
    say_this(monkeypatch, mllm, ids)
    monkeypatch.setattr(mllm, "foresee", lambda requests: [f"the plan of: {requests[0].text}"])
    of_edit = mllm.think(
        Request("make the star jump as many times as there are squares", np.zeros((1, 48, 48, 3)))
    )
    assert of_edit.caption == "the plan of: a red star jumps twice"
    say_this(monkeypatch, mllm, tokenizer("there are two", add_special_tokens=False)["input_ids"])
    with pytest.raises(UserError, match="did not finish it"):
        mllm.think(Request("a star"))


def test_a_plan_that_lacks_what_is_asked_for_is_drawn_again(talker, monkeypatch):
    description = "there is one object. a small red star stays still. the background is sand."
    plan = "plain style, sand background, camera still. small {} star at two two stays still."
    film = np.zeros((17, 48, 48, 3), dtype=np.uint8)
    monkeypatch.setattr(answering, "CAPTION_BEAMS", 1)  # what is said here is said once
    heard = []
    turn = talker.mllm.plan_turn
    monkeypatch.setattr(talker.mllm, "plan_turn", lambda *told: heard.append(told[1]) or turn(*told))

    def foreseen(*plans: str) -> list[str]:
        end = f" {talker.tokenizer.eos_token} "
        said = end.join([description, *plans, ""])
        say_this(monkeypatch, talker.mllm, talker.tokenizer(said, add_special_tokens=False)["input_ids"])
        return talker.mllm.foresee([Request("make the red star blue", film)])

    right = plan.format("blue")
    assert foreseen(right) == [right]
    assert words(heard[0]) == words(description)
    assert foreseen(plan.format("red"), "a star", right) == [right]
    never = [plan.format("red")] * FORESEEN
    assert foreseen(*never) == [plan.format("red")], "the best that there was"
    assert foreseen(*["a red star"] * FORESEEN) == [""]


def say_this(monkeypatch, mllm, ids: list[int]) -> None:
    """The language model's scores say ``ids`` one after the other; decoding and reading are the real ones."""
    left = iter([*ids, mllm.tokenizer.eos_token_id])

    def scores(states):
        logits = torch.zeros(*states.shape[:-1], len(mllm.tokenizer))
        logits[..., next(left)] = 50
        return logits

    monkeypatch.setattr(mllm.model.lm_head, "forward", scores)


def test_chat_reads_lines_and_goes_on_after_an_error(run, monkeypatch, tmp_path):
    monkeypatch.setattr(
        sys, "stdin", io.StringIO(f"{QUESTION}\n\nthe dog\n/dance\n/undo\n/save kept.png\n/quit\nmore\n")
    )
    code, out, err = run("chat", "picture.png")
    assert code == 0
    assert out.splitlines()[-1] == "saved kept.png"
    assert len(out.splitlines()) == 2
    errors = err.splitlines()
    assert "does not know: 'dog'" in errors[0]
    assert "there is no command '/dance'" in errors[1]
    assert "nothing to undo" in errors[2]
    assert (tmp_path / "kept.png").exists()
    code, out, err = run("chat", "--say", "the dog")
    assert code == 1
    assert out == ""
