"""Editing: PSNR and SSIM against scikit-image and known values, masks, no-op and inverse tests, bad rows."""

# NumPy's and scikit-image's types are too loose for these rules.
# pyright: reportArgumentType=false

import csv
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from unireel.clip import Clip
from unireel.errors import UserError
from unireel.evaluation.editing.pairs import measure, read_pairs, scores
from unireel.evaluation.editing.preservation import preservation
from unireel.evaluation.editing.reading import Given
from unireel.evaluation.films import read_plainly
from unireel.evaluation.journal import Journal
from unireel.evaluation.quality import MOST_DB, psnr, ssim


@pytest.fixture
def noise() -> np.ndarray:
    """Two frames that have something in common: uint8 (2, 40, 32, 3)."""
    generator = np.random.default_rng(0)
    base = generator.integers(0, 200, (40, 32, 3))
    return np.stack([base, base + generator.integers(0, 56, base.shape)]).astype(np.uint8)


def test_whole_frames_against_scikit_image(noise: np.ndarray) -> None:
    one, two = noise
    assert psnr(one, two) == pytest.approx(peak_signal_noise_ratio(one, two))
    expected = structural_similarity(
        one,
        two,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    assert ssim(one, two) == pytest.approx(expected)
    assert (psnr(one, one), ssim(one, one)) == (MOST_DB, pytest.approx(1.0))


def test_regions_leave_out_what_does_not_count(noise: np.ndarray) -> None:
    one, two = noise
    right = np.zeros((40, 32), dtype=bool)
    right[:, 16:] = True
    assert psnr(one, two, right) == pytest.approx(peak_signal_noise_ratio(one[:, 16:], two[:, 16:]))
    # Pixels whose whole window lies inside: the same as of the cut-out, which has no outside.
    whole = ssim(one[:, 16:], two[:, 16:])
    assert ssim(one, two, right) == pytest.approx(whole)
    nothing = np.zeros((40, 32), dtype=bool)
    assert psnr(one, two, nothing) is ssim(one, two, nothing) is None
    assert ssim(one[:10, :10], two[:10, :10]) is None
    with pytest.raises(UserError, match="cannot be compared"):
        psnr(one, two[1:])


def test_a_real_pair_of_films_has_the_known_values(fixtures_dir: Path) -> None:
    source, edited = (
        read_plainly(fixtures_dir / "videos" / f"vebench_{name}.mp4") for name in ("src", "dst")
    )
    found = preservation(source[::8], edited[::8])
    # Every eighth frame; the values of all 32 are 17.837 dB and 0.595 (tests/cli/test_benchmarks.py has them all).
    assert found.psnr == pytest.approx(17.897, abs=0.002)
    assert found.ssim == pytest.approx(0.597, abs=0.001)


def film(frames: int = 4) -> Clip:
    generator = np.random.default_rng(1)
    return Clip(generator.integers(0, 256, (frames, 32, 32, 3)).astype(np.uint8), 8)


def test_an_edit_inside_of_the_mask_leaves_the_outside_perfect() -> None:
    source = film()
    mask = np.zeros((1, 32, 32, 3), np.uint8)
    mask[:, :, :16] = 255
    frames = source.frames.copy()
    frames[:, :, :16] //= 2
    found = preservation(source, Clip(frames, 8), Clip(mask, 1))
    assert (found.psnr_outside, found.drift, found.coverage) == (MOST_DB, 0.0, 0.5)
    assert found.ssim_outside == pytest.approx(1.0)
    assert found.psnr_inside is not None
    assert found.psnr_inside < 15
    assert found.psnr is not None
    assert found.psnr == pytest.approx(found.psnr_inside + 10 * np.log10(2))
    everything = preservation(source, Clip(frames, 8), Clip(np.full_like(mask, 255), 1))
    assert (everything.psnr_outside, everything.drift, everything.coverage) == (None, None, 0.0)


def test_flicker_that_the_edit_adds_is_drift() -> None:
    source = Clip(np.full((5, 8, 8, 3), 100, np.uint8), 8)
    frames = source.frames.copy()
    frames[1::2] += 51
    found = preservation(source, Clip(frames, 8))
    assert found.drift == pytest.approx(51 / 255)
    assert (found.steadiness_source, found.steadiness) == (1.0, pytest.approx(1 - 51 / 255))
    assert preservation(source[:1], source[:1]).drift is None


def test_films_that_do_not_match_are_refused() -> None:
    with pytest.raises(UserError, match="frame by frame"):
        preservation(film(4), film(3))
    with pytest.raises(UserError, match="the mask is"):
        preservation(film(4), film(4), film(2))


def test_a_list_with_every_kind_of_row(tmp_path: Path) -> None:
    source = film()
    source.save(tmp_path / "a")
    Clip(255 - source.frames, 8).save(tmp_path / "b")
    source.resized(16, 16).save(tmp_path / "small")
    rows = [
        {"id": "e", "original_video_path": "a", "edited_video_path": "b", "target_prompt": "negative"},
        {"id": "n", "original_video_path": "a", "edited_video_path": "a", "test": "noop"},
        {"id": "i", "original_video_path": "a", "edited_video_path": "a", "test": "inverse"},
        {"id": "s", "original_video_path": "a", "edited_video_path": "small"},
        {"id": "m", "original_video_path": "a", "edited_video_path": "missing"},
        {"id": "x", "original_video_path": "", "edited_video_path": "b"},
        {"id": "y", "original_video_path": "a", "edited_video_path": "b", "test": "taste"},
    ]
    with (tmp_path / "list.csv").open("w", newline="") as file:
        writer = csv.DictWriter(
            file, ["id", "original_video_path", "edited_video_path", "target_prompt", "test"]
        )
        writer.writeheader()
        writer.writerows(rows)
    pairs, bad = read_pairs(tmp_path / "list.csv")
    assert [pair.id for pair in pairs] == ["e", "n", "i", "s", "m"]
    assert bad == [
        ("row 6", "no source film"),
        ("row 7", "unknown test 'taste'; accepted: edit, noop, inverse"),
    ]
    journal = Journal(tmp_path / "items.jsonl")
    measure(pairs, journal, Given().compared)
    assert "frame by frame" in journal["s"]["error"]
    assert "no such file" in journal["m"]["error"]
    found = scores(journal)
    assert found["psnr"].n == 1
    assert found["psnr"].value < 10
    assert found["noop/psnr"].value == found["inverse/psnr"].value == MOST_DB
    # Failures are tried again, the rest is not done twice.
    done: list[str] = []
    measure(
        pairs,
        Journal(tmp_path / "items.jsonl"),
        Given(fit=True).compared,
        lambda _, __, name: done.append(name),
    )
    assert done == ["s", "m"]
