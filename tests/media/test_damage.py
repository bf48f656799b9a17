"""Damaged, truncated and wrong files: the readable part with a warning, or one line of error, as chosen."""

import os
import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numbered_films import numbered, numbers, write_film
from PIL import Image

from unireel.errors import UserError
from unireel.media.decode import read

WriteNumbered = Callable[..., Path]
STAMPS = [index / 8 for index in range(40)]
IN_ORDER = {"options": {"bf": "0"}}
FRONT_INDEX = IN_ORDER | {"container_options": {"movflags": "+faststart"}}
WEBM = {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "lag-in-frames": "0"}}


def place_of(path: Path, frame: int) -> tuple[int, int]:
    """Where in a file the data of one frame (counted in order of display) stands: first byte and length."""
    with av.open(str(path)) as container:
        packets = sorted((p for p in container.demux(video=0) if p.pts is not None), key=lambda p: p.pts or 0)
    place = packets[frame].pos
    assert place is not None
    return place, packets[frame].size


def cut(path: Path, frame: int) -> Path:
    """End a file in the middle of the data of one frame."""
    place, size = place_of(path, frame)
    path.write_bytes(path.read_bytes()[: place + size // 2])
    return path


def spoil(path: Path, frame: int) -> Path:
    """Overwrite the data of one frame with noise."""
    place, size = place_of(path, frame)
    content = bytearray(path.read_bytes())
    content[place : place + size] = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8).tobytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "kind"), [("film.mp4", FRONT_INDEX), ("film.webm", WEBM), ("film.mkv", IN_ORDER)]
)
def test_a_truncated_film_gives_its_readable_part(
    write_numbered: WriteNumbered, name: str, kind: dict[str, Any]
) -> None:
    path = cut(write_numbered(name, STAMPS, **kind), 25)
    with pytest.warns(
        UserWarning, match=r"film\.\w+: the file is damaged: it is cut off; 25 .*frames can be read"
    ):
        frames, rate = read(path)
    assert numbers(frames) == list(range(25))
    assert rate == 8.0
    with pytest.raises(UserError, match="is damaged: it is cut off") as caught:
        read(path, on_damage="error")
    assert "\n" not in str(caught.value)


def test_a_transport_stream_may_end_anywhere(write_numbered: WriteNumbered) -> None:
    path = cut(write_numbered("film.ts", STAMPS, **IN_ORDER), 25)
    frames, rate = read(path)
    assert numbers(frames)[:24] == list(range(24))
    assert (len(frames) in (24, 25, 26), rate) == (True, 8.0)


def test_what_lies_before_the_damage_is_read_without_complaint(write_numbered: WriteNumbered) -> None:
    path = cut(write_numbered("film.mp4", STAMPS, **FRONT_INDEX), 30)
    assert numbers(read(path, end=0.5, on_damage="error")[0]) == [0, 1, 2, 3]


def test_sampling_a_truncated_film_spreads_over_what_is_left(write_numbered: WriteNumbered) -> None:
    path = cut(write_numbered("film.mp4", STAMPS, **FRONT_INDEX), 20)
    with pytest.warns(UserWarning, match="damaged"):
        assert numbers(read(path, num_frames=4)[0]) == [0, 5, 10, 15]


def test_frames_that_come_out_of_order_leave_gaps_but_time_stays_true(write_numbered: WriteNumbered) -> None:
    path = cut(write_numbered("film.mkv", STAMPS), 25)
    with pytest.warns(UserWarning, match="damaged"):
        frames, rate = read(path)
    assert rate == 8.0
    assert all(found <= place for place, found in enumerate(numbers(frames)))
    assert numbers(frames) == sorted(numbers(frames))


@pytest.mark.parametrize("reads", [{}, {"num_frames": 20}])
def test_a_hole_is_left_out_and_time_stays_true(write_numbered: WriteNumbered, reads: dict[str, Any]) -> None:
    """Frames that refer to the spoilt one are not shown either; the film goes on at the next keyframe."""
    path = write_numbered("film.mp4", STAMPS, options={"g": "10", "bf": "0", "sc_threshold": "0"})
    spoil(path, 13)
    with pytest.warns(UserWarning, match="of 40 frames can be read"):
        found = numbers(read(path, **reads)[0])
    step = 40 // len(found)
    assert found == [i if not 13 <= i < 20 else 12 for i in range(0, 40, step)]


def test_nothing_readable_is_one_line(write_numbered: WriteNumbered) -> None:
    path = write_numbered("film.mp4", STAMPS[:10], options={"g": "1"})
    for frame in range(10):
        spoil(path, frame)
    with pytest.raises(UserError, match="no picture in it can be read"):
        read(path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.floats(0, 1),
    noise=st.binary(min_size=1, max_size=64),
    kind=st.sampled_from(["mp4", "webm", "gif"]),
)
@pytest.mark.filterwarnings("ignore:.*the file is damaged")
def test_whatever_is_wrong_with_a_file_there_are_frames_or_one_line(
    tmp_path: Path, place: float, noise: bytes, kind: str
) -> None:
    sound = tmp_path / f"sound.{kind}"
    if not sound.exists():
        frames = [numbered(number, 32, 32) for number in range(12)]
        settings_of = {"mp4": {}, "webm": WEBM, "gif": {"codec": "gif", "pix_fmt": "rgb8"}}
        write_film(sound, frames, STAMPS[:12], **settings_of[kind])
    content = bytearray(sound.read_bytes())
    start = int(place * len(content))
    content[start : start + len(noise)] = noise
    broken = tmp_path / f"broken.{kind}"
    broken.write_bytes(content)
    try:
        frames, rate = read(broken, size=(32, 32))
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert len(frames) >= 1
        assert rate > 0


def write_sound(path: Path) -> Path:
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(struct.pack("<800h", *range(800)))
    return path


def write_song_with_cover(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        voice = container.add_stream("aac", rate=8000)
        cover: Any = container.add_stream("png", rate=1)
        cover.height, cover.width, cover.pix_fmt = 16, 16, "rgb24"
        cover.disposition = Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(1, 16, 16), format="rgb24")))
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono"
        )
        sound.sample_rate = 8000
        container.mux(voice.encode(sound))
        container.mux(voice.encode(None))
    return path


def test_what_is_no_film_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("This is not a film.\n" * 200)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "half.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    os.mkfifo(tmp_path / "pipe.mp4")
    write_sound(tmp_path / "sound.wav")
    cases = {
        "missing.mp4": "no such file",
        "text.mp4": "not a video that can be read",
        "empty.mp4": "is empty",
        "folder": "holds no pictures",
        "half.png": "not a video that can be read",
        "pipe.mp4": "not a file",
        "sound.wav": "holds no video|not a video",
        "nul\0byte.mp4": "not a file name",
        "x" * 300: "File name too long",
        "text.mp4/film.mp4": "no such file",
    }
    for name, expected in cases.items():
        with pytest.raises(UserError, match=expected) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value), name
        assert name.split("\0")[0] in str(caught.value)


def test_a_song_with_a_cover_is_no_film(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no video"):
        read(write_song_with_cover(tmp_path / "song.mp4"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile '{}'\n"),
        ("list.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n"),
    ],
)
def test_a_play_list_opens_no_other_file(
    write_numbered: WriteNumbered, tmp_path: Path, name: str, content: str
) -> None:
    secret = write_numbered("secret.ts", STAMPS[:8])
    (tmp_path / name).write_text(content.format(secret.name))
    with pytest.raises(UserError, match="not a video that can be read"):
        read(tmp_path / name)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_broken_picture_is_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="picture"):
        read(path)
