"""How much a file may make us read, decode and hold: checked from its header and again while decoding."""

from dataclasses import dataclass, fields

from unireel.errors import UsageError, UserError


class AboveLimit(UserError):
    """An input that is above a limit; ``limit`` is the name of the field of :class:`Limits`."""

    def __init__(self, limit: str, message: str) -> None:
        super().__init__(message)
        self.limit = limit


@dataclass(frozen=True)
class Limits:
    """What input is accepted; what is not raises an :class:`AboveLimit` that names the limit.

    The defaults suit one person's own films on one machine; a server that takes strangers' files sets smaller
    ones.

    Attributes:
        max_pixels: height times width of one picture, as stored and as shown (default one 8K picture).
        max_frames: frames returned, after sampling.
        max_duration: seconds of the film read, from its own time stamps, not from what its header claims.
        max_bytes: bytes of the frames returned, ``F * H * W * 3`` after resizing.
        max_file_bytes: size of the file, or of all pictures of a folder.
        container: FFmpeg's name of the one format that a film is read as, whatever it looks like (such as
            ``"mov"`` or ``"matroska"``); ``None`` lets its contents choose among all that are known.
        decoders: FFmpeg's names of the decoders that may be used; ``None`` for all.

    Raises:
        UsageError: a limit is not above 0, or names nothing.
    """

    max_pixels: int = 8192 * 4320
    max_frames: int = 20_000
    max_duration: float = 6 * 3600.0
    max_bytes: int = 8 * 2**30
    max_file_bytes: int = 64 * 2**30
    container: str | None = None
    decoders: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.startswith("max_"):
                if not value > 0:
                    raise UsageError(f"{field.name}={value}: a limit must be above 0")
            elif value is not None and not (isinstance(value, str | tuple) and value):
                raise UsageError(f"{field.name}={value!r}: None, or names that FFmpeg knows")

    def check_picture(self, name: str, height: int, width: int) -> None:
        """Refuse a picture of more than ``max_pixels``."""
        if height < 1 or width < 1:
            raise UserError(f"{name}: its pictures have no size ({width}x{height})")
        if height * width > self.max_pixels:
            raise AboveLimit(
                "max_pixels",
                f"{name}: pictures of {width}x{height} are above the limit of {self.max_pixels:,} pixels"
                " (max_pixels); scale the film down first",
            )

    def check_frames(self, name: str, count: int, height: int, width: int) -> None:
        """Refuse more than ``max_frames`` frames or ``max_bytes`` bytes of ``height x width`` pictures."""
        if count > self.max_frames:
            raise AboveLimit(
                "max_frames",
                f"{name}: {count:,} frames are above the limit of {self.max_frames:,} (max_frames);"
                " take fewer with num_frames, fps, start or end",
            )
        size = count * height * width * 3
        if size > self.max_bytes:
            raise AboveLimit(
                "max_bytes",
                f"{name}: {count:,} frames of {width}x{height} need {_readable(size)}, above the limit of"
                f" {_readable(self.max_bytes)} (max_bytes); take fewer frames or a smaller size",
            )

    def check_duration(self, name: str, seconds: float) -> None:
        """Refuse a film longer than ``max_duration`` seconds."""
        if seconds > self.max_duration:
            raise AboveLimit(
                "max_duration",
                f"{name}: it lasts more than {self.max_duration:g} s, the limit (max_duration); cut it first",
            )

    def check_file(self, name: str, size: int) -> None:
        """Refuse a file of more than ``max_file_bytes``."""
        if size > self.max_file_bytes:
            raise AboveLimit(
                "max_file_bytes",
                f"{name}: {_readable(size)} on disk is above the limit of {_readable(self.max_file_bytes)}"
                " (max_file_bytes)",
            )

    def check_decoder(self, name: str, decoder: str) -> None:
        """Refuse a decoder that is not among ``decoders``."""
        if self.decoders is not None and decoder not in self.decoders:
            raise AboveLimit(
                "decoders", f"{name}: films of the kind {decoder} are not read (decoders); convert it first"
            )


DEFAULT_LIMITS = Limits()


def _readable(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"
