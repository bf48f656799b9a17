"""BAGEL's sequences: sizes of images, patches, positions, and who sees whom, against their plain definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unireel.backbones.images import VAE_RULE, VIT_RULE, cut, opaque
from unireel.backbones.packing import (
    PADDING,
    TEXT,
    VAE,
    VIT,
    Geometry,
    TextSegment,
    VaeSegment,
    VitSegment,
    attention_mask,
    block_mask,
    pack,
)
from unireel.errors import UserError

SMALL = Geometry(vit_patch=2, vit_side=8, vae_patch=2, vae_side=8, vision_start=98, vision_end=99)


def test_sizes_of_images():
    assert VIT_RULE.size(640, 480) == (644, 476)  # within the limits: rounded to multiples of 14
    assert VIT_RULE.size(1960, 980) == (980, 490)  # too long
    assert VIT_RULE.size(100, 100) == (224, 224)  # too small
    assert VAE_RULE.size(1024, 768) == (1024, 768)
    assert VAE_RULE.size(100, 200) == (512, 1024)
    # Of 960,400 pixels half are allowed: 980 / sqrt(2) = 693, rounded down to 49 times 14.
    assert VIT_RULE.size(980, 980, 480_200) == (686, 686)
    assert VIT_RULE.size(3000, 45) == (980, 14)  # as long as can be, and never thinner than a patch


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(14 * 980, 2_000_000))
def test_sizes_fit_or_are_refused(width, height, pixels):
    ratio = VIT_RULE.longest // VIT_RULE.stride
    if max(width, height) > ratio * min(width, height):
        with pytest.raises(UserError, match="too narrow"):
            VIT_RULE.size(width, height, pixels)
    else:
        sides = VIT_RULE.size(width, height, pixels)
        assert all(side % 14 == 0 and 14 <= side <= 980 for side in sides)
        assert sides[0] * sides[1] <= pixels


def test_transparent_images_are_on_white():
    picture = np.zeros((4, 4, 4), np.uint8)
    picture[0, 0] = (255, 0, 0, 255)
    pixels = np.asarray(opaque(picture))
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert pixels[3, 3].tolist() == [255, 255, 255]
    assert opaque(Image.new("L", (2, 2), 7)).getpixel((0, 0)) == (7, 7, 7)


def test_patches_are_ordered_by_row_column_channel():
    picture = torch.arange(3 * 4 * 6).view(3, 4, 6).float()
    tokens = cut(picture, 2)
    assert tokens.shape == (6, 12)
    for row in range(2):
        for column in range(3):
            expected = [
                float(picture[channel, 2 * row + y, 2 * column + x])
                for y in range(2)
                for x in range(2)
                for channel in range(3)
            ]
            assert tokens[row * 3 + column].tolist() == expected


def mixed():
    """Two rows: a sample of all kinds of segments, and two short samples."""
    text, vit = TextSegment([1, 2, 3]), VitSegment(torch.zeros(3, 4, 2))
    clean, noised = VaeSegment(torch.zeros(4, 2, 4)), VaeSegment(torch.zeros(4, 2, 2), time=0.5)
    return pack([[[text, clean, vit, text, noised, text]], [[text], [vit, text]]], SMALL)


def test_layout():
    packed = mixed()
    assert packed.kinds[0].tolist() == [
        *[TEXT] * 3,
        *[TEXT, VAE, VAE, TEXT],
        *[TEXT, VIT, VIT, TEXT],
        *[TEXT] * 3,
        *[TEXT, VAE, TEXT],
        *[TEXT] * 3,
    ]
    # One position for a whole block; a noised block does not count.
    assert packed.positions[0].tolist() == [0, 1, 2, *[3] * 4, *[4] * 4, 5, 6, 7, *[8] * 3, 8, 9, 10]
    assert packed.ids[0, 3:7].tolist() == [98, 0, 0, 99]
    assert packed.positions[1, :10].tolist() == [0, 1, 2, 0, 0, 0, 0, 1, 2, 3]
    assert (packed.kinds[1, 10:] == PADDING).all()
    assert packed.latent_times.tolist() == [0.0, 0.5]
    assert packed.patch_places.tolist() == [0, 8, 0, 8]
    assert packed.latent_places.tolist() == [0, 1, 0]
    assert packed.patch_counts.tolist() == [2, 2]


def test_mask_is_the_definition():
    packed = mixed()
    mask = attention_mask(packed)[:, 0]
    for row in range(2):
        for query in range(mask.shape[1]):
            for key in range(mask.shape[1]):
                column = {
                    name: getattr(packed, name)[row] for name in ("samples", "splits", "full", "noised")
                }
                if column["samples"][query] != column["samples"][key]:
                    expected = False
                elif column["splits"][query] == column["splits"][key]:
                    expected = bool(column["full"][query]) or key <= query
                else:
                    expected = key < query and not column["noised"][key]
                assert mask[row, query, key] == expected, (row, query, key)


def test_block_mask_is_the_mask():
    packed = mixed()
    dense = block_mask(packed).mask_mod
    rows, length = packed.ids.shape
    index = torch.meshgrid(torch.arange(rows), torch.arange(length), torch.arange(length), indexing="ij")
    assert torch.equal(dense(index[0], torch.zeros(()), index[1], index[2]), attention_mask(packed)[:, 0])


def test_images_larger_than_the_positions_are_refused():
    with pytest.raises(UserError, match="9x1 tokens is too large"):
        pack([[[VitSegment(torch.zeros(3, 18, 2))]]], SMALL)
