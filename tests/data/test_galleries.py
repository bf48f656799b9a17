"""Galleries of story frames, and recall against its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unireel.data.galleries import recall_hits, story_galleries
from unireel.errors import UserError


def test_galleries_hold_different_descriptions_and_the_storys_own_first():
    found = story_galleries("test", 3, 12, 32)
    assert len(found.frames) == len(found.texts)
    for number, (own, entries) in enumerate(found.galleries):
        assert len(entries) == len({found.texts[i] for i in entries}) == 12
        spread = {found.texts[i] for i in found.spreads[number]}
        assert spread & {found.texts[i] for i in entries[:own]}
        if own < 12:
            assert spread <= {found.texts[i] for i in entries[:own]}


def test_too_few_stories_for_a_gallery_are_refused():
    with pytest.raises(UserError, match="take more stories"):
        story_galleries("test", 1, 200, 32)


@given(st.integers(1, 6), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_recall_is_what_its_definition_says(texts: int, more: int, seed: int):
    random = np.random.default_rng(seed)
    text_of = np.concatenate([np.arange(texts), random.integers(0, texts, more)])
    similarity = random.permutation(len(text_of) * texts).reshape(len(text_of), texts)
    to_frame, to_text = recall_hits(similarity, text_of)
    for text in range(texts):
        best = max(range(len(text_of)), key=lambda frame: similarity[frame, text])
        assert to_frame[text] == (text_of[best] == text)
    for frame, own in enumerate(text_of):
        assert to_text[frame] == all(
            similarity[frame, own] >= similarity[frame, other] for other in range(texts)
        )
