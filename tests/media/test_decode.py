"""Reading: time stamps, turned and stretched pictures, colours, stills and folders."""

import json
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from numbered_films import numbered, numbers, write_film
from PIL import Image

from unireel.errors import UsageError, UserError
from unireel.media.decode import read
from unireel.media.sampling import sample_times
from unireel.media.upright import CONVERSION

WriteNumbered = Callable[..., Path]
UNEVEN = [0.0, 0.1, 0.2, 0.9, 1.0, 1.6, 1.7, 1.8, 2.5, 3.4]


@pytest.fixture(autouse=True)
def no_warnings():
    """A sound file is never reported as damaged."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def ticks(count: int, rate: float) -> list[float]:
    return [index / rate for index in range(count)]


@pytest.mark.parametrize("rate", [8.0, 24000 / 1001, 30.0])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("film.mp4", {}),
        ("film.mov", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}),
        ("film.mkv", {}),
        ("film.webm", {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}}),
        ("film.avi", {"codec": "mpeg4"}),
        ("film.ts", {}),
    ],
)
def test_every_frame_at_the_films_own_rate(
    write_numbered: WriteNumbered, name: str, settings: dict[str, Any], rate: float
) -> None:
    if name == "film.avi":
        rate = float(round(rate))  # avi has one clock tick for each frame
        settings = settings | {"tick": Fraction(1, round(rate))}
    path = write_numbered(name, ticks(30, rate), **settings)
    frames, found = read(path)
    assert numbers(frames) == list(range(30))
    assert found == pytest.approx(rate, rel=2e-3)
    assert frames.shape == (30, 48, 64, 3)
    assert frames.dtype == np.uint8


def test_fewer_frames_by_rate_and_by_number(write_numbered: WriteNumbered) -> None:
    path = write_numbered("film.mp4", ticks(48, 24))
    assert numbers(read(path, fps=8)[0]) == list(range(0, 48, 3))
    assert numbers(read(path, num_frames=4)[0]) == [0, 12, 24, 36]
    frames, rate = read(path, num_frames=96)
    assert numbers(frames) == [index // 2 for index in range(96)]
    assert rate == pytest.approx(48)


def test_a_part_of_a_film(write_numbered: WriteNumbered) -> None:
    path = write_numbered("film.mp4", ticks(48, 24))
    assert numbers(read(path, start=0.5, end=1.0)[0]) == list(range(12, 24))
    assert numbers(read(path, start=1.0, fps=4)[0]) == [24, 30, 36, 42]
    assert numbers(read(path, start=1.99)[0]) == [47]
    assert numbers(read(path, end=99.0)[0]) == list(range(48))
    with pytest.raises(UserError, match=r"behind its end at 2\.00 s"):
        read(path, start=2.5)


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
@pytest.mark.parametrize("wanted", [{"fps": 10.0}, {"fps": 3.0}, {"num_frames": 7}, {"num_frames": 40}])
def test_variable_rate_is_sampled_by_time(
    write_numbered: WriteNumbered, name: str, wanted: dict[str, Any]
) -> None:
    path = write_numbered(name, UNEVEN, last=0.6)
    times, rate = sample_times(4.0, **wanted)
    frames, found = read(path, **wanted)
    shown = [max(i for i, stamp in enumerate(UNEVEN) if stamp <= moment + 0.025) for moment in times]
    assert numbers(frames) == shown
    assert found == pytest.approx(rate)


def test_variable_rate_comes_out_at_its_mean_rate(write_numbered: WriteNumbered) -> None:
    frames, rate = read(write_numbered("film.mp4", UNEVEN, last=0.6))
    assert rate == pytest.approx(10 / 4.0)
    assert len(frames) == 10


def test_time_starts_with_the_first_frame(write_numbered: WriteNumbered) -> None:
    path = write_numbered("film.mkv", [5.0 + stamp for stamp in ticks(16, 8)])
    frames, rate = read(path)
    assert (numbers(frames), rate) == (list(range(16)), 8.0)
    assert numbers(read(path, num_frames=2)[0]) == [0, 8]


def test_jumping_gives_the_same_frames_as_decoding_all(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 16, 16, 3), dtype=np.uint8)
    path = write_film(tmp_path / "film.mp4", list(noise), ticks(240, 24), options={"g": "24", "bf": "3"})
    everything, _ = read(path)
    for count in (1, 3, 5, 11):
        few, _ = read(path, num_frames=count)
        assert np.array_equal(few, everything[[int(i * 240 / count + 0.25) for i in range(count)]])


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
def test_turned_and_mirrored_films_come_upright(tmp_path: Path, turn: int, flips: tuple[bool, bool]) -> None:
    stored = numbered(0b10110001, 48, 64)
    stored[:16] = 120
    path = write_film(tmp_path / "film.mov", [stored] * 3, ticks(3, 8), rotation=turn, flips=flips)
    plain = write_film(tmp_path / "plain.mov", [stored] * 3, ticks(3, 8))
    shown = read(plain)[0][0]
    # The display matrix turns counter-clockwise and mirrors the turned picture.
    shown = np.rot90(shown, turn // 90)
    shown = shown[:, ::-1] if flips[0] else shown
    shown = shown[::-1] if flips[1] else shown
    assert np.array_equal(read(path)[0][0], shown)


def test_an_odd_angle_is_refused_in_one_line(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mov", [numbered(1)] * 2, ticks(2, 8), rotation=30)
    with pytest.raises(UserError, match="odd angle"):
        read(path)


@pytest.mark.parametrize(
    ("aspect", "size"), [(Fraction(2), (48, 128)), (Fraction(1, 2), (96, 64)), (Fraction(16, 15), (48, 68))]
)
def test_pixels_become_square(write_numbered: WriteNumbered, aspect: Fraction, size: tuple[int, int]) -> None:
    frames, _ = read(write_numbered("film.mp4", ticks(4, 8), aspect=aspect))
    assert frames.shape[1:3] == size
    assert numbers(frames) == [0, 1, 2, 3]


def test_ten_bits(write_numbered: WriteNumbered) -> None:
    frames, _ = read(write_numbered("film.mp4", ticks(20, 8), pix_fmt="yuv420p10le"))
    assert numbers(frames) == list(range(20))
    dark, light = frames[0], frames[1][:, :6]
    assert abs(int(np.median(dark)) - 40) <= 1
    assert abs(int(np.median(light)) - 215) <= 1


@pytest.mark.parametrize(("height", "width"), [(33, 71), (48, 65), (1, 64), (2, 64)])
def test_odd_sizes(tmp_path: Path, height: int, width: int) -> None:
    frames = [numbered(number, height, width) for number in range(5)]
    path = write_film(tmp_path / "film.webm", frames, ticks(5, 8), codec="libvpx-vp9")
    assert read(path)[0].shape == (5, height, width, 3)


def closed_form_rgb(path: Path, red: float, blue: float) -> np.ndarray:
    """YUV to RGB of the first frame by the standards' formula; chroma sits left and between the lines."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        height, width = frame.height, frame.width
        planes = frame.to_ndarray(format="yuv420p").astype(np.float64)
    luma = (planes[:height] - 16) / 219
    chroma = (planes[height:].reshape(2, height // 2, width // 2) - 128) / 224
    across, down = np.arange(width) / 2, (np.arange(height) - 0.5) / 2
    wide = np.stack([[np.interp(across, np.arange(width // 2), line) for line in plane] for plane in chroma])
    full = np.stack(
        [np.stack([np.interp(down, np.arange(height // 2), line) for line in plane.T]).T for plane in wide]
    )
    r = luma + 2 * (1 - red) * full[1]
    b = luma + 2 * (1 - blue) * full[0]
    g = (luma - red * r - blue * b) / (1 - red - blue)
    return np.clip(np.stack([r, g, b], axis=-1), 0, 1) * 255


@pytest.mark.parametrize(
    ("matrix", "red", "blue"),
    [(None, 0.299, 0.114), (Colorspace.ITU601, 0.299, 0.114), (Colorspace.ITU709, 0.2126, 0.0722)],
)
def test_colours_follow_the_standard_that_the_file_names(
    tmp_path: Path, matrix: Colorspace | None, red: float, blue: float
) -> None:
    down, across = np.mgrid[0:64, 0:64]
    smooth = np.stack([across * 3 + 30, down * 3 + 30, 220 - across * 2 - down], axis=-1).astype(np.uint8)
    path = write_film(tmp_path / "film.mp4", [smooth] * 2, ticks(2, 8), matrix=matrix, options={"crf": "4"})
    error = read(path)[0][0].astype(np.float64) - closed_form_rgb(path, red, blue)
    assert abs(error.mean()) < 0.15
    assert np.sqrt((error**2).mean()) < 0.6


def test_our_conversion_is_closer_to_the_formula_than_the_librarys_default(tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    path = write_film(tmp_path / "film.mp4", [picture] * 2, ticks(2, 8), options={"crf": "4"})
    truth = closed_form_rgb(path, 0.299, 0.114)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        default = frame.to_ndarray(format="rgb24").astype(np.float64)
        ours = frame.to_ndarray(format="rgb24", interpolation=CONVERSION).astype(np.float64)
    assert np.abs(ours - truth).mean() < 0.5 * np.abs(default - truth).mean()


def test_resizing_while_reading(write_numbered: WriteNumbered) -> None:
    path = write_numbered("film.mp4", ticks(6, 8), size=(96, 128))
    frames, _ = read(path, size=(24, 32))
    assert frames.shape == (6, 24, 32, 3)
    assert numbers(frames) == list(range(6))


def test_a_still_picture_is_a_film_of_one_frame(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (31, 45, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    frames, rate = read(tmp_path / "picture.png")
    assert np.array_equal(frames, picture[None])
    assert rate == 1.0
    assert read(tmp_path / "picture.png", num_frames=3)[0].shape == (3, 31, 45, 3)


def test_a_photograph_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    stored = numbered(0b00110101)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    Image.fromarray(stored).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    shown = read(tmp_path / "photo.jpg")[0][0]
    assert np.abs(shown.astype(int) - np.rot90(stored, -1)).mean() < 3


@pytest.mark.parametrize("name", ["picture.png", "picture.webp"])
def test_transparent_parts_are_white(tmp_path: Path, name: str) -> None:
    rgba = np.zeros((8, 8, 4), dtype=np.uint8)
    rgba[:, :4] = (200, 0, 0, 255)
    rgba[:, 4:] = (0, 200, 0, 0)
    Image.fromarray(rgba).save(tmp_path / name, lossless=True)
    frame = read(tmp_path / name)[0][0]
    assert frame[0, 0].tolist() == [200, 0, 0]
    assert frame[0, 7].tolist() == [255, 255, 255]


def test_transparent_gifs_and_gifs_of_other_programs(tmp_path: Path) -> None:
    pictures = []
    for number in range(5):
        rgba = np.zeros((16, 16, 4), dtype=np.uint8)
        rgba[:, : 3 * number + 2] = (10, 20, 230, 255)
        pictures.append(Image.fromarray(rgba))
    pictures[0].save(
        tmp_path / "film.gif", save_all=True, append_images=pictures[1:], duration=120, disposal=2
    )
    frames, rate = read(tmp_path / "film.gif")
    assert rate == pytest.approx(1 / 0.12, rel=1e-3)
    for number, frame in enumerate(frames):
        assert frame[8, 3 * number + 1].tolist() == [10, 20, 230]
        assert frame[8, 15].tolist() == [255, 255, 255]


def test_a_gif_that_rests_keeps_its_time(tmp_path: Path) -> None:
    pictures = [Image.fromarray(numbered(number)) for number in range(4)]
    pictures[0].save(
        tmp_path / "film.gif", save_all=True, append_images=pictures[1:], duration=[100, 100, 800, 200]
    )
    assert numbers(read(tmp_path / "film.gif", fps=10)[0]) == [0, 1] + [2] * 8 + [3] * 2


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    for number in (0, 1, 2, 10):
        Image.fromarray(numbered(number)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    frames, rate = read(tmp_path, fps=12)
    assert numbers(frames) == [0, 1, 2, 10]
    assert rate == 12
    with pytest.raises(UserError, match="give fps"):
        read(tmp_path)
    (tmp_path / "clip.json").write_text(json.dumps({"fps": 4}))
    assert numbers(read(tmp_path, fps=2)[0]) == [0, 2]
    for broken in ("{", "[]", '{"fps": "soon"}', '{"fps": 0}', '{"fps": null}'):
        (tmp_path / "clip.json").write_text(broken)
        with pytest.raises(UserError, match=r"clip\.json"):
            read(tmp_path)


def test_pictures_of_a_folder_must_have_one_size_or_be_given_one(tmp_path: Path) -> None:
    for number, side in enumerate((8, 16)):
        Image.new("RGB", (side, side)).save(tmp_path / f"{number}.png")
    with pytest.raises(UserError, match="change size from 8x8 to 16x16"):
        read(tmp_path, fps=1)
    assert read(tmp_path, fps=1, size=(4, 4))[0].shape == (2, 4, 4, 3)


@pytest.mark.parametrize(
    "wanted",
    [
        {"fps": 8.0, "num_frames": 2},
        {"fps": -1.0},
        {"fps": float("nan")},
        {"num_frames": 0},
        {"start": -1.0},
        {"start": 2.0, "end": 1.0},
        {"size": (0, 5)},
        {"size": (5, 5), "fit": "squeeze"},
        {"on_damage": "ignore"},
    ],
)
def test_requests_that_make_no_sense(write_numbered: WriteNumbered, wanted: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        read(write_numbered("film.mp4", ticks(4, 8)), **wanted)
