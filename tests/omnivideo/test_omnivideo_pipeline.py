"""The whole system on untrained weights: what it does does not depend on what it knows."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import unireel
from unireel.backbones.vae import encode
from unireel.backbones.wan import predict
from unireel.clip import Clip
from unireel.data.world import to_pixels
from unireel.errors import UsageError, UserError
from unireel.systems.omnivideo.context import Row
from unireel.systems.omnivideo.guidance import FULL, NOTHING, SOURCE
from unireel.systems.omnivideo.pipeline import OmniVideo
from unireel.systems.omnivideo.settings import Budgets
from unireel.systems.omnivideo.sources import blended
from unireel.systems.omnivideo.speech import Request, Thought
from unireel.world.language import vocabulary

PROMPT, INSTRUCTION = "a red star jumps twice", "make the background navy"
PLAN = "plain style, navy background, camera still. small red star at two two jumps twice from one to six."


def same(one: Clip, other: Clip) -> bool:
    return np.array_equal(one.frames, other.frames)


def test_a_seed_is_a_film(model, clip):
    film = model.generate(PROMPT, seed=3)
    assert film.frames.shape == (17, 48, 48, 3)
    assert same(film, model.generate(PROMPT, seed=3))
    assert not same(film, model.generate(PROMPT, seed=4))
    edited = model.edit(clip, INSTRUCTION, seed=3)
    assert edited.frames.shape == clip.frames.shape
    beside = model.edit_many([(clip, "make it grayscale style"), (clip, INSTRUCTION)], [1, 3])[1]
    assert (
        np.abs(edited.frames.astype(int) - beside.frames).mean() < 0.5
    )  # products of other sizes round otherwise


def test_pictures_are_made_and_edited(model, clip):
    picture = model.generate(PROMPT, frames=1)
    assert len(picture) == 1
    assert len(model.edit(picture, INSTRUCTION)) == 1


def test_everything_that_is_asked_matters(model, clip):
    usual = model.edit(clip, INSTRUCTION)
    others = [
        model.edit(clip, "make the background sand"),
        model.edit(Clip(clip.frames[:, ::-1].copy(), clip.fps), INSTRUCTION),
        model.edit(clip, INSTRUCTION, guidance=5.0),
        model.edit(clip, INSTRUCTION, source_guidance=3.0),
        model.edit(clip, INSTRUCTION, negative="a red star"),
        model.edit(clip, INSTRUCTION, thought=Thought("", INSTRUCTION, "there is one object.")),
    ]
    assert not any(same(usual, other) for other in others)


def test_called_as_diffusers_pipelines_are(model, clip):
    steps = []

    def seen(pipe, step, time, values):
        steps.append((step, tuple(values["latents"].shape)))
        return {}

    generator = torch.Generator().manual_seed(3)
    edited = model(INSTRUCTION, source=clip, generator=[generator], callback_on_step_end=seen).frames
    assert edited.shape == (1, 17, 48, 48, 3)
    assert np.array_equal(np.uint8(np.rint(255 * edited[0])), model.edit(clip, INSTRUCTION, seed=3).frames)
    assert steps == [(0, (1, 4, 5, 12, 12)), (1, (1, 4, 5, 12, 12))]
    made = model([PROMPT, "a blue ring"], num_frames=1, num_videos_per_prompt=2, output_type="pil").frames
    assert [len(each) for each in made] == [1] * 4
    assert model(PROMPT, num_frames=5, output_type="latent", return_dict=False)[0].shape == (1, 4, 2, 12, 12)
    with pytest.raises(UsageError, match="one source film or as many, got 3"):
        model([PROMPT] * 2, source=[clip] * 3)


def test_branches_drop_words_and_source(model, clip):
    source = encode(model.vae, to_pixels(clip.frames[None]))
    names = (FULL, SOURCE, NOTHING)
    with torch.no_grad():
        contexts = model.contexts([Request(INSTRUCTION, clip.frames)], ["video"], [""], source, "", names)
    lengths = [int(contexts[name].mask.sum()) for name in names]
    words = len(INSTRUCTION.split()) + 1
    assert lengths == [180 + 20 + words, 180 + 1, 1]
    torch.testing.assert_close(contexts[SOURCE].tokens[0, :180], contexts[FULL].tokens[0, :180])
    torch.testing.assert_close(contexts[NOTHING].tokens[0, 0], contexts[SOURCE].tokens[0, 180])


@pytest.mark.parametrize(
    "settings",
    [
        {"route": "frames"},
        {"route": "channels"},
        {"route": "channels", "editor": True, "told": "foreseen"},
        {"profile": "released"},
        {"segments": ("source", "text")},
    ],
)
def test_the_other_ways_of_working(make_model, clip, settings):
    if settings.get("profile"):
        settings["budgets"] = Budgets(180, 20, 50)
    other = make_model(**settings)
    edited = other.edit(clip, INSTRUCTION)
    assert edited.frames.shape == clip.frames.shape
    assert not same(edited, other.edit(Clip(clip.frames[:, ::-1].copy(), clip.fps), INSTRUCTION))
    if settings.get("route"):
        assert not same(edited, other.edit(clip, INSTRUCTION, source_guidance=3.0))
    assert len(other.generate(PROMPT)) == 17


@pytest.mark.parametrize(
    ("route", "editor", "prediction"), [("tokens", False, "data"), ("channels", True, "velocity")]
)
def test_an_open_gate_copies_and_a_closed_one_draws(make_model, route, editor, prediction):
    model = make_model(route=route, copies=True, editor=editor)
    network = model.editor if editor else model.transformer
    model.decoder.prediction = prediction
    context = model.assemble([Row(text=torch.randn(3, network.config["text_dim"]))] * 2)
    state, source = torch.randn(2, 2, 4, 5, 12, 12)
    times = torch.tensor([900.0, 400.0])
    given = torch.tensor([True, False])
    gate = network.proj_out.bias.data.view(-1, 5)[:, -1]
    found = {}
    with torch.no_grad():
        for logit in (-30.0, 0.0, 30.0):
            gate.fill_(logit)
            drawn = model.decoder.draw(state, times, context, source, given)
            assert drawn.copied.shape == (2, 1, 5, 12, 12)
            torch.testing.assert_close(drawn.copied, torch.full_like(drawn.copied, logit))
            found[logit] = drawn.output
        alone = model.decoder.draw(state, times, context)
    copied = source[0] if prediction == "data" else (state[0] - source[0]) / 0.9
    torch.testing.assert_close(found[30.0][0], copied)
    torch.testing.assert_close(found[0.0][0], (found[-30.0][0] + copied) / 2, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[30.0][1], found[-30.0][1])
    assert alone.copied is None and alone.output.shape == state.shape
    assert (found[-30.0][1] - alone.output[1]).abs().max() < 1e-4, "the editor starts as the decoder"


def test_where_nothing_is_edited_films_are_their_source(make_model, clip):
    model = make_model(route="channels", copies=True, blend=0.1)
    model.decoder.prediction = "data"  # what is copied arrives exactly
    gate = model.transformer.proj_out.bias.data.view(-1, 5)[:, -1]
    gate.fill_(30.0)
    assert same(model.edit(clip, INSTRUCTION, steps=2), clip)
    called = model(INSTRUCTION, source=clip, num_inference_steps=2).frames
    np.testing.assert_allclose(called[0], clip.frames / 255, atol=1e-5)
    plain = make_model(route="channels", copies=True)
    plain.decoder.prediction = "data"
    plain.transformer.load_state_dict(model.transformer.state_dict())
    encoded = plain.edit(clip, INSTRUCTION, steps=2)
    assert not same(encoded, clip), "the untrained autoencoder loses nearly everything"
    gate.fill_(-30.0)
    assert not same(model.edit(clip, INSTRUCTION, steps=2), clip)


def test_blending_is_by_what_was_edited():
    source, unedited = torch.full((1, 3, 1, 5, 9), 0.8), torch.full((1, 3, 1, 5, 9), 0.5)
    edited = unedited.clone()
    edited[0, 1, 0, 2, 6] += 0.05
    edited[0, 2, 0, 2, 1] = -1.0
    film = blended(edited, unedited, source, 0.1)[0, :, 0]
    # Far from both the source's; around the small change half of it; around the large one what was edited.
    torch.testing.assert_close(film[:, :, 4], torch.full((3, 5), 0.8))
    torch.testing.assert_close(film[:, 1, 6], torch.full((3,), 0.65))
    torch.testing.assert_close(film[1, 2, 6], torch.tensor((0.55 + 0.8) / 2))
    torch.testing.assert_close(film[:, 1:4, 0:3], edited[0, :, 0, 1:4, 0:3])


def test_films_from_words_are_drawn_once_more(make_model, clip):
    model, plain, released = make_model(), make_model(), make_model(profile="released")
    for each in (model, released):
        each.register_to_config(restart=0.5)
    one, other = (each.generate(PROMPT, seed=2, steps=4) for each in (model, plain))
    assert not same(one, other)
    assert same(*(each.edit(clip, INSTRUCTION, steps=2) for each in (model, plain)))
    assert same(*(each.generate(PROMPT, seed=2, frames=1, steps=2) for each in (model, plain)))
    before = released.generate(PROMPT, seed=2, steps=2)
    released.register_to_config(restart=0.0)
    assert same(before, released.generate(PROMPT, seed=2, steps=2))


def test_a_gate_can_be_sharp_and_cautious(make_model):
    model = make_model(route="channels", copies=True, sharpness=3.0, caution=2.0)
    model.decoder.prediction = "data"
    bias = model.transformer.proj_out.bias.data.view(-1, 5)[:, -1]
    bias.fill_(1.0)
    context = model.assemble([Row(text=torch.randn(3, model.transformer.config["text_dim"]))] * 2)
    state, source = torch.randn(2, 2, 4, 5, 12, 12)
    for times in (torch.tensor([1000.0, 250.0]), torch.tensor([[1000.0] * 5, [250.0] * 5])):
        with torch.no_grad():
            drawn = model.decoder.draw(state, times, context, source)
        torch.testing.assert_close(drawn.copied, torch.ones_like(drawn.copied))
        for row, logit in enumerate((3 * (1 - 2), 3 * (1 - 0.5))):
            share = torch.tensor(logit).sigmoid()
            wanted = share * source[row] + (1 - share) * drawn.drawn[row]
            torch.testing.assert_close(drawn.output[row], wanted)


def test_films_from_words_are_the_base_s(make_model, untrained):
    settings = {"route": "channels", "copies": True, "editor": True, "words_only": True}
    model, base = make_model(**settings), unireel.load(untrained)
    with torch.no_grad():
        for each in model.editor.parameters():
            each.add_(1.0)
    request, kind = Request(PROMPT), ["video"]
    context = model.contexts([request], kind, [""], None, "", [FULL])[FULL]
    states, _ = base.encode_prompt([PROMPT])
    torch.testing.assert_close(context.tokens[0], states[0, : context.tokens.shape[1]])
    state, times = torch.randn(1, 4, 5, 12, 12), torch.tensor([500.0])
    with torch.no_grad():
        wanted = predict(base.transformer, state, times, context.tokens)
        torch.testing.assert_close(model.decoder.draw(state, times, context).output, wanted)


def test_what_is_foreseen_is_said_to_the_decoder(make_model, clip, monkeypatch):
    model = make_model(told="foreseen")
    heard = []
    monkeypatch.setattr(
        model.mllm, "foresee", lambda requests: heard.extend(each.text for each in requests) or [PLAN]
    )
    one = model.edit(clip, INSTRUCTION)
    assert heard == [INSTRUCTION]
    assert same(one, model.edit(clip, INSTRUCTION, thought=Thought("", INSTRUCTION, PLAN)))
    assert not same(one, model.edit(clip, INSTRUCTION, extend=False))
    assert len(heard) == 1


def test_words_that_the_planner_does_not_know_are_left_to_the_model(make_model, monkeypatch):
    model = make_model()
    monkeypatch.setattr(
        model, "planner", SimpleNamespace(config=SimpleNamespace(vocab_size=len(vocabulary()) + 8))
    )
    monkeypatch.setattr(model, "extend", lambda prompts, generators, placed: [f"{each}." for each in prompts])
    texts = ["a red star moves the opposite way of left", PROMPT]
    extended = model._extended([Request(each) for each in texts], None, placed=True)
    assert [each.text for each in extended] == [texts[0], f"{PROMPT}."]


def test_settings_and_parts_agree(make_model):
    model = make_model(route="channels", copies=True, editor=True)
    other = model.with_settings(replace(model.settings, editor=False, copies=False, route="tokens"))
    assert (
        other.editor is None and other.transformer.config["in_channels"] < model.editor.config["in_channels"]
    )
    again = other.with_settings(replace(other.settings, copies=True))
    assert again.transformer.config["out_channels"] == 5
    with pytest.raises(UsageError, match="cannot go back"):
        again.with_settings(replace(again.settings, copies=False))
    with pytest.raises(UsageError, match="cannot go back"):
        again.with_settings(replace(again.settings, editor=True))
    with pytest.raises(UsageError, match="do not say the same"):
        OmniVideo(**model.components, **model.film_settings)


def test_the_release_sees_the_first_frame_only(make_model, clip):
    released, paper = make_model(profile="released"), make_model()
    changed = clip.frames.copy()
    changed[1:] = 255 - changed[1:]
    states = [
        [m.mllm.request_states([Request(INSTRUCTION, f)], ["video"])[0] for f in (clip.frames, changed)]
        for m in (released, paper)
    ]
    assert torch.equal(*states[0])
    assert not torch.equal(*states[1])


def test_folders(model, clip, tmp_path):
    model.save_pretrained(tmp_path / "model", dtype=torch.float32)
    loaded = unireel.load(tmp_path / "model")
    assert isinstance(loaded, OmniVideo)
    assert loaded.settings == model.settings
    assert same(loaded.edit(clip, INSTRUCTION, seed=1), model.edit(clip, INSTRUCTION, seed=1))
    assert loaded.mllm.reply(Request("what is the style?", clip.frames)).text == (
        model.mllm.reply(Request("what is the style?", clip.frames)).text
    )
    (tmp_path / "model" / "adapter" / "config.json").unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        unireel.load(tmp_path / "model")


def test_new_tokens_leave_old_answers_as_they_were(make_model, untrained, clip):
    questions = [(clip, "what is the background?"), (clip, "how many objects are there?")]
    before = unireel.load(untrained).ask_many(questions)
    assert [a.text for a in make_model().ask_many(questions)] == [b.text for b in before]


def test_words_are_single_tokens(model):
    tokenizer = model.tokenizer
    ids = tokenizer("the last star moves as the opposite", add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert len(ids) == 7
    assert model.mllm.unknown_words("make the dog blue") == ["dog"]


def test_a_thought_can_be_edited_and_used_again(model, clip):
    thought = Thought("there are two squares.", PROMPT)
    film = model.generate("a star jumps as many times as there are squares", thought=thought)
    assert same(film, model.generate(PROMPT))
    other = replace(thought, prompt="a blue ring")
    assert not same(film, model.generate(PROMPT, thought=other))
    assert str(thought) == "thought: there are two squares.\nprompt: a red star jumps twice"
    with pytest.raises(UserError, match="no rewritten prompt"):
        replace(thought, prompt=" ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda clip: (clip, ""), "the instruction is empty"),
        (lambda clip: (clip, "make the dog blue"), "does not know: 'dog'"),
        (lambda clip: (clip[:7], INSTRUCTION), r"7 frames; the model edits 1, 5, 9, 13 or 17.*clip\[:5\]"),
        (lambda clip: (Clip(np.repeat(clip.frames, 3, 0), 8), INSTRUCTION), r"51 frames; .*clip\[:17\]"),
        (lambda clip: (clip.resized(48, 96), INSTRUCTION), "96x48; the model edits square films"),
        (lambda clip: (clip, "make the star blue " * 20), "words and marks; the model takes at most"),
    ],
)
def test_bad_input_says_what_is_accepted(model, clip, change, message):
    with pytest.raises(UserError, match=message):
        model.edit(*change(clip))


def test_counts_that_do_not_fit(model, clip):
    with pytest.raises(UsageError, match="same length"):
        model.edit_many([(clip, INSTRUCTION), (clip[:5], INSTRUCTION)])
    with pytest.raises(UsageError, match="as many seeds"):
        model.generate_many([PROMPT], seeds=[1, 2])
    with pytest.raises(UsageError, match="first frame is for films"):
        model.generate(PROMPT, image=clip.frames[0], frames=1)


def test_a_film_over_the_budget(make_model, clip):
    small = make_model(budgets=Budgets(100, 20, 50))
    assert len(small.edit(clip[:5], INSTRUCTION)) == 5
    with pytest.raises(
        UserError, match="the source needs 180 tokens of context and may have 100: use a shorter"
    ):
        small.edit(clip, INSTRUCTION)


def test_large_films_are_brought_to_size(model, clip):
    assert model.edit(clip.resized(96, 96), INSTRUCTION).frames.shape == (17, 48, 48, 3)


def test_a_decoder_is_widened_for_a_source_and_stays_what_it_was_without(make_model, clip):
    narrow, wide = make_model(segments=("visual", "text")), make_model(segments=("visual", "text"))
    wide = wide.with_settings(replace(wide.settings, route="channels"))
    before, after = (each.transformer.config["in_channels"] for each in (narrow, wide))
    assert after - before == wide.transformer.config["out_channels"]
    one, two = (each.generate(PROMPT, frames=5).frames.astype(int) for each in (narrow, wide))
    assert np.abs(one - two).mean() < 0.5
    other = Clip(clip.frames[:, ::-1].copy(), clip.fps)
    assert not same(wide.edit(clip, INSTRUCTION), wide.edit(other, INSTRUCTION))
    with pytest.raises(UsageError, match="cannot go back"):
        wide.with_settings(replace(wide.settings, route="tokens"))
