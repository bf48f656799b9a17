"""A tiny BAGEL of the real classes, with every switch of the large one on, and a tokenizer with its marks."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, SiglipVisionConfig

from unireel.backbones.bagel import BagelConfig, BagelModel

WORDS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<unk>",
    "a",
    "red",
    "star",
    "jumps",
    "twice",
)


def tiny_config() -> BagelConfig:
    text = Qwen2Config(
        vocab_size=24,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=False,
    )
    vision = SiglipVisionConfig(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=4,
        image_size=32,
        hidden_act="gelu_pytorch_tanh",
    )
    return BagelConfig(text, vision, 4, 2, 8, vision_start_token_id=2, vision_end_token_id=3)


def tiny_bagel() -> BagelModel:
    """Random weights, larger than an initialisation's, so that nothing cancels out unseen."""
    torch.manual_seed(0)
    model = BagelModel(tiny_config()).eval()
    with torch.no_grad():
        for name, each in model.named_parameters():
            if not name.endswith("pos_embed"):
                each.copy_(torch.randn_like(each) * 0.2 + ("norm" in name and each.ndim == 1))
    return model


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        additional_special_tokens=list(WORDS[:4]),
    )
