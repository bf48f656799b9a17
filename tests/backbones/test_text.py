"""The word tokenizer and the pocket text encoder."""

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from unireel.backbones.text import SPECIAL_TOKENS, encode_text, pocket_text_encoder, tokenize, word_tokenizer
from unireel.errors import UserError
from unireel.world.language import prompt_for, vocabulary, words
from unireel.world.sampling import sample_scene


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer(vocabulary())


def test_every_word_is_one_token(tokenizer):
    for index in range(200):
        text = prompt_for(sample_scene(0, index), index).text
        tokens = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])
        assert tokens == words(text)
        assert "<unk>" not in tokens


def test_round_trip_through_a_folder(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    other = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    text = "a red star jumps twice, a blue ring stays still."
    assert other(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert [other.convert_tokens_to_ids(each) for each in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))


def test_nothing_is_cut(tokenizer):
    ids, mask = tokenize(tokenizer, ["a red star", ""], 4)
    assert mask.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert ids[0, 3] == ids[1, 0] == tokenizer.eos_token_id
    with pytest.raises(UserError, match="has 4 words and marks; the model takes at most 3"):
        tokenize(tokenizer, ["a red star jumps"], 4)


@torch.no_grad()
def test_padding_does_not_change_the_states(tokenizer):
    torch.manual_seed(0)
    encoder = pocket_text_encoder(len(tokenizer), 32, 2, 4).eval()
    short = encode_text(encoder, *tokenize(tokenizer, ["a red star jumps"], 6))
    long = encode_text(encoder, *tokenize(tokenizer, ["a red star jumps"], 20))
    assert torch.allclose(short[:, :5], long[:, :5], atol=1e-5)
    assert not long[:, 5:].any()
