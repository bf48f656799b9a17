"""Why an input is refused: a fixed catalogue, so that nothing a file or a stranger's server says reaches a client."""

from unireel.errors import UserError
from unireel.serving.intake.limits import Limits

CATALOGUE = {
    "empty": "the file is empty",
    "too_many_bytes": "the file is larger than the {max_bytes:,} bytes that are accepted",
    "unknown_format": "not a film or picture that is accepted: mp4, mov, webm, mkv, gif, png, jpeg, webp",
    "not_a_video": "a film is needed (mp4, mov, webm, mkv, gif), not a picture",
    "not_an_image": "a picture is needed (png, jpeg, webp, gif), not a film",
    "unsupported_codec": "the film is coded in a way that is not accepted; accepted are H.264, H.265, VP8, VP9, AV1 and"
    " gif",
    "too_many_pixels": "pictures of more than {max_pixels:,} pixels are not accepted",
    "too_many_frames": "films of more than {max_frames:,} frames are not accepted",
    "too_long": "films of more than {max_seconds:g} seconds are not accepted",
    "too_large_decoded": "decoded, the film or picture takes more memory than is accepted",
    "damaged": "the file is damaged or cut off, or is not what it claims to be",
    "decode_timeout": "decoding takes longer than the {decode_seconds:g} seconds that are accepted",
    "decode_failed": "the file cannot be decoded",
    "bad_url": "not an address that is accepted: data:...;base64,... or https://...",
    "remote_disabled": "this server fetches nothing; send the file itself or a data: URL",
    "host_not_allowed": "this server does not fetch from that host",
    "address_not_allowed": "that host has an address that is not public",
    "too_many_redirects": "the address is redirected too often",
    "fetch_failed": "the address cannot be fetched",
    "fetch_timeout": "fetching takes longer than the {fetch_seconds:g} seconds that are accepted",
}
"""Every code with its message; the only figures in one are the server's own limits."""


class IntakeError(UserError):
    """A film, a picture or an address that is refused.

    Attributes:
        code: one of :data:`CATALOGUE`.
        message: its message, one line.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def refusal(code: str, limits: Limits) -> IntakeError:
    """The error of ``code`` as a server with these limits words it."""
    return IntakeError(code, CATALOGUE[code].format(**vars(limits)))
