"""The whole system at a tiny size: trained by its stage, saved, loaded by its folder, and used by every command."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCosmos

import unireel
from unireel.cli.main import main
from unireel.clip import Clip
from unireel.data.cache import CacheConfig, build
from unireel.data.latents import encoder_digest
from unireel.errors import UsageError, UserError
from unireel.systems.base.pipeline import BasePipeline
from unireel.systems.univigu import stages
from unireel.systems.univigu.lessons import KINDS, Mix
from unireel.systems.univigu.pipeline import UniViguPipeline
from unireel.systems.univigu.stages import UniConfig, UniStage
from unireel.training.recipe import load_recipe, plain, stage_class
from unireel.world.language import unknown_words
from unireel.world.render import render
from unireel.world.sampling import sample_scene

FOLDER = Path(__file__).parents[2] / "recipes" / "univigu"
RECIPES = [FOLDER / f"{name}.yaml" for name in ("recall", "refine", "together")]
PROMPT = "a red star jumps"
QUESTION = "how many objects are there?"


@pytest.fixture(scope="module")
def start(untrained, tmp_path_factory) -> dict[str, object]:
    films = tmp_path_factory.mktemp("films")
    build(films, CacheConfig(6), progress=False)
    return {
        "base": str(untrained),
        "films": str(films),
        "film_count": 6,
        "used_films": 6,
        "batch_size": 4,
        "text_slots": 96,
        "evaluate_films": 1,
    }


def stage_of(start, **settings) -> UniStage:
    torch.manual_seed(0)
    return UniStage(UniConfig(**(start | settings)))


@pytest.fixture(scope="module")
def folder(start, tmp_path_factory):
    stage = stage_of(start)
    with torch.no_grad():
        stage.module["transformer"].text_head.weight.normal_(std=0.3)
    path = tmp_path_factory.mktemp("univigu")
    stage.export(path)
    card = json.loads((path / "unireel.json").read_text())
    card["settings"] |= {"steps": 2, "caption_slots": 10, "text_steps": 3}
    (path / "unireel.json").write_text(json.dumps(card))
    return path


@pytest.fixture(scope="module")
def model(folder) -> UniViguPipeline:
    return unireel.load(folder)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return render(sample_scene(0, 0, "test", size=48))


def test_it_makes_the_same_films_as_the_generator_it_started_from(model, untrained):
    before = BasePipeline.from_pretrained(untrained)
    after = model.generate(PROMPT, seed=3, steps=2, guidance=4.0).frames
    settings = {"shift": model.config["shift"], "prediction": model.config["prediction"]}
    before.register_to_config(**settings, staged=model.config["staged"])
    assert np.array_equal(after, before.generate(PROMPT, seed=3, steps=2, guidance=4.0).frames)


def test_answers_and_descriptions(model, clip):
    answer, caption = model.ask(clip, QUESTION), model.caption(clip)
    for said, most in ((answer, 6), (caption, 10)):
        assert 0 <= said.confidence <= 1 and said.reliable and len(said.evidence) == 17
        assert not unknown_words(said.text) and len(said.text.split()) <= most
    other = render(sample_scene(0, 1, "test", size=48))
    pairs = [(clip, QUESTION), (other, "what is the style?"), (clip, "what is the background?")]
    together = model.ask_many(pairs, batch_size=2)
    assert [each.text for each in together] == [model.ask(*pair).text for pair in pairs]
    begun = model.complete(clip, "there is one object.")
    assert begun.text.startswith("there is one object.")


def test_films_with_their_descriptions(model):
    made = model.imagine_many([PROMPT, "a blue ring"], seeds=[5, 6], frames=5)
    assert [each.clip.frames.shape for each in made] == [(5, 48, 48, 3)] * 2
    alone = model.imagine("a blue ring", seed=6, frames=5, text_steps=2)
    assert alone.clip.frames.shape == (5, 48, 48, 3) and 0 <= alone.caption.confidence <= 1
    same = model.imagine("a blue ring", seed=6, frames=5)
    assert same.caption.text == made[1].caption.text
    assert np.abs(same.clip.frames.astype(int) - made[1].clip.frames).max() <= 1
    given = np.zeros((48, 48, 3), np.uint8)
    assert model.imagine(PROMPT, image=given, frames=5).clip.frames.shape == (5, 48, 48, 3)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda m, c: m.ask(c, " "), UserError, "the question is empty"),
        (lambda m, c: m.ask(c, "what is a dragon?"), UserError, "'dragon'"),
        (lambda m, c: m.ask(c, "is there a star? " * 20), UserError, "the text needs .* the model has 96"),
        (lambda m, c: m.imagine("a dragon"), UserError, "'dragon'"),
        (lambda m, c: m.imagine(PROMPT, frames=7), UsageError, "films of 1, 5, 9, 13, 17 frames"),
        (lambda m, c: m.imagine(PROMPT, text_steps=0), UsageError, "at least 1 step each"),
        (lambda m, c: m.imagine_many([PROMPT], seeds=[1, 2]), UsageError, "as many seeds"),
        (lambda m, c: m.complete(c, "a red star " * 9), UserError, "the beginning is longer"),
    ],
)
def test_what_cannot_be_asked(model, clip, call, error, message):
    with pytest.raises(error, match=message):
        call(model, clip)


def test_folders_that_are_no_such_model(folder, untrained, tmp_path):
    with pytest.raises(UserError, match="it has no folder 'vae'"):
        UniViguPipeline.from_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"cannot be loaded"):
        UniViguPipeline.from_pretrained(untrained)


def test_commands(folder, untrained, clip, tmp_path, capsys):
    film = str(tmp_path / "film.mp4")
    options = ["--model", str(folder)]
    assert main(["imagine", PROMPT, "-o", film, "--frames", "5", "--steps", "1", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(film) and "5 frames" in lines[0] and lines[2].startswith("confidence")
    assert main(["imagine", PROMPT, "-o", film, "--frames", "5", "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == PROMPT
    assert main(["ask", film, QUESTION, *options]) == 0
    assert main(["caption", film, *options]) == 0
    assert main(["imagine", PROMPT, "-o", film, "--model", str(untrained)]) == 2
    assert "cannot imagine; name a model of Uni-ViGU" in capsys.readouterr().err
    assert main(["imagine", " ", "-o", film, *options]) == 2
    assert main(["imagine", PROMPT, "-o", str(tmp_path / "no" / "film.mp4"), *options]) == 1


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_recipes_are_what_the_stage_takes(path):
    recipe = load_recipe(path)
    config = plain(recipe)["stage_config"]
    assert stage_class(recipe) is UniStage and recipe.parallel == "replicate"
    assert config["mix"]["target"] == ("prompt" if path.stem == "recall" else "caption")
    assert config["mix"]["condition_dropout"] > 0.5 and config["film_weight"] == 1.0
    assert (path.stem != "recall") == bool(config["start_from"]) == (config["mix"]["questions"] > 0)


def test_kinds_of_batches_come_as_often_as_they_weigh(start):
    stage = stage_of(start, mix=Mix(understand=0.5, pair=0.25, film=0.2, text=0.05))
    kinds = [stage.batches.kind(i) for i in range(400)]
    for kind, share in zip(KINDS, (0.5, 0.25, 0.2, 0.05), strict=True):
        assert kinds.count(kind) == pytest.approx(400 * share, abs=3)
    with pytest.raises(ValueError, match="must be a share between 0 and 1"):
        Mix(questions=2.0)


def test_batches_say_what_they_should(start):
    stage = stage_of(
        start, mix=Mix(target="prompt", condition_dropout=1.0, understand=1, pair=0, film=0, text=0)
    )
    batch = stage.batch(0)
    assert "clean" not in batch and bool(
        (batch["mask"].sum(1) == 1).all()
    )  # nothing but the end: an empty condition
    first = stage.tokenizer.convert_ids_to_tokens(batch["words"][:, 0].tolist())
    assert set(first) == {"<s>"}
    other = stage_of(start, mix=Mix(questions=1.0, understand=0, pair=1, film=0, text=0))
    asked, again = other.batch(3), (other.batch(4), other.batch(3))[1]
    row = stage.tokenizer.convert_ids_to_tokens(asked["words"][0].tolist())
    given = int(asked["given"][0].sum())
    assert row[0] == "<ask>" and row[given - 1] == "<answer>" and "</s>" in row[given:]
    assert all(torch.equal(one, two) for one, two in zip(asked.values(), again.values(), strict=True))


@pytest.mark.parametrize("formulation", ["masked", "uniform", "hybrid", "embedding", "velocity"])
def test_every_part_learns_from_what_is_its_own(start, formulation):
    """Gradients reach what a batch is about and nothing else: films no text weights, texts no film weights."""
    stage = stage_of(start, formulation=formulation, mix=Mix(understand=1, pair=1, film=1, text=1))
    with torch.no_grad():
        stage.module["transformer"].text_head.weight.normal_(std=0.1)
    seen = set()
    for index in range(12):
        kind = stage.batches.kind(index)
        if kind in seen:
            continue
        seen.add(kind)
        stage.module.zero_grad(set_to_none=True)
        loss, logs = stage.loss(stage.batch(index))
        loss.backward()
        model = stage.module["transformer"]
        moved = {name for name, each in model.named_parameters() if each.grad is not None and each.grad.any()}
        assert ("text_head.weight" in moved) == (kind != "film")
        assert ("blocks.0.ffn_t.net.0.proj.weight" in moved) == (kind != "film")
        assert ("proj_out.weight" in moved) == (kind in ("film", "pair"))
        assert ("patch_embedding.weight" in moved) == (kind != "text")
        assert torch.isfinite(loss) and logs
    assert seen == set(KINDS)


def test_the_text_stream_alone_learns_and_the_film_stays(start):
    stage = stage_of(
        start, train="text", mix=Mix(questions=0.5, each=3, understand=1, pair=1, film=0, text=0)
    )
    model = stage.module["transformer"]
    with torch.no_grad():
        model.text_head.weight.normal_(std=0.1)
    video = BasePipeline.from_pretrained(start["base"]).transformer.state_dict()
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert trained == model.state_dict().keys() - video.keys()
    for index in range(4):
        stage.loss(stage.batch(index))[0].backward()
    moved = {name for name, each in model.named_parameters() if each.grad is not None and each.grad.any()}
    assert moved <= trained and {"text_head.weight", "blocks.0.ffn_t.net.2.weight"} <= moved
    with pytest.raises(UsageError, match=r"mix.film must be 0"):
        stage_of(start, train="text", mix=Mix(film=0.1))


def test_shared_layers_learn_by_low_rank_and_stay_near_the_base(start, tmp_path):
    """What reads films learns along; a film batch pulls towards what the base draws, not towards the data."""
    ranks = {"blocks.*.attn1.to_*": 2, "blocks.*.ffn.net.*": 3}
    settings = {"train": "text", "low_rank": ranks, "teacher": True, "sights": 0.1, "sights_block": 0}
    stage = stage_of(start, mix=Mix(copies=2, understand=1, pair=0, film=0, text=0), **settings)
    batch = stage.batch(0)
    assert batch["about"].bincount().tolist() == [2] * 4
    with torch.no_grad():
        stage.module["transformer"].text_head.weight.normal_(std=0.1)
    loss, logs = stage.loss(batch)
    loss.backward()
    moved = {
        name for name, each in stage.module.named_parameters() if each.grad is not None and each.grad.any()
    }
    wanted = {"blocks.0.attn1.to_q.up", "blocks.0.attn1.to_v.up", "text_head.weight"}
    assert {f"transformer.{each}" for each in wanted} <= moved and "binding.sight.weight" in moved
    assert not any(name.endswith("to_q.weight") or name.startswith("transformer.proj_out") for name in moved)
    assert {"sights", "shape", "text_of_clean"} <= logs.keys()

    films = stage_of(start, mix=Mix(understand=0, pair=0, film=1, text=0), **settings)
    first = films.loss(films.batch(0))[0]
    assert first.item() == pytest.approx(0, abs=1e-9)  # so far it draws what the base draws
    with torch.no_grad():
        for name, each in films.module.named_parameters():
            if name.endswith(".up"):
                each.normal_(std=0.1)
    assert films.loss(films.batch(0))[0].item() > 1e-4
    films.export(tmp_path)
    base, own = BasePipeline.from_pretrained(start["base"]), UniViguPipeline.from_pretrained(tmp_path)
    before, after = base.transformer.blocks[0], own.transformer.blocks[0]
    difference = after.attn1.to_k.weight - before.attn1.to_k.weight
    assert int(torch.linalg.matrix_rank(difference, rtol=1e-4)) == 2
    assert torch.equal(after.attn2.to_k.weight, before.attn2.to_k.weight)
    base.register_to_config(**{name: own.config[name] for name in base.film_settings})
    made = own.generate(PROMPT, seed=3, steps=2).frames
    assert np.array_equal(made, base.generate(PROMPT, seed=3, steps=2).frames), (
        "films without text are the base's"
    )
    later = {"start_from": str(tmp_path), "mix": Mix(film=0)}
    kept = stage_of(start, train="text", **later).pipeline().film_transformer
    assert kept is not None and torch.equal(kept.proj_out.weight, base.transformer.proj_out.weight)
    assert stage_of(start, train="all", **later).pipeline().film_transformer is None, "it learns to draw"
    with pytest.raises(UsageError, match=r"low_rank: needs 'train: text'"):
        stage_of(start, low_rank=ranks)
    with pytest.raises(UsageError, match="sights_block: the model has blocks 0 to 0"):
        stage_of(start, sights=1.0, sights_block=1)


def test_questions_about_one_film_share_its_reading(start):
    """The loss of many questions about a film, read once, is that of each about its own copy of the film."""
    stage = stage_of(start, mix=Mix(questions=1.0, each=3, understand=1, pair=0, film=0, text=0))
    with torch.no_grad():
        stage.module["transformer"].text_head.weight.normal_(std=0.1)
    batch = stage.batch(0)
    about = batch["about"]
    assert about.bincount().tolist() == [3] * 4 and bool(batch["asking"])
    questions = {
        tuple(ids[given].tolist()) for ids, given in zip(batch["words"], batch["given"], strict=True)
    }
    assert len(questions) > 4
    torch.manual_seed(1)
    together = stage.loss(batch)[0].item()
    alone = batch | {name: batch[name][about] for name in ("ids", "mask", "latents")}
    alone["about"] = torch.arange(len(about))
    torch.manual_seed(1)
    assert stage.loss(alone)[0].item() == pytest.approx(together, rel=1e-5)


def test_the_truth_has_no_loss(start, monkeypatch):
    """Means over each modality's own tokens: the data itself, and certainty about the words, cost nothing."""
    stage = stage_of(start, mix=Mix(understand=0, pair=1, film=0, text=0, clean_first=0.0))
    stage.prediction = "data"
    batch = stage.batch(0)
    from unireel.backbones.uni_rows import Seen

    logits = 50.0 * torch.nn.functional.one_hot(batch["words"], len(stage.tokenizer)).float()
    model = stage.module["transformer"]
    monkeypatch.setattr(model, "streams", lambda *_, **__: Seen(batch["latents"], logits, None))
    assert float(stage.loss(batch)[0]) == pytest.approx(0.0, abs=1e-6)
    monkeypatch.setattr(stages, "sample_times", lambda count, *_: torch.ones(count))
    monkeypatch.setattr(model, "streams", lambda *_, **__: Seen(batch["latents"] + 0.5, logits, None))
    assert float(stage.loss(batch)[0]) == pytest.approx(0.25, abs=1e-5)


def test_stage_two_goes_on_where_stage_one_ended(start, folder, tmp_path):
    with pytest.raises(UsageError, match="writes text as 'masked', not as 'uniform'"):
        stage_of(start, start_from=str(folder), formulation="uniform")
    with pytest.raises(UsageError, match=r"'stage_config.start_from' needs a model of the system univigu"):
        stage_of(start, start_from=start["base"])
    with pytest.raises(UsageError, match=r"'stage_config.base' needs a model of the system base"):
        stage_of(start, base=str(folder))
    stage = stage_of(start, start_from=str(folder))
    folders = (Path(str(start["base"])) / "vae", folder / "vae")
    one, two = (AutoencoderKLCosmos.from_pretrained(each) for each in folders)
    assert encoder_digest(one) == encoder_digest(two)  # so that the films' latents are found again
    before = unireel.load(folder).transformer.state_dict()
    assert all(
        torch.equal(value, before[name]) for name, value in stage.module["transformer"].state_dict().items()
    )
    values = stage.evaluate()
    assert 0 <= values["caption_f1"] <= 1 and values["answers"] in (0, 1)
