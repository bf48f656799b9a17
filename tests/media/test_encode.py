"""Writing: what was written is what is read, or nothing was written."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numbered_films import numbered, numbers
from PIL import Image

from unireel.clip import Clip
from unireel.errors import UsageError, UserError

LOSSY = (".mp4", ".webm")


def film(count: int = 17, height: int = 48, width: int = 64) -> np.ndarray:
    return np.stack([numbered(number, height, width) for number in range(count)])


def coloured_discs(count: int = 9, side: int = 64) -> np.ndarray:
    """Saturated shapes with soft edges that move: what a small film of the World looks like."""
    down, across = np.mgrid[0:side, 0:side].astype(np.float64)
    frames = np.empty((count, side, side, 3))
    frames[:] = (22, 34, 84)
    for colour, row in (((220, 50, 47), 16), ((240, 210, 50), 44)):
        for index in range(count):
            distance = np.hypot(across - (12 + 4 * index), down - row)
            cover = np.clip(10.5 - distance, 0, 1)[..., None]
            frames[index] = frames[index] * (1 - cover) + np.array(colour) * cover
    return np.rint(frames).astype(np.uint8)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((first.astype(np.float64) - second) ** 2)))


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ""])
@pytest.mark.parametrize("fps", [8.0, 30000 / 1001, 12.5, 0.5])
def test_every_frame_and_the_rate_come_back(tmp_path: Path, suffix: str, fps: float) -> None:
    path = Clip(film(), fps).save(tmp_path / f"film{suffix}")
    clip = Clip.load(path)
    assert numbers(clip.frames) == list(range(17))
    assert clip.fps == pytest.approx(fps, rel=2e-3 if suffix == ".gif" else 1e-5)
    assert clip.frames.shape == (17, 48, 64, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ".png", ""])
@pytest.mark.parametrize(
    ("height", "width"), [(33, 47), (48, 65), (65, 48), (1, 1), (2, 2), (3, 16), (48, 48)]
)
def test_any_size_comes_back(tmp_path: Path, suffix: str, height: int, width: int) -> None:
    frames = np.full((1, height, width, 3), 128, dtype=np.uint8)
    clip = Clip.load(Clip(frames, 8).save(tmp_path / f"film{suffix}"))
    assert clip.frames.shape == frames.shape
    assert np.abs(clip.frames.astype(int) - 128).max() <= 1


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_one_frame_keeps_its_rate(tmp_path: Path, suffix: str) -> None:
    clip = Clip.load(Clip(film(1), 8).save(tmp_path / f"film{suffix}"))
    assert (len(clip), clip.fps) == (1, pytest.approx(8.0, rel=0.01))


@pytest.mark.parametrize("suffix", [".png", ""])
def test_pictures_are_lossless(tmp_path: Path, suffix: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1 if suffix else 5, 20, 30, 3), dtype=np.uint8)
    assert np.array_equal(Clip.load(Clip(frames, 8).save(tmp_path / f"film{suffix}")).frames, frames)


@pytest.mark.parametrize(("suffix", "floor"), [(".mp4", 42.0), (".webm", 42.0), (".gif", 40.0), ("", 100.0)])
def test_an_enlarged_film_comes_back_when_reduced(tmp_path: Path, suffix: str, floor: float) -> None:
    frames = coloured_discs()
    large = Clip.load(Clip(frames, 8).save(tmp_path / f"film{suffix}", scale=4))
    assert large.frames.shape == (9, 256, 256, 3)
    small = large.resized(64, 64).frames
    assert np.array_equal(small, frames) or psnr(small, frames) > floor


@pytest.mark.parametrize("suffix", LOSSY)
def test_small_films_stay_recognisable(tmp_path: Path, suffix: str) -> None:
    """4:2:0 chroma blurs edges of small films; flat areas keep their colour."""
    frames = coloured_discs()
    back = Clip.load(Clip(frames, 8).save(tmp_path / f"film{suffix}")).frames
    assert psnr(back, frames) > 29
    for colour, row in (((220, 50, 47), 16), ((240, 210, 50), 44)):
        assert np.abs(back[4, row, 28].astype(int) - colour).max() <= 6


@pytest.mark.parametrize(("suffix", "good", "bad"), [(".mp4", 4, 40), (".webm", 5, 60)])
def test_quality_is_what_was_asked_for(tmp_path: Path, suffix: str, good: int, bad: int) -> None:
    clip = Clip(np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8), 8)
    sizes = [clip.save(tmp_path / f"{crf}{suffix}", crf=crf).stat().st_size for crf in (good, bad)]
    assert sizes[0] > 3 * sizes[1]


def test_mp4_plays_everywhere_and_streams(tmp_path: Path) -> None:
    path = Clip(film(), 8).save(tmp_path / "film.mp4")
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_range, context.color_primaries, context.color_trc) == (
            1,
            1,
            1,
            1,
        )
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_a_gif_loops_and_does_not_drift(tmp_path: Path) -> None:
    path = Clip(film(), 8).save(tmp_path / "film.gif")
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        assert getattr(image, "n_frames", 1) == 17
        delays = []
        for index in range(17):
            image.seek(index)
            delays.append(image.info["duration"])
    assert set(delays) <= {120, 130}
    assert sum(delays) == pytest.approx(17 / 8 * 1000, abs=10)


def test_equal_frames_are_kept(tmp_path: Path) -> None:
    still = np.full((9, 16, 16, 3), 77, dtype=np.uint8)
    for suffix in (".gif", ".mp4", ".webm"):
        assert len(Clip.load(Clip(still, 8).save(tmp_path / f"film{suffix}"))) == 9


def test_the_same_film_is_the_same_file(tmp_path: Path) -> None:
    for suffix in (".mp4", ".gif"):
        first = Clip(film(), 8).save(tmp_path / f"first{suffix}").read_bytes()
        assert Clip(film(), 8).save(tmp_path / f"second{suffix}").read_bytes() == first
    # One in three differed where x264 used AVX-512 for its macroblock tree.
    noise = Clip(np.random.default_rng(0).integers(0, 256, (9, 48, 48, 3), dtype=np.uint8), 8)
    assert len({noise.save(tmp_path / "noise.mp4", scale=2).read_bytes() for _ in range(12)}) == 1


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file may grow beyond ``limit`` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["film.mp4", "film.webm", "film.gif", "film.png", "film"])
def test_a_failure_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    path = Clip(film(1), 8).save(tmp_path / name)
    before = sorted((p.relative_to(tmp_path), p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file())
    noise = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), dtype=np.uint8)
    with full_disk(2000), pytest.raises(UserError, match=f"cannot write .*{name}") as caught:
        Clip(noise, 8).save(path)
    assert "\n" not in str(caught.value)
    after = sorted((p.relative_to(tmp_path), p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file())
    assert after == before


def test_a_folder_of_ours_is_replaced_and_no_other(tmp_path: Path) -> None:
    ours = Clip(film(5), 8).save(tmp_path / "ours")
    Clip(film(3), 4).save(ours)
    assert (len(Clip.load(ours)), Clip.load(ours).fps) == (3, 4.0)
    assert sorted(p.name for p in ours.iterdir()) == ["00000.png", "00001.png", "00002.png", "clip.json"]
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds other files"):
        Clip(film(2), 8).save(theirs)
    assert (theirs / "thesis.txt").read_text() == "years of work"
    (ours / "notes.txt").write_text("put here by hand")
    with pytest.raises(UserError, match="holds other files"):
        Clip(film(2), 8).save(ours)
    assert (ours / "notes.txt").exists()
    (tmp_path / "empty").mkdir()
    assert len(Clip.load(Clip(film(2), 8).save(tmp_path / "empty"))) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "ours", "theirs"]


@pytest.mark.parametrize(
    ("name", "settings", "kind", "message"),
    [
        ("film.mpeg4", {}, UsageError, r"unknown suffix '.mpeg4'; use .mp4, .webm, .gif, .png or a folder"),
        ("film.png", {}, UsageError, "holds one frame and the clip has 3"),
        ("film.mp4", {"scale": 0}, UsageError, "scale=0"),
        ("film.mp4", {"scale": 1.5}, UsageError, "scale=1.5"),
        ("film.mp4", {"crf": 52}, UsageError, "crf=52: .mp4 takes 0"),
        ("film.gif", {"crf": 5}, UsageError, "only .mp4 and .webm"),
        ("film", {"crf": 5}, UsageError, "not a folder"),
        ("nowhere/film.mp4", {}, UserError, "folder .*nowhere does not exist"),
        ("nowhere/film", {}, UserError, "folder .*nowhere does not exist"),
        ("taken.mp4", {}, UserError, "it is a folder"),
        ("taken.gif", {}, UserError, "it is a folder"),
        ("file", {}, UserError, "it is a file"),
        ("file/film.mp4", {}, UserError, "does not exist"),
        ("x" * 300 + ".mp4", {}, UserError, "File name too long"),
        ("x" * 300, {}, UserError, "File name too long"),
        ("x" * 300 + "/film.mp4", {}, UserError, "File name too long"),
        ("nul\0byte.mp4", {}, UserError, "not a file name"),
    ],
)
def test_what_cannot_be_written_is_said_in_one_line(
    tmp_path: Path, name: str, settings: dict[str, Any], kind: type[UserError], message: str
) -> None:
    for folder in ("taken.mp4", "taken.gif"):
        (tmp_path / folder).mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(kind, match=message) as caught:
        Clip(film(3), 8).save(tmp_path / name, **settings)
    assert "\n" not in str(caught.value)
    assert type(caught.value) is kind
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("name", "fps"), [("film.gif", 60.0), ("film.mp4", 5000.0), ("film.webm", 1e-5)])
def test_a_rate_that_a_file_cannot_hold(tmp_path: Path, name: str, fps: float) -> None:
    with pytest.raises(UserError, match=r"frames a second"):
        Clip(film(3), fps).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
