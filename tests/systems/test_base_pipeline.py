"""The base pipeline on a tiny untrained model: what it promises does not depend on what it knows."""

import numpy as np
import pytest
import torch
from safetensors import safe_open

import unireel
from unireel.backbones.vae import encode
from unireel.clip import Clip
from unireel.data.world import to_pixels
from unireel.errors import UsageError, UserError
from unireel.systems.base import pipeline
from unireel.systems.base.answering import Prepared, prepare
from unireel.systems.base.verifying import Verification
from unireel.world.language import parse
from unireel.world.render import render
from unireel.world.sampling import sample_scene

PROMPT = "a red star jumps twice, a blue ring stays still"
QUESTION = "what colour is the star?"


@pytest.fixture(scope="module")
def model(untrained):
    return unireel.load(untrained, device="cpu")


def test_a_seed_makes_a_film(model):
    one, two, other = (model.generate(PROMPT, seed=seed, steps=2) for seed in (3, 3, 4))
    assert one.frames.shape == (17, 48, 48, 3) and one.fps == 8
    assert np.array_equal(one.frames, two.frames)
    assert not np.array_equal(one.frames, other.frames)


def test_the_batch_does_not_change_a_film(model):
    many = model.generate_many([PROMPT] * 3, seeds=[1, 2, 3], steps=2, batch_size=2)
    alone = model.generate(PROMPT, seed=2, steps=2)
    assert np.abs(many[1].frames.astype(int) - alone.frames).max() <= 1


def test_a_picture_is_one_frame(model):
    assert len(model.generate(PROMPT, frames=1, steps=2)) == 1


def test_a_first_frame_is_kept_in_the_latents(model):
    picture = render(sample_scene(0, 0, "test", size=48)).frames[0]
    latents = model(PROMPT, image=picture, num_inference_steps=2, output_type="latent").frames
    with torch.no_grad():
        given = encode(model.vae, to_pixels(picture[None, None]))
    assert torch.allclose(latents[:, :, :1], given, atol=1e-5)


def test_in_two_stages_the_film_starts_from_the_picture(untrained):
    model = unireel.load(untrained, device="cpu")
    model.register_to_config(staged=True)
    noise = torch.randn(2, 4, 5, 12, 12, generator=torch.Generator().manual_seed(0))
    settings = {"num_inference_steps": 2, "output_type": "latent"}
    film = model([PROMPT] * 2, latents=noise, **settings).frames
    picture = model([PROMPT] * 2, latents=noise[:, :, :1], num_frames=1, **settings).frames
    assert torch.equal(film[:, :, :1], picture)
    model.register_to_config(staged=False)
    assert not torch.allclose(model([PROMPT] * 2, latents=noise, **settings).frames[:, :, :1], picture)


def test_called_like_a_pipeline_of_diffusers(model):
    seen = []

    def callback(pipeline, step, timestep, values):
        seen.append(step)
        return {"latents": values["latents"] * 0} if step == 1 else {}

    generator = torch.Generator().manual_seed(0)
    output = model(
        PROMPT,
        num_frames=5,
        num_inference_steps=2,
        num_videos_per_prompt=2,
        generator=generator,
        output_type="latent",
        callback_on_step_end=callback,
    )
    assert seen == [0, 1] and output.frames.shape[0] == 2 and not output.frames.any()
    films = model(PROMPT, num_frames=5, num_inference_steps=1, output_type="pil", return_dict=False)[0]
    assert films[0][0].size == (48, 48) and len(films[0]) == 5
    array = model(PROMPT, num_frames=5, num_inference_steps=1).frames
    assert array.shape == (1, 5, 48, 48, 3) and array.min() >= 0 and array.max() <= 1


def test_every_component_survives_a_round_trip(model, tmp_path):
    model.save_pretrained(tmp_path / "copy", dtype=torch.float32)
    copy = unireel.load(tmp_path / "copy", device="cpu")
    for name in ("vae", "text_encoder", "transformer", "vlm"):
        before, after = getattr(model, name).state_dict(), getattr(copy, name).state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before), name
    assert copy.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    # On some processors a product's last bit depends on where its operands lie, which differs in mapped files.
    for each in (
        each for name in ("vae", "text_encoder", "transformer") for each in getattr(copy, name).parameters()
    ):
        each.data = each.data.clone()
    one, two = (each.generate(PROMPT, seed=1, steps=2).frames for each in (model, copy))
    assert np.array_equal(one, two)
    clip = render(sample_scene(0, 0, "test", size=48))
    assert model.ask(clip, "how many objects are there?") == copy.ask(clip, "how many objects are there?")


def everything_in(model) -> dict[str, torch.Tensor]:
    """Weights and buffers of all components, those too that no file has."""
    parts = {name: part for name, part in model.components.items() if isinstance(part, torch.nn.Module)}
    tensors = {f"{name}.{key}": each for name, part in parts.items() for key, each in part.named_parameters()}
    return tensors | {
        f"{name}.{key}": each for name, part in parts.items() for key, each in part.named_buffers()
    }


def test_weights_are_stored_in_bfloat16_by_default(model, tmp_path):
    before = {name: each.clone() for name, each in everything_in(model).items()}
    model.save_pretrained(tmp_path / "small")
    after = everything_in(model)
    assert before.keys() == after.keys() and any("rope" in name for name in before)
    for name, each in before.items():
        assert each.dtype == after[name].dtype and torch.equal(each, after[name]), name
    assert {path.suffix for path in (tmp_path / "small").rglob("*") if path.is_file()} <= {
        ".json",
        ".safetensors",
        ".txt",
        ".jinja",
    }
    for path in (tmp_path / "small").rglob("*.safetensors"):
        with safe_open(path, "pt") as weights:
            found = {weights.get_tensor(key).dtype for key in weights.keys()}  # noqa: SIM118
            assert found == {torch.bfloat16}


@pytest.mark.parametrize(
    "prompt, message",
    [
        ("", "the prompt is empty"),
        ("a red dragon jumps", "'dragon'"),
        ("a red star jumps, " * 20, "the model takes at most"),
    ],
)
def test_prompts_that_cannot_be_made(model, prompt, message):
    with pytest.raises(UserError, match=message):
        model.generate(prompt)


def test_impossible_lengths_and_counts(model):
    with pytest.raises(UsageError, match="films of 1, 5, 9, 13, 17 frames"):
        model.generate(PROMPT, frames=7)
    with pytest.raises(UsageError, match="as many seeds"):
        model.generate_many([PROMPT], seeds=[1, 2])


def test_answers_say_what_was_looked_at(model):
    clip = render(sample_scene(0, 0, "test", size=48))
    answer = model.ask(clip, "how many objects are there?")
    assert 0 <= answer.confidence <= 1 and answer.reliable and answer.note is None
    assert [each.frame for each in answer.evidence] == list(range(17))
    assert answer.evidence[8].time == pytest.approx(1.0)
    with pytest.raises(UserError, match="the question is empty"):
        model.ask(clip, " ")


def test_batches_of_questions_are_answered_in_order(model):
    clips = [render(sample_scene(0, i, "test", size=48)) for i in range(3)]
    pairs = [(clip, text) for clip in clips for text in ("how many objects are there?", "what is the style?")]
    together = model.ask_many(pairs, batch_size=4)
    assert [each.text for each in together] == [model.ask(*pair).text for pair in pairs]


def test_chosen_frames_of_a_long_film_are_looked_at_in_whole_tubes(model, monkeypatch):
    """Each of a few frames has a tube of its own; the answer is that for the film in which each is held so long."""
    films = [np.random.default_rng(n).integers(0, 256, (n, 48, 48, 3), dtype=np.uint8) for n in (1, 4, 16)]
    for film in films:
        held = Prepared(np.repeat(film, 4, axis=0), (), True, None)
        wanted = model._answerer()._answers([held], [QUESTION], 1)[0]
        found = model.ask_view(film, QUESTION)
        assert (found.text, found.confidence) == (wanted.text, pytest.approx(wanted.confidence, rel=1e-4))
        assert [each.frame for each in found.evidence] == list(range(len(film)))
        assert "outside the World" in (found.note or "")
    large = model.ask_view(np.repeat(np.repeat(films[1], 2, axis=1), 2, axis=2), QUESTION)
    assert "resized from 96x96" in large.note
    with pytest.raises(UserError, match="empty"):
        model.ask_view(films[0], " ")


def test_films_of_other_sizes_and_lengths_are_brought_to_the_models():
    clip = render(sample_scene(0, 0, "test", size=64))
    assert prepare(clip, 48).note == "the film was resized from 64x64 to 48x48"
    long = Clip(np.repeat(render(sample_scene(0, 1, "test", size=48)).frames, 4, axis=0), 32)
    seen = prepare(long, 48)
    assert seen.frames.shape == (17, 48, 48, 3) and "17 of 68 frames" in str(seen.note)
    assert [each.frame for each in seen.evidence] == list(range(0, 68, 4))


def test_a_film_from_elsewhere_is_said_to_be_unreliable(model):
    noise = np.random.default_rng(0).integers(0, 256, (17, 48, 48, 3), dtype=np.uint8)
    answer = model.caption(Clip(noise, 8))
    assert not answer.reliable and "outside the World" in str(answer.note)


def test_the_best_of_several_films_is_the_one_it_believes_in(model):
    chosen = model.best(PROMPT, count=3, seed=5, steps=2)
    assert len(chosen.clips) == len(chosen.verifications) == 3
    scores = [each.score for each in chosen.verifications]
    assert chosen.number == scores.index(max(scores)) and chosen.clip is chosen.clips[chosen.number]
    assert [len(each.beliefs) for each in chosen.verifications] == [len(parse(PROMPT))] * 3
    alone = model.generate(PROMPT, seed=5 + chosen.number, steps=2)
    assert np.abs(alone.frames.astype(int) - chosen.clip.frames).max() <= 1


def test_in_two_stages_the_first_frame_is_chosen_first(untrained, monkeypatch):
    model = unireel.load(untrained, device="cpu")
    model.register_to_config(staged=True)
    asked = []

    def second(model, clips, facts):
        asked.append((len(clips[0]), {fact.kind for fact in facts[0]}))
        return [Verification((), float(number % 2)) for number in range(len(clips))]

    monkeypatch.setattr(pipeline, "verify_each", second)
    found = model.best_of_many([PROMPT, "a green cross grows"], 2, seeds=[3, 8], steps=2)
    assert asked == [(1, {"count", "object"}), (17, {"count", "object", "motion"})]
    assert [each.number for each in found] == [1, 1]
    pictures = model.generate_many([PROMPT], seeds=[4], frames=1, steps=2)
    again = model.generate_many([PROMPT], [pictures[0].frames[0]], [4], steps=2)
    assert np.abs(again[0].frames.astype(int) - found[0].clip.frames).max() <= 1


def test_films_of_a_chosen_picture_have_its_plan(untrained, monkeypatch):
    model = unireel.load(untrained, device="cpu")
    model.register_to_config(staged=True)
    made = []
    honest = model.generate_many

    def extend(prompts, generators, placed):
        assert placed
        return [f"{each.initial_seed()}" for each in generators]

    def watched(prompts, images, *rest, extend):
        made.append((list(prompts), images is not None, extend))
        return honest([PROMPT] * len(prompts), images, *rest, extend=False)

    monkeypatch.setattr(model, "extend", extend)
    monkeypatch.setattr(model, "generate_many", watched)
    scores = iter([0.0, 1.0, 1.0, 0.0, *[0.0] * 4])
    monkeypatch.setattr(
        pipeline, "verify_each", lambda _, clips, facts: [Verification((), next(scores)) for _ in clips]
    )
    model.best_of_many([PROMPT, "a green cross grows"], 2, seeds=[3, 8], steps=1)
    assert made == [(["3", "4", "8", "9"], False, False), (["4", "4", "8", "8"], True, False)]


@pytest.mark.parametrize(("count", "prompt"), [(0, PROMPT), (2, "the"), (2, "")])
def test_what_cannot_be_chosen_is_refused(model, count, prompt):
    with pytest.raises((UsageError, UserError), match=r"at least 1|nothing in the prompt|empty"):
        model.best(prompt, count=count)


@pytest.mark.parametrize(
    ("fast", "away"),
    [(None, 0.02), (True, 1.5)],  # True: bfloat16 where the machine computes faster in it
)
def test_models_are_made_faster_unless_asked_not_to(untrained, fast, away):
    stock, model = (unireel.load(untrained, device="cpu", fast=each) for each in (False, fast))
    assert type(stock.transformer).__module__.startswith("diffusers.")
    assert type(model.transformer).__module__.startswith("unireel.backbones.fast")
    one, two = (each.generate(PROMPT, seed=2, steps=2).frames.astype(int) for each in (stock, model))
    assert np.abs(one - two).mean() < away
