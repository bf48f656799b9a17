"""Uni-ViGU at full scale: counted and sized on the meta device, and run with the real classes at tiny sizes."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportCallIssue=false, reportIndexIssue=false

import csv
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from unireel import training
from unireel.backbones.uni_block import attend
from unireel.backbones.uni_rows import Film, Memory, Words, who_reads_whom
from unireel.backbones.uni_wan_files import with_text
from unireel.backbones.wan import MatmulAttention
from unireel.backbones.wan_files import T2V_1_3B_PARAMETERS
from unireel.cli.main import main
from unireel.clip import Clip
from unireel.errors import UsageError, UserError
from unireel.systems.univigu import stages_full
from unireel.systems.univigu.sizing import is_of_text, operations
from unireel.systems.univigu.stages_full import FullModels, FullUniConfig, FullUniStage, marked, text_settings
from unireel.training.optimizers import Optimizers
from unireel.training.recipe import OptimizerConfig, from_dict

RECIPES = Path(__file__).parents[2] / "recipes" / "univigu"
WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "star", "jumps", "twice", "and", "then", "it", "falls", "down"]
WORDS += ["slowly"]


def test_the_plan_counts_the_published_models_and_sizes_a_step(capsys):
    assert main(["train", str(RECIPES / "full-recall.yaml"), "--plan"]) == 0
    said = capsys.readouterr().out
    width, ffn, vocabulary, slots = 1536, 8960, 256_384, 512
    own = 30 * (2 * width * ffn + width + ffn + 6 * width)  # feed-forward layers and tables
    own += (
        2 * vocabulary + 1 + slots
    ) * width + vocabulary  # words, "not known yet", places; head and its bias
    own += 256 * width + width + width**2 + width + 6 * width**2 + 6 * width  # time
    own += width + 2 * width  # norm, table
    whole = T2V_1_3B_PARAMETERS + own
    assert f"{whole / 1e9:.3f} B parameters, {own / 1e9:.3f} B of them text's own" in said
    assert f"in all {whole / 1e6:.3f} M of {whole / 1e6:.3f} M" in said
    assert "32760 rows of film, 512 of text, 512 of the condition" in said
    assert f"trained (AdamW, average) {20 * whole / 2**30:.1f}" in said
    assert "'films/films.csv' is not there yet" in said


@pytest.mark.parametrize("name", ["full-recall", "full-refine"])
def test_recipes_are_what_the_stage_takes(name):
    recipe = training.load_recipe(RECIPES / f"{name}.yaml")
    config = from_dict(FullUniConfig, recipe.stage_config, "stage_config")
    assert (config.target, recipe.parallel) == ("prompt" if "recall" in name else "detailed", "fsdp")


def test_operations_are_those_that_are_counted():
    video = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16, freq_dim=16,
        ffn_dim=32, num_layers=2, rope_max_seq_len=64,
    )  # fmt: skip
    model = with_text(video, 50)
    model.set_attn_processor(MatmulAttention())  # the counter does not know the processor's fused kernel
    words = Words(torch.zeros(1, 5, dtype=torch.long), torch.zeros(1, 5), *[torch.ones(1, 5) > 0] * 2)
    with FlopCounterMode(display=False) as counter:
        model.streams(torch.zeros(1, 7, 16), Film(torch.zeros(1, 4, 2, 8, 8), torch.zeros(1)), words)
    # Times are left out by the formula: one for the film, one for each word.
    times = 2 * 6 * (16 * 24 + 24 * 24 + 6 * 24 * 24)
    assert operations(model, 32, 5, 7) == counter.get_total_flops() - times


@pytest.mark.parametrize("remembered", [False, True])
@pytest.mark.parametrize("one_way", [False, True])
@pytest.mark.parametrize("clean", [(True, True), (False, False), (True, False)])
def test_a_mask_in_two_parts_is_the_same(clean, one_way, remembered):
    draw = torch.Generator().manual_seed(0)
    given = torch.tensor([[True, True, False, False]] * 2)
    there = torch.tensor([[True] * 4, [True, True, True, False]])
    words = Words(torch.zeros(2, 4), torch.zeros(2, 4), there, given)
    memory = Memory(torch.tensor([[True, True], [True, False]])) if remembered else None
    query, key, value = (
        torch.randn(2, n, 2, 6, generator=draw) for n in (9, 9 + 2 * remembered, 9 + 2 * remembered)
    )
    found = []
    for apart in (False, True):
        mask, keys = who_reads_whom(torch.tensor(clean), 5, words, memory, one_way, apart)
        found.append((attend(query, key, value, mask, fused=True), keys))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    alone = replace(words, there=torch.ones_like(there), given=torch.zeros_like(given))
    noisy = torch.zeros(2, dtype=torch.bool)
    assert who_reads_whom(noisy, 5, alone, None, one_way, True)[0] is None


def tiny_models(config: FullUniConfig) -> FullModels:
    torch.manual_seed(0)
    vae = AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
                           latents_mean=[0.0] * 4, latents_std=[1.0] * 4)  # fmt: skip
    text = UMT5EncoderModel(UMT5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    video = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16, freq_dim=16,
        ffn_dim=32, num_layers=1, cross_attn_norm=True, rope_max_seq_len=64,
    )  # fmt: skip
    transformer = with_text(video, **text_settings(config, 32))
    if config.start_from:
        transformer = stages_full._went_on(config)
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    return FullModels(transformer, vae.eval(), text.eval(), marked(fast, 32))


@pytest.fixture
def make(tmp_path, monkeypatch):
    """``make(**settings)``: a tiny stage on three films, of which one is too short and one is not there."""
    frames = np.random.default_rng(0).integers(0, 256, (9, 40, 64, 3), dtype=np.uint8)
    Clip(frames, 16).save(tmp_path / "good.mp4")
    Clip(frames[:2], 16).save(tmp_path / "short.mp4")
    with (tmp_path / "films.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("video", "caption", "detailed"))
        rows.writerow(("good", "a red star jumps", "a red star jumps twice and then it falls down slowly"))
        rows.writerow(("short.mp4", "a star", "a star"))
        rows.writerow(("gone", "a star", ""))
    monkeypatch.setattr(stages_full, "loaded", tiny_models)

    def build(**settings) -> FullUniStage:
        sizes = {"frames": 5, "height": 32, "width": 32, "text_slots": 24, "batch_size": 2, "spare": 3}
        places = {"films": str(tmp_path / "films.csv"), "film_folder": str(tmp_path)}
        return FullUniStage(FullUniConfig(**(sizes | places | settings)))

    return build


def quietly(stage: FullUniStage, index: int) -> dict:
    with warnings.catch_warnings(record=True):
        return stage.batch(index)


def said(stage: FullUniStage, ids: torch.Tensor) -> str:
    return " ".join(stage.tokenizer.convert_ids_to_tokens(ids[ids != 0].tolist()))


def test_batches_are_films_with_what_is_to_be_written(make):
    stage = make(condition_dropout=0.5)
    with pytest.warns(UserWarning, match=r"passed over: ('short.mp4' has 2 frames|there is no film 'gone')"):
        batches = [stage.batch(n) for n in range(12)]
    again = quietly(stage, 3)
    assert all(torch.equal(batches[3][name], value) for name, value in again.items())
    conditions, kinds = set(), set()
    for batch in batches:
        assert batch["pixels"].shape == (2, 5, 32, 32, 3) and batch["pixels"].dtype == torch.uint8
        for row in range(2):
            assert said(stage, batch["words"][row]).startswith("<s> a red star jumps </s>")
            conditions.add(said(stage, batch["ids"][row]))
            kinds.add((bool(batch["noisy"][row]), bool(batch["spoken"][row])))
            assert bool(batch["there"][row].any()) == bool(batch["spoken"][row])
    assert conditions == {"</s>", "a red star jumps </s>"}
    assert kinds == {(False, True), (True, True), (True, False)}
    detailed = quietly(make(target="detailed", condition_dropout=0.0), 0)
    assert said(stage, detailed["words"][0]).startswith("<caption> a red star jumps twice and")
    assert said(stage, detailed["ids"][0]) == "a red star jumps </s>"


@pytest.mark.parametrize(
    ("shares", "logged", "silent"),
    [
        ({"understand": 1.0, "pair": 0.0, "film": 0.0}, {"text_of_clean"}, "proj_out"),
        ({"understand": 0.0, "pair": 1.0, "film": 0.0}, {"film", "text_of_pair"}, None),
        ({"understand": 0.0, "pair": 0.0, "film": 1.0}, {"film"}, "text_head"),
    ],
)
def test_every_weight_has_a_gradient_and_only_what_is_asked_counts(make, shares, logged, silent):
    stage = make(**shares)
    torch.manual_seed(1)
    for each in stage.module.parameters():
        torch.nn.init.normal_(each, std=0.1)
    loss, logs = stage.loss(quietly(stage, 0))
    loss.backward()
    assert set(logs) == logged and torch.isfinite(loss)
    for name, each in stage.module.named_parameters():
        assert each.grad is not None, name
        if silent and silent in name:
            assert not each.grad.any(), name
    moved = {
        is_of_text(name.split(".", 1)[1]) for name, each in stage.module.named_parameters() if each.grad.any()
    }
    assert moved == ({False} if silent == "text_head" else {True, False})
    assert not any(each.grad is not None for each in stage.vae.parameters())


def test_it_learns_and_the_next_stage_goes_on(make, tmp_path, monkeypatch):
    stage = make(understand=1.0, pair=0.0, film=0.0, shared_lr=1.0)
    batch = quietly(stage, 0)
    data = stage._latents(batch["pixels"])
    monkeypatch.setattr(stage, "_latents", lambda pixels: data)  # once is enough
    optimizers = Optimizers(stage.module, OptimizerConfig("adamw", lr=2e-2), stage.parameter_groups())
    losses = []
    for _ in range(20):
        torch.manual_seed(2)
        loss, _ = stage.loss(batch)
        stage.module.zero_grad()
        loss.backward()
        optimizers.step(1.0)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    stage.export(tmp_path / "export")
    on = make(start_from=str(tmp_path / "export"), target="detailed")
    for one, two in zip(stage.module.parameters(), on.module.parameters(), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(UsageError, match="writes text as 'masked', not as 'uniform'"):
        make(start_from=str(tmp_path / "export"), formulation="uniform")
    with pytest.raises(UserError, match="is no export of this stage"):
        make(start_from=str(tmp_path))


def test_what_cannot_be(make, tmp_path):
    with pytest.raises(ValueError, match="4 k"):
        FullUniConfig(frames=80)
    with pytest.raises(ValueError, match="weights of which one is above 0"):
        FullUniConfig(understand=0, pair=0, film=0)
    stage = make()
    assert "1 rows of" in make(target="detailed", most_films=1).report()[-1]
    assert "3 rows of" in stage.report()[-1] and "2 of the films are in" in stage.report()[-1]
    with pytest.raises(UsageError, match="Uni-ViGU has two"):
        stage.sequence_models()
    with pytest.raises(UserError, match="films in a row cannot be used"):
        quietly(make(frames=17), 0)
    with pytest.raises(UserError, match="tokens with its marks"):
        marked(stage.tokenizer, 10)
