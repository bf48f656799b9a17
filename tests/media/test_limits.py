"""Limits hold while decoding, whatever a header claims, and memory does not grow with a film."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numbered_films import numbered, numbers, write_film
from PIL import Image

from unireel.errors import UsageError, UserError
from unireel.media.decode import read
from unireel.media.limits import Limits
from unireel.media.timeline import by_decoding

WriteNumbered = Callable[..., Path]
STAMPS = [index / 8 for index in range(32)]
FRAME = 48 * 64 * 3


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.ts"])
@pytest.mark.parametrize(
    ("limits", "reads"),
    [
        (Limits(max_pixels=48 * 64 - 1), {}),
        (Limits(max_frames=31), {}),
        (Limits(max_frames=3), {"num_frames": 4}),
        (Limits(max_frames=100), {"fps": 1e12}),
        (Limits(max_duration=3.8), {}),
        (Limits(max_duration=3.8), {"num_frames": 2}),
        (Limits(max_bytes=32 * FRAME - 1), {}),
        (Limits(max_bytes=1000), {"num_frames": 1}),
        (Limits(max_bytes=8 * 10 * 10 * 3 - 1), {"num_frames": 8, "size": (10, 10)}),
        (Limits(max_pixels=50 * 70), {"size": (100, 100)}),
        (Limits(max_file_bytes=500), {}),
    ],
)
def test_what_is_above_a_limit_is_refused_and_the_limit_named(
    write_numbered: WriteNumbered, name: str, limits: Limits, reads: dict[str, Any]
) -> None:
    path = write_numbered(name, STAMPS)
    changed = next(f for f in Limits.__dataclass_fields__ if getattr(limits, f) != getattr(Limits(), f))
    with pytest.raises(UserError, match=changed) as caught:
        read(path, limits=limits, **reads)
    assert "\n" not in str(caught.value)


def test_exactly_the_limit_is_accepted(write_numbered: WriteNumbered) -> None:
    path = write_numbered("film.mp4", STAMPS)
    tight = Limits(
        max_pixels=48 * 64,
        max_frames=32,
        max_duration=4.0,
        max_bytes=32 * FRAME,
        max_file_bytes=path.stat().st_size,
    )
    assert len(read(path, limits=tight)[0]) == 32


def test_the_beginning_of_a_long_film_may_be_read(write_numbered: WriteNumbered) -> None:
    path = write_numbered("film.mp4", [index * 2.0 for index in range(20)])
    limits = Limits(max_duration=10)
    assert numbers(read(path, end=6.0, limits=limits)[0]) == [0, 1, 2]
    with pytest.raises(UserError, match="max_duration"):
        read(path, end=20.0, limits=limits)


def test_the_limit_of_duration_also_holds_when_packets_say_nothing(write_numbered: WriteNumbered) -> None:
    with pytest.raises(UserError, match="max_duration"):
        by_decoding(write_numbered("film.mp4", STAMPS), Limits(max_duration=2), None, None)


def test_stretched_and_turned_pictures_count_as_shown(write_numbered: WriteNumbered) -> None:
    path = write_numbered("film.mp4", STAMPS[:4], aspect=8)
    with pytest.raises(UserError, match="512x48"):
        read(path, limits=Limits(max_pixels=48 * 64 * 4))


def join_streams(path: Path, sizes: list[tuple[int, int]]) -> Path:
    """A raw H.264 stream whose pictures change size in the middle."""
    with path.open("wb") as joined:
        for height, width in sizes:
            part = path.with_name(f"part-{height}x{width}.h264")
            write_film(part, [numbered(n, height, width) for n in range(6)], STAMPS[:6], options={"g": "1"})
            joined.write(part.read_bytes())
    return path


def test_a_picture_that_grows_later_is_refused(tmp_path: Path) -> None:
    path = join_streams(tmp_path / "grows.h264", [(48, 64), (480, 640)])
    with pytest.raises(UserError, match="change size from 64x48 to 640x480"):
        read(path)
    assert read(path, size=(48, 64))[0].shape == (12, 48, 64, 3)
    limits = Limits(max_pixels=100 * 100)
    with pytest.raises(UserError, match="max_pixels"):
        read(path, size=(48, 64), limits=limits, on_damage="error")


def test_stamps_that_stand_still_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "still.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=8, options={"g": "1", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        picture = av.VideoFrame.from_ndarray(numbered(0, 16, 16), format="rgb24")
        picture.pts = 0
        packet = next(p for p in [*stream.encode(picture), *stream.encode(None)])
        data = bytes(packet)
        for number in range(1500):
            copy = av.Packet(data)
            copy.stream, copy.time_base = stream, packet.time_base
            copy.pts = copy.dts = number // 750
            copy.is_keyframe = True
            container.mux(copy)
    with pytest.raises(UserError, match="more than 1000 frames a second"):
        read(path)


def test_memory_does_not_grow_with_the_film(tmp_path: Path) -> None:
    frame = numbered(5, 120, 160)
    path = write_film(
        tmp_path / "long.mp4", [frame] * 300, [n / 24 for n in range(300)], options={"preset": "ultrafast"}
    )
    tracemalloc.start()
    few, _ = read(path, num_frames=4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert numbers(few) == [5] * 4
    assert peak < 12 * frame.nbytes


def test_a_bomb_of_a_picture_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    with pytest.raises(UserError, match="max_pixels"):
        read(tmp_path / "bomb.png", limits=Limits(max_pixels=1_000_000))


def test_a_folder_has_limits_too(tmp_path: Path) -> None:
    for number in range(5):
        Image.fromarray(np.full((8, 8, 3), number, dtype=np.uint8)).save(tmp_path / f"{number}.png")
    for limits, name in [
        (Limits(max_frames=4), "max_frames"),
        (Limits(max_pixels=63), "max_pixels"),
        (Limits(max_duration=4.5), "max_duration"),
        (Limits(max_file_bytes=50), "max_file_bytes"),
        (Limits(max_bytes=900), "max_bytes"),
    ]:
        with pytest.raises(UserError, match=name):
            read(tmp_path, fps=1, limits=limits)


@pytest.mark.parametrize("name", list(Limits.__dataclass_fields__))
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_is_above_zero(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=name):
        Limits(**{name: value})
