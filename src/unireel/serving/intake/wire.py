"""What the server and its decoding processes say to each other: records of fixed size, checked field by field.

The server sends a :class:`Request` with three descriptors: the file, and two sockets. On the first the decoding process
puts one :class:`Answer` and, if it is ``"frames"``, ``F * H * W * 3`` bytes; on the second, which it does not have, the
process that started it puts one :class:`Ending`.
"""

import struct
from dataclasses import astuple, dataclass
from typing import ClassVar

from unireel.serving.intake.refusals import CATALOGUE

READY = b"r"
"""What the process that decoding ones are forked from says when it can take requests."""

FRAMES = "frames"
CODES = (FRAMES, *CATALOGUE)
ENDINGS = ("done", "decode_timeout", "decode_failed")


class WireError(Exception):
    """A record that is not as it should be."""


@dataclass(frozen=True)
class Request:
    """What to decode and how much of it.

    Attributes:
        container: place in :data:`~unireel.serving.intake.containers.CONTAINERS`.
        num_frames: frames to take, evenly spread; 0 for all.
        height, width: to resize to; 0 for as it is.
        max_bytes, max_pixels, max_frames, max_seconds, decode_seconds, decode_memory: as in
            :class:`~unireel.serving.intake.limits.Limits`.
    """

    container: int
    num_frames: int
    height: int
    width: int
    max_bytes: int
    max_pixels: int
    max_frames: int
    max_seconds: float
    decode_seconds: float
    decode_memory: int

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("!BIIIQQQddQ")

    def pack(self) -> bytes:
        """The record."""
        return self.LAYOUT.pack(*astuple(self))

    @classmethod
    def unpack(cls, record: bytes | bytearray) -> "Request":
        """From a record."""
        return cls(*cls.LAYOUT.unpack(record))


@dataclass(frozen=True)
class Answer:
    """What came of it: ``code`` :data:`FRAMES` with their shape and rate, or a code of the catalogue."""

    code: str
    frames: int = 0
    height: int = 0
    width: int = 0
    fps: float = 0.0

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("!4sBIIId")
    MAGIC: ClassVar[bytes] = b"answ"

    def pack(self) -> bytes:
        """The record."""
        return self.LAYOUT.pack(
            self.MAGIC, CODES.index(self.code), self.frames, self.height, self.width, self.fps
        )

    @classmethod
    def unpack(cls, record: bytes | bytearray) -> "Answer":
        """From a record. Raises :class:`WireError` if it is none."""
        magic, code, frames, height, width, fps = cls.LAYOUT.unpack(record)
        if magic != cls.MAGIC or code >= len(CODES):
            raise WireError
        return cls(CODES[code], frames, height, width, fps)


@dataclass(frozen=True)
class Ending:
    """How a decoding process ended, and the largest memory that it had resident, in bytes."""

    how: str
    peak: int

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("!BQ")

    def pack(self) -> bytes:
        """The record."""
        return self.LAYOUT.pack(ENDINGS.index(self.how), self.peak)

    @classmethod
    def unpack(cls, record: bytes | bytearray) -> "Ending":
        """From a record."""
        how, peak = cls.LAYOUT.unpack(record)
        return cls(ENDINGS[how], peak)
