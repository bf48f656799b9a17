"""Real films that nobody here made; skipped unless UNIREEL_FIXTURES names the folder that holds them."""

import warnings
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from unireel.clip import Clip
from unireel.errors import UserError


@pytest.fixture
def films(fixtures_dir: Path) -> Path:
    return fixtures_dir / "videos"


@pytest.mark.parametrize(
    ("name", "count", "size", "fps"),
    [
        ("fastvideo_ltx2.mp4", 120, (480, 832), 24.0),
        ("libwebm_bbb_480p_vp9_opus_1second.webm", 24, (480, 854), 24.0),
        ("moviepy_fire2_vfr_rot180.mp4", 25, (720, 1280), 25 / 2.379767),
        ("torchcodec_h265_10bits.mp4", 30, (200, 200), 30.0),
        ("vebench_src.mp4", 32, (464, 768), 30.0),
        ("vebench_dst.mp4", 32, (464, 768), 30.0),
    ],
)
def test_frames_size_and_rate(films: Path, name: str, count: int, size: tuple[int, int], fps: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip = Clip.load(films / name)
    assert (len(clip), clip.height, clip.width) == (count, *size)
    assert clip.fps == pytest.approx(fps, rel=1e-4)


def test_a_damaged_film(films: Path) -> None:
    path = films / "decord_corrupted.mp4"
    with pytest.warns(UserWarning, match="28 of 50 frames can be read, up to 2.70 s"):
        clip = Clip.load(path)
    assert (len(clip), clip.fps) == (28, 10.0)
    with pytest.raises(UserError, match="is damaged"):
        Clip.load(path, on_damage="error")
    with pytest.warns(UserWarning, match="damaged"):
        assert len(Clip.load(path, num_frames=6, size=(64, 64), fit="crop")) == 6
    assert len(Clip.load(path, end=2.0, on_damage="error")) == 20


def stored_frame(path: Path, index: int) -> np.ndarray:
    """A frame as another reader gives it: the library's own conversion, not turned."""
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == index:
                return frame.to_ndarray(format="rgb24")
    raise AssertionError(f"{path} has no frame {index}")


def test_a_film_that_was_held_upside_down(films: Path) -> None:
    path = films / "moviepy_fire2_vfr_rot180.mp4"
    shown = Clip.load(path, end=0.05).frames[0].astype(int)
    stored = stored_frame(path, 0).astype(int)
    assert np.abs(shown - stored[::-1, ::-1]).mean() < 3
    assert np.abs(shown - stored).mean() > 10


def test_sampling_a_film_of_variable_rate(films: Path) -> None:
    path = films / "moviepy_fire2_vfr_rot180.mp4"
    clip = Clip.load(path, fps=5)
    assert len(clip) == 12
    with av.open(str(path)) as container:
        stamps = np.array([frame.time for frame in container.decode(video=0)])
    index = int(np.searchsorted(stamps, 1.4 + 0.02, side="right")) - 1
    assert np.abs(clip.frame(7).astype(int) - stored_frame(path, index)[::-1, ::-1]).mean() < 3


def test_flicker_is_what_the_published_tool_measures(films: Path) -> None:
    """VBench's temporal flickering, mean absolute difference of neighbours, to its tolerance between decoders."""
    frames = Clip.load(films / "fastvideo_ltx2.mp4").frames
    difference = np.mean([np.abs(a.astype(np.float32) - b).mean() for a, b in pairwise(frames)])
    assert (255 - difference) / 255 == pytest.approx(0.9794517, abs=1e-4)


def test_a_pair_of_films_differs_as_measured(films: Path) -> None:
    pair = [Clip.load(films / f"vebench_{name}.mp4").frames for name in ("src", "dst")]
    mean = np.mean([peak_signal_noise_ratio(a, b) for a, b in zip(*pair, strict=True)])
    assert mean == pytest.approx(17.8367, abs=0.05)
