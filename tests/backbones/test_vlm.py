"""The pocket video-language model: layout against transformers' own processor, packing, decoding."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import numpy as np
import pytest
import torch

from unireel.backbones.decoding import decode, film_features
from unireel.backbones.text import word_tokenizer
from unireel.backbones.vlm import (
    PatchLayout,
    caption_turn,
    film_attention,
    film_positions,
    language_states,
    pack,
    pocket_vlm,
    question_turn,
    view_slots,
    visual_patches,
    visual_tokens,
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
    patches, grid = visual_patches(still[None], PatchLayout(channels=3))
    processor = Qwen2VLImageProcessor(patch_size=8, temporal_patch_size=4, merge_size=2, do_resize=False)
    own = processor(still[0], image_mean=[0.5] * 3, image_std=[0.5] * 3, return_tensors="pt")
    assert grid.tolist() == own["image_grid_thw"].tolist()
    assert torch.allclose(patches, own["pixel_values"], atol=1e-5)


def test_places_and_times_follow_the_colours():
    patches, _ = visual_patches(FRAMES)
    colours, _ = visual_patches(FRAMES, PatchLayout(channels=3))
    assert torch.equal(patches[:, : colours.shape[1]], colours)
    x, y, t = patches[:, colours.shape[1] :].unflatten(1, (3, 4, 8, 8)).unbind(1)
    assert float(x[0, 0, 0, 0]) == float(y[0, 0, 0, 0]) == -1
    assert float(x[-1, -1, -1, -1]) == float(y[-1, -1, -1, -1]) == 1
    assert torch.equal(t[:, 0, 0, 0].unique(), torch.linspace(-1, 1, 5)) and bool(
        (t == t[:, :1, :1, :1]).all()
    )
    # The second patch lies right of the first, and the third below it.
    assert torch.allclose(x[1, 0, 0], torch.linspace(-1, 1, 48)[8:16])
    assert torch.allclose(y[2, 0, :, 0], torch.linspace(-1, 1, 32)[8:16])


def test_views_fill_whole_tubes():
    assert view_slots(1).tolist() == [0] * 4
    assert view_slots(16).tolist() == [n for n in range(16) for _ in range(4)]
    assert view_slots(17).tolist() == [*range(17), 16, 16, 16]
    assert view_slots(64).tolist() == list(range(64))


@pytest.mark.parametrize("layout", [PatchLayout(), PatchLayout(4, 4, 2, 3)])
@torch.no_grad()
def test_all_tubes_at_once_are_seen_as_one_after_another(layout):
    torch.manual_seed(0)
    vlm = pocket_vlm(word_tokenizer(vocabulary()), 64, 1, 1, 96, 96, 2, layout).eval()
    patches, grid = visual_patches(FRAMES, layout)
    tokens, states = visual_tokens(vlm, patches, grid)
    expected = vlm.model.get_video_features(patches, grid)
    assert torch.allclose(tokens, torch.stack(list(expected.pooler_output)), atol=1e-5)
    assert torch.allclose(states.flatten(0, 1), expected.last_hidden_state, atol=1e-5)


@torch.no_grad()
def test_each_column_turns_the_language_model_noticeably(model):
    vlm, _ = model
    columns = torch.tensor([[[1]], [[1]], [[1]]]), torch.tensor([[[1]], [[1]], [[2]]])
    one, two = (vlm.model.language_model.rotary_emb(torch.zeros(1), each)[1] for each in columns)
    assert float((two - one).abs().max()) > 0.02


@torch.no_grad()
def test_layers_and_their_attention_are_those_of_the_model(model):
    vlm, tokenizer = model
    vlm.model.language_model.set_attn_implementation("eager")
    patches, grid = visual_patches(FRAMES)
    turn = question_turn(tokenizer, "what colour is the star?", "red")
    packed = pack([[turn]] * 2, grid[0], tokenizer, multiple=1)
    tokens, _ = visual_tokens(vlm, patches, grid)
    count = 1 + tokens.shape[1]
    embeds = vlm.get_input_embeddings()(packed["input_ids"])
    embeds = torch.cat([embeds[:, :1], tokens, embeds[:, count:]], dim=1)
    states = language_states(vlm, embeds, packed["position_ids"], packed["attention_mask"])
    mask = torch.zeros(packed["attention_mask"].shape).masked_fill(~packed["attention_mask"], -torch.inf)
    expected = vlm.model.language_model(
        inputs_embeds=embeds,
        position_ids=packed["position_ids"],
        attention_mask=mask,
        output_hidden_states=True,
        output_attentions=True,
    )
    for own, state in zip(states, expected.hidden_states, strict=True):
        assert torch.allclose(own, state, atol=1e-5)
    last = len(embeds[0]) - 1
    likeness = film_attention(
        vlm, 1, states[1], packed["position_ids"], torch.tensor([1]), torch.tensor([last]), last + 1
    )
    assert torch.allclose(likeness.softmax(-1)[0], expected.attentions[1][1, :, last], atol=1e-5)
    vlm.model.language_model.set_attn_implementation("sdpa")


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
    said = decode(
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
