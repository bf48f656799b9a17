"""The pocket video-language model: layout against transformers' own processor, packing, decoding."""

import numpy as np
import pytest
import torch

from unireel.backbones.decoding import film_features, greedy
from unireel.backbones.text import word_tokenizer
from unireel.backbones.vlm import (
    caption_turn,
    film_positions,
    pack,
    pocket_vlm,
    question_turn,
    visual_patches,
)
from unireel.world.language import vocabulary


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    tokenizer = word_tokenizer(vocabulary())
    return pocket_vlm(tokenizer, 64, 2, 1, 96, 64, 2).eval(), tokenizer


FRAMES = np.random.default_rng(0).integers(0, 256, (2, 17, 32, 48, 3), dtype=np.uint8)


def test_patches_are_those_of_the_processor():
    from transformers import Qwen2VLImageProcessor

    still = np.repeat(FRAMES[0, :1], 4, axis=0)
    patches, grid = visual_patches(still[None])
    processor = Qwen2VLImageProcessor(patch_size=8, temporal_patch_size=4, merge_size=2, do_resize=False)
    own = processor(still[0], image_mean=[0.5] * 3, image_std=[0.5] * 3, return_tensors="pt")
    assert grid.tolist() == own["image_grid_thw"].tolist()
    assert torch.allclose(patches, own["pixel_values"], atol=1e-5)


def test_positions_are_those_of_the_model(model):
    vlm, tokenizer = model
    _, grid = visual_patches(FRAMES[:1])
    packed = pack([[caption_turn(tokenizer, "a red star.")]], grid[0], tokenizer, multiple=1)
    kinds = (packed["input_ids"] == vlm.config.video_token_id).int() * 2
    positions, _ = vlm.model.get_rope_index(packed["input_ids"], mm_token_type_ids=kinds, video_grid_thw=grid)
    assert torch.equal(positions, packed["position_ids"])
    assert film_positions(grid[0]).shape == (3, 1 + 5 * 2 * 3)


@torch.no_grad()
def test_packed_turns_are_independent(model):
    vlm, tokenizer = model
    patches, grid = visual_patches(FRAMES)
    features = film_features(vlm, patches, grid)
    turns = [
        question_turn(tokenizer, "what colour is the star?", "red"),
        question_turn(tokenizer, "is there a red star?", "yes"),
        caption_turn(tokenizer, "a red star jumps."),
    ]
    together = _hidden(vlm, features, pack([turns, turns[::-1]], grid[0], tokenizer))
    count = 1 + features.shape[1]
    start = count
    for turn in turns:
        alone = _hidden(vlm, features[:1], pack([[turn]], grid[0], tokenizer))
        size = len(turn.ids)
        assert torch.allclose(together[0, start : start + size], alone[0, count : count + size], atol=1e-4)
        start += size


@torch.no_grad()
def test_decoding_with_a_cache_is_decoding_without(model):
    vlm, tokenizer = model
    patches, grid = visual_patches(FRAMES)
    features = film_features(vlm, patches, grid)
    start = question_turn(tokenizer, "what colour is the star?", None)
    said = greedy(
        vlm,
        features,
        grid[0],
        torch.tensor([start.ids] * 2),
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        5,
    )
    for row in range(2):
        ids: list[int] = []
        for step, probability in enumerate(said[row].probabilities):
            turn = type(start)(start.ids + ids, [0.0] * (len(start.ids) + step))
            hidden = _hidden(vlm, features[row : row + 1], pack([[turn]], grid[0], tokenizer, multiple=1))
            best, token = vlm.lm_head(hidden[0, -1]).softmax(-1).max(-1)
            assert float(best) == pytest.approx(probability, rel=1e-3)
            ids.append(int(token))
        assert said[row].ids == [each for each in ids if each != tokenizer.eos_token_id]


def _hidden(vlm, features, packed):
    embeds = vlm.get_input_embeddings()(packed["input_ids"])
    count = features.shape[1]
    embeds = torch.cat([embeds[:, :1], features, embeds[:, 1 + count :]], dim=1)
    return vlm.model.language_model(
        inputs_embeds=embeds, position_ids=packed["position_ids"], attention_mask=packed["attention_mask"]
    ).last_hidden_state
