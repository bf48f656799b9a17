"""VILA's layout: its projector element by element, its sequence against transformers' LLaVA."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from unireel.backbones.text import word_tokenizer
from unireel.backbones.vila import Projector, load_vila, merged
from unireel.errors import UserError

TEXT = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 64}  # fmt: skip
VISION = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 12,
          "patch_size": 4}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vila")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**TEXT)).save_pretrained(folder / "llm")
    word_tokenizer(("a", "red", "star", "jumps")).save_pretrained(folder / "llm")
    SiglipVisionModel(SiglipVisionConfig(**VISION)).save_pretrained(folder / "vision_tower")
    SiglipImageProcessor(size={"height": 12, "width": 12}).save_pretrained(folder / "vision_tower")
    (folder / "mm_projector").mkdir()
    (folder / "mm_projector" / "config.json").write_text(json.dumps({"mm_projector_type": "mlp_downsample"}))
    save_file(Projector(8, 16).state_dict(), folder / "mm_projector" / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"mm_vision_select_layer": -2}))
    return folder


def test_squares_of_states_side_by_side():
    states = torch.arange(9.0).view(1, 9, 1)  # 3 x 3, padded to 4 x 4 with zeros
    assert merged(states)[0].tolist() == [[0, 1, 3, 4], [6, 7, 0, 0], [2, 0, 5, 0], [8, 0, 0, 0]]
    assert merged(torch.zeros(2, 729, 1152)).shape == (2, 196, 4608)  # SigLIP at 384 pixels


@torch.no_grad()
def test_pictures_stand_in_the_sequence_as_in_llava(folder, monkeypatch):
    vila = load_vila(folder, torch.float32)
    picture = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    got = vila.states("a red <image> star jumps", [picture])
    config = LlavaConfig(
        text_config=LlamaConfig(**TEXT),
        vision_config=SiglipVisionConfig(**VISION),
        image_token_index=39,
        vision_feature_select_strategy="full",
        vision_feature_layer=-2,
    )
    llava = LlavaForConditionalGeneration(config).eval()
    llava.model.language_model.load_state_dict(vila.llm.model.state_dict())
    llava.model.vision_tower.load_state_dict(vila.vision_tower.state_dict())
    llava.model.multi_modal_projector = vila.mm_projector
    pixels = vila.images(images=[picture], return_tensors="pt")["pixel_values"]
    words = vila.tokenizer("a red star jumps", add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[*words[:2], *[39] * 4, *words[2:]]])
    wanted = llava.model(input_ids=ids, pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(got, wanted)


def test_what_is_no_vila(folder, tmp_path):
    with pytest.raises(UserError, match=r"no file 'config\.json'"):
        load_vila(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="it has no folder 'llm'"):
        load_vila(tmp_path)
    vila = load_vila(folder, torch.float32)
    with pytest.raises(UserError, match="1 places for pictures, and there are 0"):
        vila.states("a <image> star")
    with pytest.raises(UserError, match="needs 70 tokens; the model's context has 64"):
        vila.states("star " * 70)
