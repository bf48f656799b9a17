"""Thousands of broken films and pictures for the server's intake: no crash, no hang, no memory above the cap.

``python benchmarks/media_fuzz.py --count 5000 --seed 0``. Sound files of every accepted kind are made from a clip of
the World; each broken one is made from them by a seeded generator, so that a failure can be made again from its number.
"""

import argparse
import io
import os
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np

from unireel.clip import Clip
from unireel.serving.intake import Decoder, IntakeError, Limits
from unireel.world.render import render
from unireel.world.sampling import sample_scene

LIMITS = Limits(
    max_bytes=2**20,
    max_pixels=512 * 512,
    max_frames=200,
    max_seconds=30,
    decode_seconds=5,
    decode_memory=256 * 2**20,
)
RESIDENT = 128 * 2**20
"""Bytes that the program itself has resident in a decoding process before it sees a file."""

ALARMING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""Values at which counts and sizes overflow."""


@dataclass
class Tally:
    """What came of it.

    Attributes:
        outcomes: how often a file was read or refused with which code.
        slowest, peak: seconds and resident bytes of the worst file.
        worst: numbers of the files that gave a crash, a hang or too much memory, with what it was.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    peak: int = 0
    worst: list[tuple[int, str]] = field(default_factory=list)


def sound_files() -> list[bytes]:
    """One small clip as mp4 (H.264, H.265, AV1), webm (VP8, VP9), mkv, gif, PNG, JPEG and WebP."""
    os.environ.setdefault("SVT_LOG", "1")  # errors only
    clip = render(sample_scene(seed=0, index=0))
    files = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("film.mp4", "film.webm", "film.gif"):
            files.append(clip.save(Path(folder) / name).read_bytes())
        for codec, suffix in (
            ("libx265", "mp4"),
            ("libsvtav1", "mp4"),
            ("libvpx", "webm"),
            ("libx264", "mkv"),
        ):
            files.append(_encoded(clip, Path(folder) / f"{codec}.{suffix}", codec))
    for kind in ("PNG", "JPEG", "WEBP"):
        buffer = io.BytesIO()
        clip.image().save(buffer, format=kind)
        files.append(buffer.getvalue())
    return files


def _encoded(clip: Clip, path: Path, codec: str) -> bytes:
    """``clip``, enlarged to what every encoder takes, coded with ``codec``."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=8)
        stream.height = stream.width = 96
        stream.pix_fmt = "yuv420p"
        for frame in clip.resized(96, 96):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path.read_bytes()


def broken(files: list[bytes], seed: int, number: int) -> bytes:
    """The broken file of a number: one to three mutations of one of ``files``."""
    draw = np.random.default_rng((seed, number))
    content = bytearray(files[draw.integers(len(files))])
    for _ in range(draw.integers(1, 4)):
        _MUTATIONS[draw.integers(len(_MUTATIONS))](content, draw, files)
    return bytes(content)


def _flip_bits(content: bytearray, draw: np.random.Generator, files: list[bytes]) -> None:
    for place in draw.integers(len(content), size=draw.integers(1, 33)) if content else ():
        content[place] ^= 1 << int(draw.integers(8))


def _truncate(content: bytearray, draw: np.random.Generator, files: list[bytes]) -> None:
    del content[int(draw.integers(len(content) + 1)) :]


def _splice(content: bytearray, draw: np.random.Generator, files: list[bytes]) -> None:
    """Put a piece of any file over, or between, this one's bytes."""
    other = files[draw.integers(len(files))]
    start, length = int(draw.integers(len(other))), int(draw.integers(1, 2000))
    place = int(draw.integers(len(content) + 1))
    content[place : place + (length if draw.random() < 0.5 else 0)] = other[start : start + length]


def _overwrite_field(content: bytearray, draw: np.random.Generator, files: list[bytes]) -> None:
    """Put an alarming number where headers stand: near the beginning, near the end, or behind a box's name."""
    width = int(draw.choice([1, 2, 4, 8]))
    value = int(draw.choice(ALARMING)) & (256**width - 1)
    names = [place for name in (b"mdhd", b"stsz", b"stco", b"stts", b"stsd", b"trak", b"tkhd", b"IHDR", b"avcC")
             if (place := content.find(name)) >= 0]  # fmt: skip
    near = [0, max(0, len(content) - 600), *names]
    place = int(draw.choice(near) + draw.integers(600 if len(near) == 2 else 48))
    content[place : place + width] = value.to_bytes(width, "little" if draw.random() < 0.3 else "big")


def _repeat(content: bytearray, draw: np.random.Generator, files: list[bytes]) -> None:
    start = int(draw.integers(len(content) + 1))
    piece = content[start : start + int(draw.integers(1, 500))]
    content[start:start] = piece * int(draw.integers(1, 20))


def _zero(content: bytearray, draw: np.random.Generator, files: list[bytes]) -> None:
    start, length = int(draw.integers(len(content) + 1)), int(draw.integers(1, 200))
    content[start : start + length] = bytes(len(content[start : start + length]))


_MUTATIONS = (_flip_bits, _flip_bits, _truncate, _splice, _overwrite_field, _overwrite_field, _repeat, _zero)


def fuzz(count: int, seed: int, progress: int = 0) -> Tally:
    """Give ``count`` broken files to a decoder and tally what comes of them; ``progress`` prints every so many."""
    files = sound_files()
    tally, decoder = Tally(), Decoder()
    try:
        for file in files:
            decoder.read(
                file, LIMITS, "any"
            )  # all of them are sound: what is refused later is so for its damage
        for number in range(count):
            _one(broken(files, seed, number), number, decoder, tally)
            if progress and (number + 1) % progress == 0:
                print(f"{number + 1} of {count}: {dict(tally.outcomes)}", flush=True)
    finally:
        decoder.close()
    return tally


def _one(content: bytes, number: int, decoder: Decoder, tally: Tally) -> None:
    began = time.monotonic()
    decoder.peak = 0
    try:
        clip = decoder.read(content, LIMITS, "any")
        outcome = "read"
        assert len(clip) <= LIMITS.max_frames
        assert clip.height * clip.width <= LIMITS.max_pixels
    except IntakeError as error:
        outcome = error.code
    seconds = time.monotonic() - began
    tally.outcomes[outcome] += 1
    tally.slowest, tally.peak = max(tally.slowest, seconds), max(tally.peak, decoder.peak)
    if outcome == "decode_failed":
        tally.worst.append((number, "the decoding process crashed"))
    if seconds > LIMITS.decode_seconds + 3:
        tally.worst.append((number, f"it took {seconds:.1f} s"))
    if decoder.peak > RESIDENT + LIMITS.decode_memory:
        tally.worst.append((number, f"{decoder.peak / 2**20:.0f} MiB were resident"))


def main() -> None:
    """Run it and print the tally; exit code 1 if anything crashed, hung or grew too large."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()
    tally = fuzz(args.count, args.seed, progress=500)
    print(f"{args.count} files in {time.monotonic() - began:.0f} s: {dict(tally.outcomes.most_common())}")
    print(f"slowest {tally.slowest:.2f} s, largest {tally.peak / 2**20:.0f} MiB resident")
    for number, what in tally.worst:
        print(f"file {number}: {what}")
    raise SystemExit(bool(tally.worst))


if __name__ == "__main__":
    main()
