"""BAGEL's other parts: the packed ViT against transformers', its tables, ordinary folders and the published files."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportOptionalMemberAccess=false, reportOptionalSubscript=false, reportTypedDictNotRequiredAccess=false

import json
import math

import pytest
import torch
from bagel_parts import tiny_bagel, tiny_config
from safetensors.torch import save_file
from transformers import SiglipVisionModel

from unireel.backbones.bagel import BagelModel, TimeEmbedder, bagel_7b_config, place_table
from unireel.backbones.bagel_files import (
    AUTOENCODER_PARAMETERS,
    encode_image,
    flux_autoencoder,
    load_autoencoder,
    load_bagel,
    published_config,
)
from unireel.backbones.packing import TextSegment, VaeSegment, VitSegment, pack
from unireel.errors import UserError

SIZES = {
    "latent_channels": 4,
    "max_latent_size": 8,
    "vision_start_token_id": 2,
    "vision_end_token_id": 3,
}


@torch.no_grad()
def test_a_square_image_is_seen_as_siglip_sees_it():
    bagel = tiny_bagel()
    config, vision = bagel.config, bagel.vit_model.vision_model
    peer = SiglipVisionModel(tiny_config().vision_config).eval()
    peer.encoder.load_state_dict(vision.encoder.state_dict())
    peer.post_layernorm.load_state_dict(vision.post_layernorm.state_dict())
    # The convolution's weights are (D, C, rows, columns), the linear layer's (D, rows * columns * C).
    linear = vision.embeddings.patch_embedding
    peer.embeddings.patch_embedding.weight.copy_(linear.weight.view(-1, 4, 4, 3).permute(0, 3, 1, 2))
    peer.embeddings.patch_embedding.bias.copy_(linear.bias)
    peer.embeddings.position_embedding.load_state_dict(vision.embeddings.position_embedding.state_dict())
    image = torch.rand(3, 32, 32) * 2 - 1
    packed = pack([[[VitSegment(image)]]], config.geometry)
    own = bagel.vit_model(packed.patches, packed.patch_places, packed.patch_counts)
    assert torch.allclose(own, peer(image[None]).last_hidden_state[0], atol=1e-4)


@torch.no_grad()
def test_packed_images_do_not_see_each_other():
    bagel = tiny_bagel()
    images = [torch.rand(3, *size) for size in ((8, 12), (16, 4), (8, 12), (4, 24))]
    packed = pack([[[VitSegment(image) for image in images]]], bagel.config.geometry)
    together = bagel.vit_model(packed.patches, packed.patch_places, packed.patch_counts)
    alone = []
    for image in images:
        one = pack([[[VitSegment(image)]]], bagel.config.geometry)
        alone.append(bagel.vit_model(one.patches, one.patch_places, one.patch_counts))
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    bagel.set_attn_implementation("flex_attention")
    assert bagel.config.vision_config._attn_implementation == "flex_attention"
    with torch.compiler.set_stance("force_eager"):
        flex = bagel.vit_model(packed.patches, packed.patch_places, packed.patch_counts)
        assert torch.allclose(flex, together, atol=1e-5)
        sample = [*[VitSegment(image) for image in images[:2]], TextSegment([0, 5, 1])]
        whole = pack([[sample]], bagel.config.geometry)
        flex = bagel(whole)
    bagel.set_attn_implementation("sdpa")
    assert torch.allclose(flex, bagel(whole), atol=1e-4)


def test_tables_are_their_formula():
    table = place_table(5, 16)
    for row, column, channel in ((0, 0, 0), (3, 1, 2), (1, 4, 5), (4, 2, 9), (2, 3, 15)):
        number, within = (column, channel) if channel < 8 else (row, channel - 8)
        angle = number * 10000.0 ** (-(within % 4) / 4)
        expected = math.sin(angle) if within < 4 else math.cos(angle)
        assert float(table[row * 5 + column, channel]) == pytest.approx(expected, abs=1e-6)


@torch.no_grad()
def test_time_is_not_a_thousandfold():
    embedder = TimeEmbedder(8)
    seen = []
    embedder.mlp.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    embedder(torch.tensor([0.7]))
    waves = 0.7 * 10000.0 ** (-torch.arange(128).double() / 128)
    assert torch.allclose(seen[0][0].double(), torch.cat([waves.cos(), waves.sin()]), atol=1e-6)


@torch.no_grad()
def test_latents_are_embedded_with_time_and_place():
    bagel = tiny_bagel()
    latent = torch.randn(4, 4, 6)
    packed = pack([[[VaeSegment(latent, time=0.25)]]], bagel.config.geometry)
    token = latent[:, 2:4, 4:6].permute(1, 2, 0).reshape(-1)  # second row, third column
    expected = bagel.vae2llm(token) + bagel.time_embedder(torch.tensor([0.25]))[0]
    expected = expected + bagel.latent_pos_embed.pos_embed[1 * 8 + 2]
    assert torch.allclose(bagel.embed(packed)[0, 1 + 1 * 3 + 2], expected, atol=1e-5)


@torch.no_grad()
def test_an_ordinary_folder_keeps_it(tmp_path):
    bagel = tiny_bagel()
    bagel.save_pretrained(tmp_path)
    again, report = BagelModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    packed = pack([[[VitSegment(torch.rand(3, 8, 8)), TextSegment([0, 5, 1])]]], bagel.config.geometry)
    assert torch.equal(again.eval()(packed), bagel(packed))


@pytest.fixture
def published(tmp_path):
    """A tiny model's folder in the published layout."""
    bagel = tiny_bagel()
    text = {
        "vocab_size": 24,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": True,
        "model_type": "qwen2",
    }
    vision = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "patch_size": 4,
        "image_size": 32,
        "model_type": "siglip_vision_model",
    }
    (tmp_path / "llm_config.json").write_text(json.dumps(text))
    (tmp_path / "vit_config.json").write_text(json.dumps(vision))
    weights = {name: value.contiguous() for name, value in bagel.state_dict().items()}
    save_file(weights, tmp_path / "ema.safetensors")
    return tmp_path, bagel, weights


@torch.no_grad()
def test_published_files_are_read(published):
    folder, bagel, _ = published
    model, report = load_bagel(folder, torch.float32, **SIZES)
    assert report.clean
    assert model.config.text_config.rope_parameters["rope_theta"] == 1e6
    packed = pack([[[VitSegment(torch.rand(3, 8, 8)), TextSegment([0, 5, 1])]]], bagel.config.geometry)
    assert torch.equal(model(packed), bagel(packed))
    assert next(load_bagel(folder, **SIZES)[0].parameters()).dtype == torch.bfloat16


def test_other_weights_are_reported(published):
    folder, _, weights = published
    weights["language_model.model.layers.7.mlp.up_proj.weight"] = torch.zeros(1)
    del weights["connector.fc1.bias"]
    weights["vae2llm.weight"] = torch.zeros(3, 3)
    save_file(weights, folder / "ema.safetensors")
    with pytest.raises(
        UserError, match=r"1 missing .connector.fc1.bias.; 1 unexpected .*layers.7.*; 1 misshapen"
    ):
        load_bagel(folder, **SIZES)
    _, report = load_bagel(folder, strict=False, **SIZES)
    assert report.missing == ("connector.fc1.bias",)
    assert report.unexpected == ("language_model.model.layers.7.mlp.up_proj.weight",)
    assert report.misshapen == ("vae2llm.weight (3, 3) instead of (48, 16)",)


def test_incomplete_folders_are_one_line(published, tmp_path):
    folder, _, _ = published
    whole = (folder / "ema.safetensors").read_bytes()
    (folder / "ema.safetensors").write_bytes(whole[:1000])
    with pytest.raises(UserError, match=r"cannot be read as safetensors"):
        load_bagel(folder, **SIZES)
    (folder / "ema.safetensors").unlink()
    with pytest.raises(UserError, match=r"no file 'ema.safetensors'"):
        load_bagel(folder, **SIZES)
    (folder / "vit_config.json").write_text("[]")
    with pytest.raises(UserError, match=r"vit_config.json' cannot be read: it holds no mapping"):
        published_config(folder)
    (folder / "llm_config.json").unlink()
    with pytest.raises(UserError, match=r"no file 'llm_config.json'"):
        published_config(folder)


def test_names_and_shapes_are_the_published_ones():
    """Spot checks against the published checkpoint's table of names and shapes."""
    with torch.device("meta"):
        shapes = {
            name: tuple(value.shape) for name, value in BagelModel(bagel_7b_config()).state_dict().items()
        }
    table = {
        "language_model.model.embed_tokens.weight": (152064, 3584),
        "language_model.lm_head.weight": (152064, 3584),
        "language_model.model.norm_moe_gen.weight": (3584,),
        "language_model.model.layers.27.post_attention_layernorm_moe_gen.weight": (3584,),
        "language_model.model.layers.0.self_attn.q_proj_moe_gen.bias": (3584,),
        "language_model.model.layers.0.self_attn.k_proj.weight": (512, 3584),
        "language_model.model.layers.0.self_attn.o_proj_moe_gen.weight": (3584, 3584),
        "language_model.model.layers.0.self_attn.k_norm_moe_gen.weight": (128,),
        "language_model.model.layers.0.mlp_moe_gen.down_proj.weight": (3584, 18944),
        "vit_model.vision_model.embeddings.patch_embedding.weight": (1152, 588),
        "vit_model.vision_model.embeddings.position_embedding.weight": (4900, 1152),
        "vit_model.vision_model.encoder.layers.25.mlp.fc1.weight": (4304, 1152),
        "vit_model.vision_model.post_layernorm.bias": (1152,),
        "connector.fc1.weight": (3584, 1152),
        "vit_pos_embed.pos_embed": (4900, 3584),
        "latent_pos_embed.pos_embed": (4096, 3584),
        "time_embedder.mlp.0.weight": (3584, 256),
        "vae2llm.weight": (3584, 64),
        "llm2vae.bias": (64,),
    }
    assert {name: shapes.get(name) for name in table} == table
    assert "vit_model.vision_model.encoder.layers.26.mlp.fc1.weight" not in shapes
    assert "language_model.model.layers.0.self_attn.o_proj.bias" not in shapes


def ldm_names(part: str, downwards: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an autoencoder's half in the layout of latent diffusion, from its description alone."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, out: int, into: int, kernel: int = 3) -> None:
        shapes[f"{part}.{name}.weight"], shapes[f"{part}.{name}.bias"] = (out, into, kernel, kernel), (out,)

    def norm(name: str, width: int) -> None:
        shapes[f"{part}.{name}.weight"] = shapes[f"{part}.{name}.bias"] = (width,)

    def block(name: str, out: int, into: int) -> None:
        norm(f"{name}.norm1", into)
        layer(f"{name}.conv1", out, into)
        norm(f"{name}.norm2", out)
        layer(f"{name}.conv2", out, out)
        if out != into:
            layer(f"{name}.nin_shortcut", out, into, 1)

    widths = [128, 256, 512, 512]
    layer("conv_in", 128 if downwards else 512, 3 if downwards else 16)
    block("mid.block_1", 512, 512)
    norm("mid.attn_1.norm", 512)
    for each in ("q", "k", "v", "proj_out"):
        layer(f"mid.attn_1.{each}", 512, 512, 1)
    block("mid.block_2", 512, 512)
    into = 128 if downwards else 512
    for level in range(4) if downwards else reversed(range(4)):
        for number in range(2 if downwards else 3):
            block(f"{'down' if downwards else 'up'}.{level}.block.{number}", widths[level], into)
            into = widths[level]
        if level != (3 if downwards else 0):
            name = f"down.{level}.downsample.conv" if downwards else f"up.{level}.upsample.conv"
            layer(name, into, into)
    norm("norm_out", into)
    layer("conv_out", 32 if downwards else 3, into)
    return shapes


@torch.no_grad()
def test_the_autoencoders_file_is_read(tmp_path):
    with torch.device("meta"):
        assert sum(each.numel() for each in flux_autoencoder().parameters()) == AUTOENCODER_PARAMETERS
    shapes = {**ldm_names("encoder", True), **ldm_names("decoder", False)}
    assert sum(math.prod(shape) for shape in shapes.values()) == AUTOENCODER_PARAMETERS
    torch.manual_seed(0)
    weights = {name: torch.randn(shape, dtype=torch.bfloat16) * 0.02 for name, shape in shapes.items()}
    save_file(weights, tmp_path / "ae.safetensors")
    vae = load_autoencoder(tmp_path, torch.float32)
    query = vae.encoder.mid_block.attentions[0].to_q.weight
    assert torch.equal(query, weights["encoder.mid.attn_1.q.weight"][:, :, 0, 0].float())
    # The decoder's levels are counted from the other end.
    assert torch.equal(
        vae.decoder.up_blocks[0].resnets[2].conv1.weight, weights["decoder.up.3.block.2.conv1.weight"].float()
    )
    assert encode_image(vae, torch.rand(3, 16, 32)).shape == (16, 2, 4)
    del weights["decoder.conv_out.bias"]
    save_file(weights, tmp_path / "ae.safetensors")
    with pytest.raises(UserError, match=r"another model"):
        load_autoencoder(tmp_path)
