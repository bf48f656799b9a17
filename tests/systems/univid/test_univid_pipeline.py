"""The pocket UniVid: what it does with an untrained model, against the base system and stock sampling."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file
from torch import nn

import unireel
from unireel.backbones.lora import add_lora, lora_parameters
from unireel.errors import UsageError, UserError
from unireel.flow.sampling import sample
from unireel.systems.univid.pipeline import UniVid
from unireel.systems.univid.settings import Settings, Sizes
from unireel.systems.univid.temperature import TemperatureAlignment

SMALL = Sizes(hidden=32, layers=1)
OFF = TemperatureAlignment(schedule="none")
PROMPTS = ["a red star jumps twice", "two blue rings on a navy background"]


@pytest.fixture(scope="module")
def make(untrained):
    def made(**settings) -> UniVid:
        gated = Settings("gate", context_length=172)
        return UniVid.from_base(unireel.load(untrained), replace(gated, **settings), SMALL)

    return made


@pytest.fixture(scope="module")
def model(make) -> UniVid:
    """With its gate and its blocks open, as after training."""
    opened = make()
    opened.combiner.gate.data.fill_(0.8)
    torch.manual_seed(1)
    nn.init.normal_(opened.connector.blocks[0].modulation.weight, std=0.3)
    return opened


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)


def noise(model: UniVid, count: int = 2, frames: int = 5) -> torch.Tensor:
    return model._noise(count, frames, torch.Generator().manual_seed(0))


def test_with_a_closed_gate_it_is_the_base_model_with_a_longer_context(make, untrained):
    model, base = make(alignment=OFF), unireel.load(untrained)
    text, empty = base.encode_prompt(PROMPTS)
    pad = (0, 0, 0, model.settings.context_length - text.shape[1])
    text, empty = (nn.functional.pad(each, pad) for each in (text, empty))
    start = noise(model)
    options = {
        "steps": 2,
        "guidance": 2.0,
        "shift": base.config["shift"],
        "prediction": base.config["prediction"],
    }
    expected = sample(base.transformer, start, text, empty, **options)
    assert torch.allclose(model.latents(PROMPTS, start, steps=2), expected, atol=1e-5)


def test_understanding_steers(model, picture):
    start = noise(model)
    plain = model.latents(PROMPTS, start, steps=2)
    with_picture = model.latents(PROMPTS, start, [picture, None], steps=2)
    assert not torch.allclose(plain[0], with_picture[0], atol=1e-4)
    assert torch.allclose(plain[1], with_picture[1], atol=1e-5), "a picture is for its own prompt alone"
    shuffled = model.latents(PROMPTS, start, steps=2, heard=PROMPTS[::-1])
    assert not torch.allclose(plain, shuffled, atol=1e-4)
    deaf = model.latents(PROMPTS, start, [picture, None], steps=2, control="deaf")
    assert torch.allclose(deaf, model.latents(PROMPTS, start, steps=2, control="deaf"), atol=1e-5)
    unread = model.latents(PROMPTS, start, steps=2, control="unread")
    assert not torch.allclose(unread, plain, atol=1e-4) and not torch.allclose(
        unread[0], unread[1], atol=1e-4
    )


def test_where_the_text_is_replaced_only_what_is_heard_counts(make):
    model = make(combination="replace", context_length=96)
    start = noise(model)
    heard = model.latents(PROMPTS, start, steps=2)
    assert torch.equal(heard, model.latents(PROMPTS, start, steps=2, control="unread"))
    assert torch.equal(heard, model.latents(PROMPTS[::-1], start, steps=2, heard=PROMPTS))
    other = model.latents(PROMPTS, start, steps=2, heard=PROMPTS[::-1])
    assert not torch.allclose(heard, other, atol=1e-4)


def test_prompts_are_put_in_words_and_then_extended(model, picture, monkeypatch):
    told = {}
    monkeypatch.setattr(model, "resolve", lambda prompt, seen: "a red star jumps")

    def extend(prompts, generators, placed):
        told["prompts"], told["placed"] = list(prompts), placed
        told["seeds"] = [each.initial_seed() for each in generators]
        return [f"{each} twice" for each in prompts]

    def latents(prompts, noise, *_):
        told["made"] = list(prompts)
        return noise

    monkeypatch.setattr(model, "extend", extend)
    monkeypatch.setattr(model, "latents", latents)
    said = "a star of the colour shown in this picture jumps"
    model.generate_many([said, "a blue ring blinks"], seeds=[4, 9], frames=5, references=[picture, picture])
    assert told["prompts"] == ["a red star jumps", "a blue ring blinks"]
    assert told["seeds"] == [4, 9] and told["placed"]
    assert told["made"] == ["a red star jumps twice", "a blue ring blinks twice"]
    model.generate_many(["a blue ring blinks"], [picture], frames=5)
    assert not told["placed"]
    model.generate_many(["a blue ring blinks"], frames=5, extend=False)
    assert told["made"] == ["a blue ring blinks"]


def test_hearing_another_prompt_changes_what_is_understood_and_not_the_text(model):
    before, after = (model.conditioner.encode(heard, None, PROMPTS) for heard in (PROMPTS, PROMPTS[::-1]))
    longest = before.features.states.shape[1]
    assert torch.allclose(after.features.states[0, :longest], before.features.states[1], atol=1e-5)
    assert torch.equal(after.text, before.text)


def test_both_views_of_a_picture_become_context(model, picture):
    condition = model.conditioner.encode(PROMPTS, [picture, None])
    assert condition.latents.shape == (2, 9, 4 * 16) and condition.latents[1].abs().max() == 0
    full = model.connector(
        condition.features, torch.tensor([0.5, 0.5]), condition.latents, given=condition.given
    )
    words = [len(model.tokenizer(each, add_special_tokens=False)["input_ids"]) for each in PROMPTS]
    texts = [1 + 1 + count + 1 for count in words]  # <s> <caption> ... </s>
    assert full.mask.sum(1).tolist() == [9 + 9 + texts[0], texts[1]]


def test_alignment_acts_during_sampling_and_leaves_nothing_behind(model):
    start = noise(model)
    with_gain = model.latents(PROMPTS, start, steps=2, alignment=TemperatureAlignment(text_strength=2.0))
    without = model.latents(PROMPTS, start, steps=2, alignment=OFF)
    assert not torch.allclose(with_gain, without, atol=1e-4)
    again = model.latents(PROMPTS, start, steps=2, alignment=OFF)
    assert torch.equal(without, again)


def test_a_saved_model_does_the_same(make, model, tmp_path, picture):
    worn = make()
    worn.combiner.gate.data.fill_(0.37)
    add_lora(worn.transformer, rank=2)
    torch.manual_seed(5)
    for each in lora_parameters(worn.transformer):
        nn.init.normal_(each, std=0.1)
    worn.save_pretrained(tmp_path, torch.float32)
    loaded = unireel.load(tmp_path)
    assert isinstance(loaded, UniVid) and loaded.settings == worn.settings
    loaded.save_pretrained(tmp_path / "again", torch.float32)
    first, again = (
        load_file(folder / "adapters" / "pytorch_lora_weights.safetensors")
        for folder in (tmp_path, tmp_path / "again")
    )
    assert first.keys() == again.keys() and all(torch.equal(first[key], again[key]) for key in first)
    start = noise(worn)
    expected = worn.latents(PROMPTS, start, [picture, None], steps=2)
    assert torch.allclose(loaded.latents(PROMPTS, start, [picture, None], steps=2), expected, atol=1e-5)
    stock = WanTransformer3DModel.from_pretrained(tmp_path / "transformer")
    assert not [name for name, _ in stock.named_parameters() if "lora" in name]
    assert lora_parameters(worn.transformer), "saving must not take the adapters off"


def test_films_and_answers_have_the_base_systems_interface(model, picture):
    clips = model.generate_many(
        ["a star of the colour shown in this picture jumps", PROMPTS[1]],
        references=[picture, None],
        frames=5,
        steps=2,
    )
    assert [clip.frames.shape for clip in clips] == [(5, 48, 48, 3)] * 2
    assert model.ask(clips[0], "what is the background?").text is not None
    film = model.generate(PROMPTS[0], image=picture, frames=5, steps=2)
    assert film.frames.shape == (5, 48, 48, 3)


def test_it_is_called_as_diffusers_pipelines_are(model, picture):
    start = noise(model, 1)
    words = "a star of the colour shown in this picture jumps"
    options = {"num_frames": 5, "num_inference_steps": 2, "guidance_scale": 2.0, "latents": start}
    frames = model(words, reference=picture, **options).frames
    state = model(words, reference=picture, output_type="latent", **options).frames
    steered = model.latents([words.replace("this", "the")], start, [picture], steps=2, guidance=2.0)
    assert torch.allclose(state, steered, atol=1e-5)
    assert (
        frames.shape == (1, 5, 48, 48, 3)
        and frames.dtype == np.float32
        and 0 <= frames.min() <= frames.max() <= 1
    )


def test_best_of_keeps_one_of_the_films_with_its_seed(model):
    chosen = model.best(PROMPTS[0], 2, frames=5, seed=7, steps=2)
    assert len(chosen.verifications) == len(chosen.clips) == 2 and chosen.clips[chosen.number] is chosen.clip
    scores = [each.score for each in chosen.verifications]
    assert scores[chosen.number] == max(scores)
    alone = model.generate(PROMPTS[0], frames=5, seed=7 + chosen.number, steps=2)
    assert np.abs(alone.frames.astype(int) - chosen.clip.frames).max() <= 1


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m, p: m.generate("a star of the colour shown in this picture"), UserError, "none is given"),
        (lambda m, p: m.generate(" "), UserError, "empty"),
        (lambda m, p: m.generate("a unicorn"), UserError, "unicorn"),
        (lambda m, p: m.generate("a star", reference=p[:2].repeat(2, 1)), UserError, "sides differ"),
        (lambda m, p: m.generate("a star", reference=p.astype(float)), UserError, "uint8"),
        (lambda m, p: m.generate("a star", image=p, frames=1), UsageError, "first frame"),
        (lambda m, p: m.generate("a star", best_of=0), UsageError, "at least 1"),
        (lambda m, p: m.generate_many(["a star"], references=[p, p]), UsageError, "as many references"),
        (lambda m, p: m.generate("a star " * 60), UserError, "at most"),
    ],
)
def test_bad_requests_are_one_line(model, picture, call, error, words):
    with pytest.raises(error, match=words) as caught:
        call(model, picture)
    assert "\n" not in str(caught.value)


def test_a_model_of_another_system_is_refused(untrained, make):
    with pytest.raises(UserError, match="connector"):
        UniVid.from_pretrained(untrained)
    with pytest.raises(UsageError, match="no room"):
        make(context_length=60)
