"""The full-scale stages: counted on the meta device at their real sizes, and run with the real classes at tiny ones."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportMissingImports=false

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, WanTransformer3DModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from unireel import training
from unireel.backbones.bagel import PARAMETERS
from unireel.backbones.understanding import BagelUnderstanding, Request
from unireel.backbones.vae import pocket_autoencoder
from unireel.backbones.wan_files import TI2V_5B_PARAMETERS
from unireel.cli.main import main
from unireel.clip import Clip
from unireel.systems.univid.stages import full
from unireel.systems.univid.stages.common import film_loss
from unireel.systems.univid.stages.full import FullConfig, FullJoint, FullJointConfig, FullMaterial, Models
from unireel.training.recipe import from_dict

sys.path.append(str(Path(__file__).parents[2] / "backbones"))
from bagel_parts import tiny_bagel, tiny_tokenizer

RECIPES = Path(__file__).parents[3] / "recipes" / "univid"
HEAD = "video,caption,aesthetic score,motion score,temporal consistency score,seconds"


def test_the_plan_counts_the_published_models_and_trains_nothing_else(capsys):
    assert main(["train", str(RECIPES / "full-stage1.yaml"), "--plan"]) == 0
    said = capsys.readouterr().out
    assert f"understanding model: {PARAMETERS / 1e9:.3f} B" in said
    rank = 32
    lora = 30 * 2 * 4 * rank * 2 * 3072
    assert f"decoder with adapters: {(TI2V_5B_PARAMETERS + lora) / 1e9:.3f} B" in said
    assert "27280 tokens" in said and "'OpenVid-1M/OpenVid-1M.csv' is not there yet" in said
    connector = float(said.split("connector: ")[1].split(" B")[0])
    trained = float(said.split("in all ")[1].split(" M")[0])
    assert trained == pytest.approx(lora / 1e6 + connector * 1e3, rel=0.01)


@pytest.mark.parametrize("stage", [2, 3])
def test_the_other_recipes_are_what_their_stages_take(stage):
    recipe = training.load_recipe(RECIPES / f"full-stage{stage}.yaml")
    config = from_dict((FullConfig, FullJointConfig)[stage - 2], recipe.stage_config, "stage_config")
    if stage == 2:  # four epochs of 20,000 samples (A.3)
        seen = recipe.steps * recipe.accumulate * config.question_batch
        assert seen == 4 * config.most_questions == 80_000
    else:
        assert config.curriculum.batches == recipe.steps * recipe.accumulate


def test_sizes_that_latents_cannot_have_are_refused():
    with pytest.raises(ValueError, match="4 k"):
        FullConfig(frames=120)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict:
    """Three films with captions, and two dialogues about them."""
    folder = tmp_path_factory.mktemp("data")
    frames = np.random.default_rng(0).integers(0, 256, (16, 64, 96, 3), dtype=np.uint8)
    rows = [HEAD]
    for name in "abc":
        Clip(frames, 24).save(folder / f"{name}.mp4")
        rows.append(f"{name}.mp4,a red star jumps twice,5.0,4.0,0.9,5.0")
    (folder / "films.csv").write_text("\n".join(rows) + "\n")
    turns = [{"from": "human", "value": "<video>\na star"}, {"from": "gpt", "value": "a red star"}]
    (folder / "q.json").write_text(
        json.dumps([{"id": "1", "video": each, "conversations": turns} for each in "ab"])
    )
    return {
        "films": str(folder / "films.csv"),
        "film_folder": str(folder),
        "questions": str(folder / "q.json"),
        "answers": "",
        "question_folder": str(folder),
        "frames": 5,
        "height": 32,
        "width": 32,
        "question_frames": 2,
        "context_length": 256,
        "hidden": 16,
        "layers": 1,
        "lora_rank": 2,
        "batch_size": 2,
        "given": 0.5,
        "empty": 0.0,
    }


def tiny_models() -> Models:
    from unireel.backbones.images import ImageRule

    torch.manual_seed(0)
    flux = AutoencoderKL(block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4,
                         down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                         scaling_factor=0.5, shift_factor=0.1)  # fmt: skip
    rules = ImageRule(32, 8, 4), ImageRule(32, 8, 4)
    understanding = BagelUnderstanding(tiny_bagel(), tiny_tokenizer(), flux.eval(), *rules)
    transformer = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16, freq_dim=16,
        ffn_dim=32, num_layers=1, cross_attn_norm=True, rope_max_seq_len=64,
    )  # fmt: skip
    words = {
        word: number for number, word in enumerate(("<pad>", "</s>", "a", "red", "star", "jumps", "twice"))
    }
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    text = UMT5EncoderModel(UMT5Config(vocab_size=8, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")
    vae = pocket_autoencoder(8, 8, 4, 1)
    return Models(understanding, understanding.model, transformer, vae.eval(), text.eval(), fast)


@pytest.fixture(scope="module")
def material(data) -> FullMaterial:
    return FullMaterial(FullConfig(**data), tiny_models())


def test_films_come_from_the_table_with_their_first_frames(material):
    task = material.films(0)
    assert task.data.shape == (2, 3, 5, 32, 32) and task.data.min() >= -1 and task.data.max() <= 1
    assert task.prompts == ("a red star jumps twice",) * 2
    for picture, clean in zip(task.pictures, task.clean, strict=True):
        assert (picture is not None) == bool(clean)
    loss, _ = film_loss(material, task)
    loss.backward()
    assert material.combiner.gate.grad is not None and torch.isfinite(loss)


def test_cross_entropy_is_on_the_assistants_turn_alone(material):
    """Against what the model says by itself, token by token."""
    (request, _), *_ = material.questions(0)
    assert request.question == "a star" and request.frames.shape[0] == 2
    spoken = material.models.understanding.chat([request], max_new_tokens=4)[0]
    words = [material.models.understanding.tokenizer.convert_ids_to_tokens(each) for each in spoken.ids]
    states, targets = material.models.understanding.answer_states([request], ["a red star"])
    assert targets.tolist() == [5, 6, 7, 1] and states.shape == (4, 48)
    known = [each for each in words if isinstance(each, str)]
    said = material.models.understanding.answer_states(
        [Request(request.question, request.frames)], [" ".join(known)]
    )
    logits = material.bagel.logits(said[0][:1]).softmax(-1)
    assert logits[0].max().item() == pytest.approx(spoken.probabilities[0], rel=1e-3)


def test_exports_are_gone_on_with(data, material, tmp_path, monkeypatch):
    with torch.no_grad():
        for part in material.parts().values():
            for each in part.parameters():
                each.add_(0.01)
    material.export(tmp_path)
    again = FullMaterial(FullConfig(**data, start_from=str(tmp_path)), tiny_models())
    for name, part in material.parts().items():
        other = again.parts()[name].state_dict()
        for key, value in part.state_dict().items():
            assert torch.allclose(value, other[key]), (name, key)
    monkeypatch.setattr(full, "loaded", lambda config: tiny_models())
    stage = FullJoint(FullJointConfig(**data, start_from=str(tmp_path)))
    for index, phase in ((0, "semantic"), (1000, "mixing"), (2900, "joint")):
        assert stage.curriculum.phase(index) == phase
        stage.module.zero_grad()
        loss, _ = stage.loss(stage.batch(index))
        loss.backward()
        learning = {
            name.split(".")[0] for name, each in stage.module.named_parameters() if each.grad is not None
        }
        assert ("lora" in learning) == (phase != "semantic") and ("merger" in learning) == (phase != "mixing")


def test_stage_one_learns_the_same_from_features(data, tmp_path, monkeypatch, capsys):
    """The loss from a cache is the loss from films, for every draw of what is given, read and dropped."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    models = tiny_models()
    monkeypatch.setattr(
        full,
        "loaded_encoders",
        lambda _: (models.understanding, models.vae, models.text_encoder, models.tokenizer),
    )
    for name in ("bagel", "wan/vae", "wan/text_encoder", "wan/tokenizer"):
        (tmp_path / name).mkdir(parents=True)
    own = {**data, "empty": 0.3, "unread": 0.3, "batch_size": 3, "features": str(tmp_path / "features")}
    own |= {"understanding": str(tmp_path / "bagel"), "decoder": str(tmp_path / "wan")}
    recipe = tmp_path / "recipe.yaml"
    stage = "unireel.systems.univid.stages:FullAlignment"
    recipe.write_text(json.dumps({"stage": stage, "output": str(tmp_path), "steps": 1, "stage_config": own}))
    assert main(["features", str(recipe)]) == 0
    assert "3 made, 0 kept" in capsys.readouterr().out
    made = []
    for features, parts in (("", models), (own["features"], tiny_models())):
        torch.manual_seed(0)
        made.append(FullMaterial(FullConfig(**{**own, "features": features}), parts))
    plain, cached = made
    assert any("features of 3 films" in line for line in cached.report())
    with torch.no_grad():
        for each in (plain, cached):
            gate = each.combiner.gate
            assert gate is not None
            gate.fill_(0.5)
    drawn = set()
    for index in range(8):
        tasks = plain.films(index), cached.films(index)
        losses = []
        for material, task in zip((plain, cached), tasks, strict=True):
            torch.manual_seed(index)
            losses.append(film_loss(material, task)[0])
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=0)
        assert tasks[0].prompts == tasks[1].prompts and tasks[0].texts == tasks[1].texts
        assert torch.equal(tasks[0].clean, tasks[1].clean)
        drawn |= {
            (bool(clean), bool(prompt))
            for clean, prompt in zip(tasks[0].clean, tasks[0].prompts, strict=True)
        }
    assert len(drawn) == 4, "all four kinds of conditions were compared"
    with pytest.raises(ValueError, match="which this stage trains"):
        FullJointConfig(features="there")
