"""Strangers' films and pictures: what comes out is what the media layer reads, or one refusal of the catalogue."""

import io
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from PIL import Image

from unireel.clip import Clip
from unireel.errors import UsageError
from unireel.serving.intake import CATALOGUE, Decoder, IntakeError, Limits, decoding, read_media
from unireel.serving.intake.wire import FRAMES, Answer, Ending, Request

LIMITS = Limits(decode_seconds=300)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder()
    decoder.start()
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def clip() -> Clip:
    """A small film with movement."""
    frames = np.full((17, 48, 64, 3), 40, dtype=np.uint8)
    for index, frame in enumerate(frames):
        frame[8:24, 2 * index : 2 * index + 16] = (230, 80, 30)
    return Clip(frames, 8.0)


@pytest.fixture(scope="module")
def files(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The film in every kind of file that this project writes, and pictures in the others that are accepted."""
    folder = tmp_path_factory.mktemp("files")
    files = {}
    for name in ("film.mp4", "film.webm", "film.gif"):
        files[name] = clip.save(folder / name).read_bytes()
    for kind in ("png", "jpeg", "webp"):
        buffer = io.BytesIO()
        clip.image().save(buffer, format=kind)
        files[f"picture.{kind}"] = buffer.getvalue()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    files["folder"] = str(folder).encode()
    return files


def refused(code: str, limits: Limits = LIMITS) -> Any:
    """A context in which an input must be refused with ``code`` and exactly the catalogue's words for it."""
    words = CATALOGUE[code].format(**vars(limits))
    return pytest.raises(IntakeError, check=lambda error: (error.code, error.message) == (code, words))


@pytest.mark.parametrize(
    "name", ["film.mp4", "film.webm", "film.gif", "picture.png", "picture.jpeg", "picture.webp"]
)
def test_what_comes_out_is_what_the_media_layer_reads(
    decoder: Decoder, files: dict[str, bytes], name: str
) -> None:
    wanted = Clip.load(Path(files["folder"].decode()) / name)
    film = decoder.read(files[name], LIMITS, "any")
    np.testing.assert_array_equal(film.frames, wanted.frames)
    assert film.fps == wanted.fps
    assert 10 * 2**20 < decoder.peak < 600 * 2**20


def test_frames_and_size_can_be_chosen(decoder: Decoder, files: dict[str, bytes]) -> None:
    path = Path(files["folder"].decode()) / "film.mp4"
    film = decoder.read(files["film.mp4"], LIMITS, num_frames=5, size=(24, 32))
    np.testing.assert_array_equal(film.frames, Clip.load(path, num_frames=5, size=(24, 32)).frames)
    picture = decoder.read(files["film.gif"], LIMITS, "image")
    assert len(picture) == 1


def test_films_from_elsewhere(decoder: Decoder, fixtures_dir: Path) -> None:
    for name in ("torchcodec_h265_10bits.mp4", "libwebm_bbb_480p_vp9_opus_1second.webm", "vebench_src.mp4"):
        path = fixtures_dir / "videos" / name
        film = decoder.read(path.read_bytes(), LIMITS, num_frames=3, size=(40, 60))
        np.testing.assert_array_equal(film.frames, Clip.load(path, num_frames=3, size=(40, 60)).frames)
    with refused("damaged"):
        decoder.read((fixtures_dir / "videos" / "decord_corrupted.mp4").read_bytes(), LIMITS, num_frames=3)


def test_many_at_once_do_not_mix(decoder: Decoder) -> None:
    def colour_of(number: int) -> int:
        buffer = io.BytesIO()
        Image.new("L", (16, 16), number).save(buffer, format="PNG")
        return int(decoder.read(buffer.getvalue(), LIMITS, "image").frames.mean())

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(colour_of, range(24))) == list(range(24))


def test_kinds_are_told_by_their_first_bytes(decoder: Decoder, files: dict[str, bytes]) -> None:
    for content, kind, code in [
        (b"", "any", "empty"),
        (b"just words, no film" * 9, "any", "unknown_format"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n", "any", "unknown_format"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "any", "unknown_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image", "unknown_format"),
        (b"BM" + bytes(60), "any", "unknown_format"),
        (files["picture.png"], "video", "not_a_video"),
        (files["film.mp4"], "image", "not_an_image"),
        (b"\0\0\0\x18ftypmp42" + bytes(100), "any", "damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "any", "damaged"),
        (b"\x1aE\xdf\xa3" + files["film.mp4"], "any", "damaged"),
        (files["film.mp4"][:-200], "any", "damaged"),
    ]:
        with refused(code):
            decoder.read(content, LIMITS, kind)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (Limits(max_bytes=500, decode_seconds=300), "too_many_bytes"),
        (Limits(max_pixels=48 * 64 - 1, decode_seconds=300), "too_many_pixels"),
        (Limits(max_frames=16, decode_seconds=300), "too_many_frames"),
        (Limits(max_seconds=1.9, decode_seconds=300), "too_long"),
    ],
)
def test_each_limit_has_its_code(
    decoder: Decoder, files: dict[str, bytes], limits: Limits, code: str
) -> None:
    with refused(code, limits):
        decoder.read(files["film.mp4"], limits)


def test_a_picture_that_only_claims_to_be_large_is_refused_at_once(decoder: Decoder) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack("!I", len(content)) + body + struct.pack("!I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack("!IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    with refused("too_many_pixels"):
        decoder.read(bomb, LIMITS, "image")


def write_still_film(path: Path, height: int, width: int, frames: int, codec: str = "libx264") -> bytes:
    """A film in which nothing moves: a few bytes a frame, however large."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=30, options={"preset": "ultrafast", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        black = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), dtype=np.uint8), format="rgb24")
        black = black.reformat(format="yuv420p")
        for index in range(frames):
            black.pts = index
            container.mux(stream.encode(black))
        container.mux(stream.encode(None))
    return path.read_bytes()


def test_films_that_unfold_stay_within_memory_and_time(decoder: Decoder, tmp_path: Path) -> None:
    decoder.peak = 0
    bomb = write_still_film(tmp_path / "bomb.mp4", 720, 1280, 90)
    assert len(bomb) < 60_000
    small = Limits(decode_memory=200 * 2**20, decode_seconds=300)
    with refused("too_large_decoded", small):
        decoder.read(bomb, small)
    film = decoder.read(bomb, small, num_frames=2, size=(48, 64))
    assert film.frames.shape == (2, 48, 64, 3)
    assert decoder.peak < 200 * 2**20 + 100 * 2**20
    short = Limits(decode_seconds=0.02)
    began = time.monotonic()
    with refused("decode_timeout", short):
        decoder.read(bomb, short)
    assert time.monotonic() - began < 20
    tight = Limits(decode_memory=2**20, decode_seconds=300)
    with pytest.raises(IntakeError) as caught:
        decoder.read(bomb, tight, num_frames=1)
    assert caught.value.code in ("too_large_decoded", "decode_failed", "damaged")


def test_a_codec_that_is_not_on_the_list_is_refused(decoder: Decoder, tmp_path: Path) -> None:
    film = write_still_film(tmp_path / "old.mp4", 48, 64, 4, codec="mpeg4")
    assert len(Clip.load(tmp_path / "old.mp4")) == 4
    with refused("unsupported_codec"):
        decoder.read(film, LIMITS)


def test_a_film_cannot_name_another_file(decoder: Decoder, clip: Clip, tmp_path: Path) -> None:
    """A QuickTime reference to a file that lies there is not followed."""
    clip.save(tmp_path / "secret.mp4")
    target = b"file://" + str(tmp_path / "secret.mp4").encode() + b"\0"
    content = (tmp_path / "secret.mp4").read_bytes()
    url = b"url " + struct.pack("!I", 0) + target
    reference = struct.pack("!I", len(url) + 4) + url
    where = content.index(b"url ") - 4
    moved = content[:where] + reference + content[where + 12 :]
    with pytest.raises(IntakeError):
        decoder.read(moved, LIMITS)


def test_nothing_is_left_behind(decoder: Decoder, files: dict[str, bytes]) -> None:
    decoder.read(files["picture.png"], LIMITS, "image")  # what only the first file opens
    process = decoder._process
    assert process is not None
    server, template = psutil.Process(), psutil.Process(process.pid)

    def settled() -> tuple[int, int]:
        """How many files both have open, once the last child is buried: its answer comes a moment before."""
        found, deadline = (0, 0), time.monotonic() + 10
        while time.monotonic() < deadline:
            last, found = found, (server.num_fds(), template.num_fds())
            if found == last and not template.children():
                break
            time.sleep(0.05)
        return found

    before = settled()
    for _ in range(5):
        decoder.read(files["picture.png"], LIMITS, "image")
        with refused("damaged"):
            decoder.read(files["film.mp4"][:-200], LIMITS)
    assert settled() == before
    assert template.children() == []


def test_the_decoder_comes_back_when_its_process_is_killed(files: dict[str, bytes]) -> None:
    decoder = Decoder(at_once=1)
    try:
        assert len(decoder.read(files["picture.png"], LIMITS, "any")) == 1
        assert decoder._process is not None
        decoder._process.kill()
        assert len(decoder.read(files["picture.png"], LIMITS, "any")) == 1
    finally:
        decoder.close()


def test_closing_does_not_wait_for_a_start() -> None:
    decoder, ended = Decoder(), []

    def start() -> None:
        with pytest.raises(ConnectionResetError):
            decoder.start()
        ended.append(True)

    starting = threading.Thread(target=start)
    starting.start()
    while (process := decoder._process) is None:
        time.sleep(0.001)
    decoder.close()
    starting.join(60)
    assert ended and process.returncode is not None, "killed while it was loading its libraries"
    assert decoder._process is None


def test_the_process_ends_when_the_server_is_killed(tmp_path: Path) -> None:
    code = (
        "import time\nfrom unireel.serving.intake import Decoder\nd = Decoder()\nd.start()\n"
        "print(d._process.pid, flush=True)\ntime.sleep(60)"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    template = psutil.Process(int(server.stdout.readline()))
    server.kill()
    server.wait()
    template.wait(timeout=60)


def test_inside_no_file_can_be_opened_nor_written_and_no_host_reached(tmp_path: Path) -> None:
    """Each wall by itself, in a process that says what it could still do."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    code = f"""
import os, resource, socket, sys
from unireel.serving.intake.walls import forbid_files, leave_network, limit_resources
away = leave_network()
limit_resources(64 * 2**20, 5)
held = away, forbid_files(readable=sys.path)
def tried(act):
    try:
        act()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "done"
free = os.memfd_create("x")
print(held, tried(lambda: open({str(secret)!r})), tried(lambda: open({str(tmp_path / "new")!r}, "w")),
      tried(lambda: socket.create_connection(("127.0.0.1", 9), timeout=2)), tried(lambda: bytearray(100 * 2**20)),
      tried(lambda: open(f"/dev/fd/{{free}}", "rb")), resource.getrlimit(resource.RLIMIT_CORE), sep="|")
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    held, read, write, connect, memory, own, core = done.stdout.strip().split("|")
    assert (memory, own, core) == ("MemoryError", "done", "(0, 0)")
    if held != "(True, True)":
        pytest.skip(f"this system does not allow all walls: {held}")
    assert (read, write, connect) == ("PermissionError", "PermissionError", "OSError")


def test_a_decoder_that_lies_is_not_believed() -> None:
    """What a process that was taken over might send is checked before room is made for it."""
    request = Request(0, 0, 0, 0, 10**6, 10**4, 10, 10.0, 1.0, 10**6)

    def outcome(sent: bytes, how: str = "done") -> Clip | str:
        (answers, its_answers), (endings, its_endings) = socket.socketpair(), socket.socketpair()
        with answers, endings, its_endings:
            with its_answers:
                its_answers.sendall(sent)
            its_endings.sendall(Ending(how, 1).pack())
            return decoding._receive(answers, endings, request, time.monotonic() + 2)[0]

    true = Answer(FRAMES, 1, 2, 2, 8.0).pack() + bytes(12)
    assert isinstance(outcome(true), Clip)
    assert outcome(true, "decode_timeout") == "decode_timeout"
    for lie in (
        b"",
        b"\x80\x04pickle" * 20,
        true[:-1],
        Answer(FRAMES, 11, 2, 2, 8.0).pack() + bytes(132),
        Answer(FRAMES, 1, 101, 100, 8.0).pack() + bytes(30300),
        Answer(FRAMES, 10, 2**31, 2**31, 8.0).pack(),
        Answer(FRAMES, 0, 2, 2, 8.0).pack(),
        Answer(FRAMES, 1, 2, 2, float("nan")).pack() + bytes(12),
        Answer(FRAMES, 1, 2, 2, 0.0).pack() + bytes(12),
        true[:4] + b"\xff" + true[5:],
    ):
        assert outcome(lie) == "decode_failed"


def test_wrong_settings_are_one_line(clip: Clip) -> None:
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: Limits(max_bytes=0), "max_bytes"),
        (lambda: Limits(decode_seconds=float("nan")), "decode_seconds"),
        (lambda: Limits(remote=("Example.org",)), "Example.org"),
        (lambda: Limits(remote=("https://example.org",)), "https://example.org"),
        (lambda: Decoder(at_once=0), "at_once"),
        (lambda: read_media(b"x", LIMITS, "film"), "film"),  # pyright: ignore[reportArgumentType]
        (lambda: read_media(b"GIF89a", LIMITS, num_frames=0), "num_frames"),
        (lambda: read_media(b"GIF89a", LIMITS, size=(0, 4)), "size"),
    ]
    for act, word in wrong:
        with pytest.raises(UsageError, match=word):
            act()
