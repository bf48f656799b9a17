"""Any vision-language model with its processor as Omni-Video's language model: marks, states, routing, thoughts."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import numpy as np
import pytest
import torch
from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from unireel.backbones.text import word_tokenizer
from unireel.errors import UserError
from unireel.systems.omnivideo.general_mllm import GeneralMllm, read_thought
from unireel.systems.omnivideo.heads import VisionHead
from unireel.systems.omnivideo.speech import Request, Thought

TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<ask> {% endif %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<film> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}<answer>"
)


@pytest.fixture(scope="module")
def mllm() -> GeneralMllm:
    tokenizer = word_tokenizer(("a", "red", "star", "make", "it", "blue"))
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="full", image_token="<film>",
        chat_template=TEMPLATE,
    )  # fmt: skip
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config={"model_type": "siglip_vision_model", "image_size": 16, "patch_size": 8, **sizes},
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **sizes},
        image_token_index=tokenizer.convert_tokens_to_ids("<film>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    return GeneralMllm(LlavaForConditionalGeneration(config).eval(), processor)


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)


def test_marks_are_new_tokens(mllm):
    tokenizer = mllm.processor.tokenizer
    ids = tokenizer.convert_tokens_to_ids(["<BOI>", "<EOI>", "<BOV>", "<EOV>"])
    assert len(set(ids)) == 4
    assert tokenizer.unk_token_id not in ids
    assert mllm.model.get_input_embeddings().num_embeddings >= len(tokenizer)


@torch.no_grad()
def test_states_are_those_of_the_whole_turn_with_its_answer(mllm):
    frames = picture(0)
    states, mask = mllm.request_states(
        [Request("make it blue", frames), Request("a red star")], ["video", "image"]
    )
    written = "<ask> <film> <film> make it blue <answer>".replace("<film>", "<film>" * 4) + "<BOV> <EOV>"
    ids = mllm.processor.tokenizer(written, add_special_tokens=False, return_tensors="pt")["input_ids"]
    pixels = mllm.processor.image_processor(images=list(frames), return_tensors="pt")["pixel_values"]
    wanted = mllm.model.model(input_ids=ids, pixel_values=pixels).last_hidden_state
    assert mask.sum(1).tolist() == [ids.shape[1], 7]
    torch.testing.assert_close(states[:1], wanted)
    assert VisionHead(mllm.width, 8, 4, 1, 2, 8)(states, mask).shape == (2, 4, 8)


def test_the_text_head_routes(mllm):
    assert mllm.reply(Request("a red star")).makes is None
    head = mllm.model.lm_head.weight
    before = head.detach().clone()
    with torch.no_grad():
        state = mllm.model.model(**mllm._shown(Request("a red star"))).last_hidden_state[0, -1]
        head[mllm.processor.tokenizer.convert_tokens_to_ids("<BOI>")] = 50 * state
        reply = mllm.reply(Request("a red star"))
        head.copy_(before)
    assert (reply.text, reply.makes) == ("", "image")


def test_one_frame_only(mllm):
    first = GeneralMllm(mllm.model, mllm.processor, first_frame_only=True)
    one, other = picture(1), picture(1)
    other[1] = 255 - other[1]
    with torch.no_grad():
        same, different = ([m.request_states([Request("a star", f)], ["video"])[0] for f in (one, other)]
                           for m in (first, mllm))  # fmt: skip
    assert torch.equal(*same)
    assert not torch.equal(*different)


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        ("Reasoning: two squares.\nPrompt: it jumps twice\nCaption: a star.",
         Thought("two squares.", "it jumps twice", "a star.")),
        ("**Reasoning:** so.\n\n**Prompt:** a star", Thought("so.", "a star")),
        ("Well.\nprompt: a star\nthat shines", Thought("Well.", "a star\nthat shines")),
    ],
)  # fmt: skip
def test_thoughts_in_words(text, thought):
    assert read_thought(text) == thought


def test_a_thought_without_a_prompt(mllm):
    with pytest.raises(UserError, match="no rewritten prompt"):
        read_thought("I do not know.")
    with pytest.raises(UserError, match="no rewritten prompt"):
        mllm.think(Request("a red star"))
