"""Which kind of file this is: by its first bytes, never by its name or by what the client says."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["video", "image", "any"]
"""What a caller wants: a film, a picture, or either."""

HEAD = 16
"""Bytes from the beginning that decide."""


@dataclass(frozen=True)
class Container:
    """A kind of file that is accepted.

    Attributes:
        demuxer: FFmpeg's name of the one format it is read as; ``None`` for what Pillow reads.
        film, picture: which kinds of :data:`Kind` it serves as (a gif is both; as a picture it is its first frame).
    """

    demuxer: str | None
    film: bool
    picture: bool


ISO = Container("mov", film=True, picture=False)
MATROSKA = Container("matroska", film=True, picture=False)
GIF = Container("gif", film=True, picture=True)
STILL = Container(None, film=False, picture=True)

CONTAINERS = (ISO, MATROSKA, GIF, STILL)

DECODERS = ("h264", "hevc", "vp8", "vp9", "libdav1d", "av1", "gif")
"""FFmpeg's decoders that may be used: those in daily use, which are tested by the most hostile files."""


def recognise(head: bytes) -> Container | None:
    """The kind of file that begins with ``head``, or ``None``."""
    if head[4:8] == b"ftyp":
        return ISO
    if head.startswith(b"\x1aE\xdf\xa3"):
        return MATROSKA
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return GIF
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    if webp or head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        return STILL
    return None
