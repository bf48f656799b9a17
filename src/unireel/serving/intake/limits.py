"""What a stranger's film or address may cost us."""

from dataclasses import dataclass, fields

from unireel.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """The largest input that a server accepts; what is above is refused before or while it is worked on.

    Attributes:
        max_bytes: of a file, as uploaded, fetched, or decoded from a data URL.
        max_pixels: height times width of one picture.
        max_frames: frames that come out of a film.
        max_seconds: how long a film lasts.
        decode_seconds: wall-clock and processor seconds for decoding one file.
        decode_memory: bytes that decoding one file may take beside the program itself; half of it is what the frames
            may fill.
        fetch_seconds: wall-clock seconds for fetching one address, redirects included.
        remote: hosts that may be fetched from over https: ``"media.example.org"``, ``"*.example.org"`` (every host
            below it), ``"media.example.org:8443"`` (another port than 443), ``"*"`` (every public host). Empty:
            nothing is fetched.

    Raises:
        UsageError: a number is not above 0, or a host is not written as above.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 3840 * 2160
    max_frames: int = 600
    max_seconds: float = 120.0
    decode_seconds: float = 20.0
    decode_memory: int = 2**30
    fetch_seconds: float = 20.0
    remote: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "remote" and not (value > 0 and value < 2**63):
                raise UsageError(f"{field.name}={value}: a limit must be above 0 (and below 2^63)")
        for host in self.remote:
            if not host or host != host.strip().lower() or "/" in host or "@" in host:
                raise UsageError(
                    f"remote host {host!r}: write a name in lower case, such as media.example.org"
                )
