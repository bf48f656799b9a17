"""Pictures for people: the frames and captions that were asked for stand where they should."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_films import numbered, numbers
from PIL import Image

from unireel.clip import Clip
from unireel.errors import UsageError, UserError
from unireel.media.pictures import (
    GAP,
    MARGIN,
    PAPER,
    Row,
    contact_sheet,
    film_strip,
    grid,
    side_by_side,
    strip_indices,
    wrap,
)


def film(count: int = 17, height: int = 48, width: int = 64, first: int = 0) -> Clip:
    return Clip(np.stack([numbered(first + number, height, width) for number in range(count)]), 8)


def tiles(picture: Image.Image, top: int, left: int, height: int, width: int, count: int) -> list[int]:
    """Numbers of ``count`` tiles beside each other."""
    pixels = np.asarray(picture)
    starts = [left + place * (width + GAP) for place in range(count)]
    return numbers(np.stack([pixels[top : top + height, start : start + width] for start in starts]))


@given(st.integers(1, 500), st.integers(1, 40))
def test_a_strip_goes_from_the_first_frame_to_the_last(count: int, num_frames: int) -> None:
    indices = strip_indices(count, num_frames)
    assert len(indices) == min(count, num_frames)
    assert len(set(indices)) == len(indices)
    assert indices == sorted(indices)
    assert indices[0] == 0
    assert num_frames == 1 or indices[-1] == count - 1


def test_a_strip_shows_the_frames_enlarged_with_sharp_pixels() -> None:
    picture = film_strip(film(), num_frames=5, times=False, tile=128)
    assert picture.size == (5 * 128 + 4 * GAP, 96)
    assert tiles(picture, 0, 0, 96, 128, 5) == [0, 4, 8, 12, 16]
    assert np.array_equal(np.asarray(picture)[:96:2, :128:2], film().frames[0])


def test_a_strip_in_rows_and_of_large_films() -> None:
    picture = film_strip(film(7), num_frames=7, columns=3, times=False, tile=64)
    assert picture.size == (3 * 64 + 2 * GAP, 3 * 48 + 2 * GAP)
    assert tiles(picture, 48 + GAP, 0, 48, 64, 3) == [3, 4, 5]
    large = film_strip(film(2, 480, 640), times=False, tile=128)
    assert large.size == (2 * 128 + GAP, 96)
    assert tiles(large, 0, 0, 96, 128, 2) == [0, 1]


def test_times_stand_below_the_frames() -> None:
    plain, timed = film_strip(film(), times=False), film_strip(film(), times=True)
    assert timed.height > plain.height
    below = np.asarray(timed)[plain.height :, :128]
    assert (below < 160).any()


@settings(max_examples=50)
@given(
    st.text(st.characters(codec="latin-1", categories=("L", "N", "P", "Zs")), max_size=120),
    st.integers(40, 400),
)
def test_wrapped_text_fits_and_loses_nothing(text: str, width: int) -> None:
    from PIL import ImageFont

    lines = wrap(text, width, 14)
    assert all(ImageFont.load_default(14).getlength(line) <= width or len(line) == 1 for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_a_contact_sheet_shows_every_film_with_its_caption() -> None:
    clips = [film(5), film(5, first=100), film(3, 32, 32, first=7)]
    plain = contact_sheet(clips, num_frames=5)
    captioned = contact_sheet(
        clips, ["a red star", "a blue ring " * 40, "third"], title="Films", num_frames=5
    )
    assert captioned.height > plain.height
    assert tiles(plain, MARGIN, MARGIN, 96, 128, 5) == [0, 1, 2, 3, 4]
    assert plain.getpixel((0, 0)) == PAPER
    assert contact_sheet(clips[0], "alone").size[0] == 2 * MARGIN + 5 * 128 + 4 * GAP


def test_a_grid_has_rows_of_films() -> None:
    rows = [Row("made", [film(9), film(9, first=50)], ["one", "two"]), Row("wanted", [film(9, first=90)])]
    picture = grid(rows, title="Grid", num_frames=3)
    assert picture.width == 2 * MARGIN + 2 * (3 * 128 + 2 * GAP) + 14
    pixels = np.asarray(picture)
    dark = (pixels == 40).all(axis=2)
    assert dark.sum() > 6 * 96 * 30


def test_films_side_by_side() -> None:
    both = side_by_side([film(9), film(5, first=20)], ["before", "after"], tile=128)
    assert (len(both), both.fps) == (9, 8.0)
    top = both.height - MARGIN - 96
    left, right = (
        both.frames[:, top : top + 96, MARGIN : MARGIN + 128],
        both.frames[:, top : top + 96, -128 - MARGIN : -MARGIN],
    )
    assert numbers(left) == list(range(9))
    assert numbers(right) == [20, 21, 22, 23, 24, 24, 24, 24, 24]
    assert (both.frames[0, :top] < 100).any()


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: contact_sheet([]), UserError),
        (lambda: contact_sheet([film(2)], ["a", "b"]), UsageError),
        (lambda: contact_sheet(film(2), num_frames=0), UsageError),
        (lambda: contact_sheet(film(2), tile=0), UsageError),
        (lambda: film_strip(film(2), columns=0), UsageError),
        (lambda: grid([]), UserError),
        (lambda: grid([Row("none", [])]), UserError),
        (lambda: grid([Row("some", [film(2), film(2)], ["one"])]), UsageError),
        (lambda: side_by_side([]), UserError),
        (lambda: side_by_side([film(2), Clip(film(2).frames, 4)]), UserError),
        (lambda: side_by_side([film(2)], ["a", "b"]), UsageError),
    ],
)
def test_what_cannot_be_shown(make, kind: type[UserError]) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert "\n" not in str(caught.value)
