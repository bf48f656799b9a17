"""Wan's published sizes and layouts, against diffusers' own conversion; adapters on its attention, through peft."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false

import json

import pytest
import torch
from diffusers import WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from unireel.backbones.lora import add_lora, load_lora, lora_parameters, save_lora, target_pattern
from unireel.backbones.wan_files import (
    T2V_1_3B_PARAMETERS,
    TI2V_5B_PARAMETERS,
    load_wan,
    to_diffusers,
    to_original,
    wan_t2v_1_3b,
    wan_ti2v_5b,
)
from unireel.errors import UsageError, UserError


def tiny() -> WanTransformer3DModel:
    torch.manual_seed(0)
    return WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=20,
        freq_dim=16, ffn_dim=32, num_layers=2,
    ).eval()  # fmt: skip


CONFIG = {
    "_class_name": "WanModel",
    "dim": 24,
    "eps": 1e-06,
    "ffn_dim": 32,
    "freq_dim": 16,
    "in_dim": 4,
    "model_type": "ti2v",
    "num_heads": 2,
    "num_layers": 2,
    "out_dim": 4,
    "text_len": 512,
    "text_dim": 20,
}


@torch.no_grad()
def velocity(model):
    generator = torch.Generator().manual_seed(1)
    latents, text = (torch.randn(shape, generator=generator) for shape in ((1, 4, 2, 4, 4), (1, 5, 20)))
    times = torch.tensor([[0.0] * 4 + [700.0] * 4])
    return model(latents, times, text, return_dict=False)[0]


TI2V_SHAPES = {
    "patch_embedding.weight": (3072, 48, 1, 2, 2),
    "text_embedding.0.weight": (3072, 4096),
    "blocks.29.ffn.0.weight": (14336, 3072),
    "head.head.weight": (192, 3072),
}
T2V_SHAPES = {
    "patch_embedding.weight": (1536, 16, 1, 2, 2),
    "time_projection.1.bias": (9216,),
    "blocks.0.modulation": (1, 6, 1536),
    "blocks.29.cross_attn.norm_k.weight": (1536,),
}


@pytest.mark.parametrize(
    ("build", "count", "table"),
    [(wan_ti2v_5b, TI2V_5B_PARAMETERS, TI2V_SHAPES), (wan_t2v_1_3b, T2V_1_3B_PARAMETERS, T2V_SHAPES)],
)
def test_published_sizes(build, count, table):
    with torch.device("meta"):
        model = build()
    assert sum(each.numel() for each in model.parameters()) == count
    original = {name: tuple(value.shape) for name, value in to_original(model.state_dict()).items()}
    assert {name: original.get(name) for name in table} == table
    assert len(original) == len(model.state_dict())


def test_counts_are_those_of_the_release():
    assert (TI2V_5B_PARAMETERS, T2V_1_3B_PARAMETERS) == (4_999_787_712, 1_418_996_800)


def test_names_go_both_ways():
    ours = tiny().state_dict()
    original = to_original(ours)
    inner = {name.removeprefix("blocks.1.") for name in original if name.startswith("blocks.1.")}
    attention = {
        f"{kind}.{part}"
        for kind in ("self_attn", "cross_attn")
        for part in (
            *(f"{each}.{what}" for each in "qkvo" for what in ("weight", "bias")),
            "norm_q.weight",
            "norm_k.weight",
        )
    }
    feed_forward = {f"ffn.{number}.{what}" for number in (0, 2) for what in ("weight", "bias")}
    assert inner == {*attention, *feed_forward, "modulation", "norm3.weight", "norm3.bias"}
    outer = {name for name in original if not name.startswith("blocks.")}
    assert outer == {
        "head.modulation",
        *(
            f"{name}.{what}"
            for name in (
                "patch_embedding", "text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2",
                "time_projection.1", "head.head",
            )
            for what in ("weight", "bias")
        ),
    }  # fmt: skip
    back = to_diffusers(original)
    assert back.keys() == ours.keys()
    assert all(back[name] is original[theirs] for name, theirs in zip(back, original, strict=True))
    peer = convert_wan_transformer_to_diffusers(dict(original))
    assert {name: id(value) for name, value in peer.items()} == {
        name: id(value) for name, value in back.items()
    }


def test_both_layouts_are_read(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path / "diffusers" / "transformer")
    original = {name: value.contiguous() for name, value in to_original(model.state_dict()).items()}
    folder = tmp_path / "original"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    names = sorted(original)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: original[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    expected = velocity(model)
    for place in (tmp_path / "diffusers", tmp_path / "diffusers" / "transformer", folder):
        again, report = load_wan(place, torch.float32)
        assert report.clean
        assert torch.equal(velocity(again), expected)
    half = load_wan(folder)[0]
    precise = {name for name, value in half.named_parameters() if value.dtype == torch.float32}
    assert "blocks.0.scale_shift_table" in precise
    assert "blocks.0.attn1.to_q.weight" not in precise
    (folder / "b.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks 1 of 2 files of weights: b.safetensors"):
        load_wan(folder)


def test_other_models_are_refused(tmp_path):
    original = {name: value.contiguous() for name, value in to_original(tiny().state_dict()).items()}
    save_file(original, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"no file 'config.json'"):
        load_wan(tmp_path)
    for config, message in (
        ({**CONFIG, "ffn_dim": 48}, "6 misshapen"),
        ({**CONFIG, "num_layers": 1}, "27 unexpected"),
        ({**CONFIG, "num_layers": 3}, "27 missing"),
        ({**CONFIG, "model_type": "s2v"}, "type 's2v' are not supported"),
        ({"_class_name": "WanModel"}, "lacks 'num_heads'"),
        ({"_class_name": "FluxTransformer2DModel"}, "holds a FluxTransformer2DModel; accepted"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match=message):
            load_wan(tmp_path)


def test_adapters_start_as_nothing_and_train_alone():
    model = tiny()
    before = velocity(model)
    trained = add_lora(model, rank=3, alpha=6)
    assert torch.equal(velocity(model), before)
    # Two blocks, two attentions, four square projections of 24: rank x (24 + 24) each.
    assert sum(each.numel() for each in trained) == 2 * 2 * 4 * 3 * 48
    assert {id(each) for each in model.parameters() if each.requires_grad} == {id(each) for each in trained}
    cross = tiny()
    assert len(add_lora(cross, rank=2, attentions=("cross",), blocks=range(1, 2))) == 4 * 2
    names = [name for name, each in cross.named_parameters() if each.requires_grad]
    assert all(name.startswith("blocks.1.attn2.") for name in names)


def test_an_adapter_is_its_formula():
    model = tiny()
    add_lora(model, rank=4, alpha=8, attentions=("self",), rank_stabilised=True)
    layer = model.blocks[0].attn1.to_q
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(b)
    x = torch.randn(3, 24)
    assert torch.allclose(layer(x), layer.base_layer(x) + 8 / 4**0.5 * x @ a.T @ b.T, atol=1e-5)


def test_adapters_are_kept_and_a_plain_pipeline_takes_them(tmp_path):
    model = tiny()
    for each in add_lora(model, rank=2, alpha=4):
        torch.nn.init.normal_(each, std=0.2)
    save_lora(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]
    stored = load_file(tmp_path / "pytorch_lora_weights.safetensors")
    assert all(name.startswith("transformer.blocks.") for name in stored)
    again = tiny()
    load_lora(again, tmp_path)
    assert torch.allclose(velocity(again), velocity(model), atol=1e-6)
    assert len(lora_parameters(again)) == 32
    from diffusers import WanPipeline

    weights, metadata = WanPipeline.lora_state_dict(tmp_path, return_lora_metadata=True)
    peer = tiny()
    WanPipeline.load_lora_into_transformer(weights, peer, metadata=metadata)
    assert torch.allclose(velocity(peer), velocity(model), atol=1e-6)


def test_impossible_adapters_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"at least 1"):
        add_lora(tiny(), rank=0)
    with pytest.raises(UsageError, match=r"self and cross"):
        target_pattern(["ffn"])
    with pytest.raises(UserError, match=r"nothing to save"):
        save_lora(tiny(), tmp_path)
    with pytest.raises(UserError, match=r"has no adapters"):
        load_lora(tiny(), tmp_path)
    other = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, text_dim=20,
        freq_dim=16, ffn_dim=32, num_layers=2,
    )  # fmt: skip
    add_lora(other, rank=2)
    save_lora(other, tmp_path)
    with pytest.raises(UserError, match=r"do not fit"):
        load_lora(tiny(), tmp_path)


def test_the_pattern_is_what_peft_matches():
    pattern = target_pattern(("self", "cross"))
    model = tiny()
    model.add_adapter(LoraConfig(r=1, target_modules=pattern))
    adapted = {name.rsplit(".lora_A", 1)[0] for name, _ in model.named_parameters() if "lora_A" in name}
    assert adapted == {
        f"blocks.{number}.{attention}.{part}"
        for number in range(2)
        for attention in ("attn1", "attn2")
        for part in ("to_q", "to_k", "to_v", "to_out.0")
    }
