"""The ranker against transformers' own SigLIP: inputs, probabilities and order."""

# Modules of torch and of the model libraries are typed too loosely for these rules.
# pyright: reportAttributeAccessIssue=false

from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessorPil, SiglipModel

from unireel.backbones.ranker import (
    TEXT_LENGTH,
    frame_embeddings,
    frame_pixels,
    match_logits,
    pocket_ranker,
    rank,
    ranker_tokenizer,
    text_embeddings,
)
from unireel.backbones.text import tokenize
from unireel.errors import UserError
from unireel.world.language import vocabulary

TEXTS = [
    "a small red star on the left",
    "there is nothing",
    "a large blue ring in the middle, a white star at the top",
]


@cache
def tokenizer():
    return ranker_tokenizer(vocabulary())


@cache
def ranker() -> SiglipModel:
    torch.manual_seed(0)
    return pocket_ranker(tokenizer(), 32, 2, 2, 24, 1, size=16).eval()


def frames(count: int = 5, size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def test_texts_are_what_the_tokenizer_gives_when_called_as_siglip_calls_it():
    ids, _ = tokenize(tokenizer(), TEXTS, TEXT_LENGTH)
    given = tokenizer()(TEXTS, padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt")
    assert list(given) == ["input_ids"]
    assert torch.equal(given["input_ids"], ids)
    assert (ids[:, -1] == tokenizer().pad_token_id).all()


def test_pixels_are_what_siglips_processor_gives():
    processor = SiglipImageProcessorPil(size={"height": 16, "width": 16})
    given = processor([Image.fromarray(each) for each in frames()], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(frame_pixels(frames()), given)


def test_logits_are_those_of_the_whole_model():
    ids, _ = tokenize(tokenizer(), TEXTS, TEXT_LENGTH)
    with torch.no_grad():
        output = ranker()(input_ids=ids, pixel_values=frame_pixels(frames()))
        found = match_logits(
            ranker(), frame_embeddings(ranker(), frames()), text_embeddings(ranker(), tokenizer(), TEXTS)
        )
    torch.testing.assert_close(found, output.logits_per_image)


def test_rank_gives_the_most_probable_frames_first():
    ids, _ = tokenize(tokenizer(), TEXTS[:1], TEXT_LENGTH)
    with torch.no_grad():
        logits = ranker()(input_ids=ids, pixel_values=frame_pixels(frames())).logits_per_image[:, 0]
    found = rank(ranker(), tokenizer(), frames(), TEXTS[0])
    assert [each.frame for each in found] == np.argsort(-logits.numpy()).tolist()
    np.testing.assert_allclose(
        [each.probability for each in found], 1 / (1 + np.exp(-np.sort(-logits.numpy()) * -1)), rtol=1e-4
    )
    assert rank(ranker(), tokenizer(), frames(), TEXTS[0], count=2) == found[:2]


@pytest.mark.parametrize("wrong", [frames(size=24), frames().astype(np.float32), frames()[0], frames()[:0]])
def test_frames_that_do_not_fit_are_refused(wrong: np.ndarray):
    with pytest.raises(UserError, match="16 x 16"):
        frame_embeddings(ranker(), wrong)


def test_texts_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="at most 63"):
        text_embeddings(ranker(), tokenizer(), ["star " * 64])
    with pytest.raises(UserError, match="no text"):
        text_embeddings(ranker(), tokenizer(), [])


def test_the_recipes_sizes_make_a_model_of_about_a_million_parameters():
    with torch.device("meta"):
        model = pocket_ranker(tokenizer(), 128, 4, 4, 96, 2)
    assert 1.0e6 < sum(each.numel() for each in model.parameters()) < 1.5e6
