"""The bytes behind an address that a stranger names: in the address itself, or fetched from a host that is allowed.

What a server fetches for strangers it fetches with its own rights, from its own place in the network. So: nothing but
https, only listed hosts, and only public addresses; a name is resolved once, and what was checked is what is dialled;
every redirect begins again; bytes and time are bounded while they run.
"""

import base64
import binascii
import contextlib
import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from unireel.serving.intake.addresses import is_listed, is_public
from unireel.serving.intake.limits import Limits
from unireel.serving.intake.refusals import IntakeError, refusal

MAX_URL = 8192
"""Characters of an https address."""

MAX_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 2**16

# Parameters of the media type are skipped: clients know little about the files they send.
_DATA_URL = re.compile(r"data:[\w.+/;=-]{0,200}?;base64,", re.IGNORECASE)

# What RFC 3986 allows in an address; a host is a name or a literal in brackets, without user or percent signs.
_HTTPS_URL = re.compile(
    r"https://(?P<host>[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?P<rest>[/?#][!-~]*)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Target:
    """An https address taken apart: ``host`` in lower case without its last dot, ``path`` with the query."""

    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        """The whole address again."""
        return f"https://{self.host}:{self.port}{self.path}"


def look_up(host: str, port: int) -> list[str]:
    """All addresses that the system's resolver has for ``host``. Raises ``OSError`` if it has none."""
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


def dial(address: str, port: int, seconds: float) -> socket.socket:
    """A TCP connection to a numeric address. Raises ``OSError`` if there is none within ``seconds``."""
    return socket.create_connection((address, port), timeout=seconds)


class Fetcher:
    """Fetches what strangers name; :func:`resolve` does with the parts below as they are.

    Args:
        look_up: from (host, port) to all its numeric addresses; asked once for each hop.
        dial: from (numeric address, port, seconds) to a connection.
        context: of TLS; certificates are checked against the host's name.
    """

    def __init__(
        self,
        look_up: Callable[[str, int], list[str]] = look_up,
        dial: Callable[[str, int, float], socket.socket] = dial,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._look_up = look_up
        self._dial = dial
        self._context = context

    def resolve(self, url: str, limits: Limits) -> bytes:
        """As :func:`resolve`."""
        if url[:5].lower() == "data:":
            return from_data_url(url, limits)
        target = parse(url, limits)
        if not limits.remote:
            raise refusal("remote_disabled", limits)
        deadline = time.monotonic() + limits.fetch_seconds
        for _ in range(MAX_REDIRECTS + 1):
            content = self._hop(target, limits, deadline)
            if isinstance(content, bytes):
                return content
            target = parse(urljoin(target.url, content), limits)
        raise refusal("too_many_redirects", limits)

    def _hop(self, target: Target, limits: Limits, deadline: float) -> bytes | str:
        """The content behind one address, or where it sends us."""
        if not is_listed(target.host, target.port, limits.remote):
            raise refusal("host_not_allowed", limits)
        address = self._checked_address(target, limits, deadline)
        try:
            # Time-outs of a socket count from byte to byte; a host that drips is cut off from outside, by a second
            # handle, as TLS takes the first.
            with self._dial(address, target.port, _left(deadline)) as plain, plain.dup() as handle:
                cut = threading.Timer(_left(deadline), _cut, [handle])
                cut.start()
                try:
                    return self._talk(plain, target, limits)
                except IntakeError:
                    _left(deadline)  # cut off, it looks like whatever the host was about to say
                    raise
                finally:
                    cut.cancel()
        except (OSError, http.client.HTTPException, ValueError) as error:
            late = isinstance(error, TimeoutError) or time.monotonic() >= deadline
            raise refusal("fetch_timeout" if late else "fetch_failed", limits) from None

    def _checked_address(self, target: Target, limits: Limits, deadline: float) -> str:
        """The one address that will be dialled; refuses a name any of whose addresses is not public."""
        found: list[str] = []

        def ask() -> None:
            with contextlib.suppress(OSError, UnicodeError):  # no address: said below
                found.extend(self._look_up(target.host, target.port))

        # The system's resolver cannot be interrupted, but need not be waited for.
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(max(0.0, deadline - time.monotonic()))
        if asking.is_alive():
            raise refusal("fetch_timeout", limits)
        addresses = list(found)
        if not addresses:
            raise refusal("fetch_failed", limits)
        if not all(is_public(address) for address in addresses):
            raise refusal("address_not_allowed", limits)
        return addresses[0]

    def _talk(self, plain: socket.socket, target: Target, limits: Limits) -> bytes | str:
        """Ask one host for one thing over TLS."""
        context = self._context or ssl.create_default_context()
        name = target.host.strip("[]")
        with context.wrap_socket(plain, server_hostname=name) as connection:
            client = http.client.HTTPSConnection(target.host, target.port)
            client.sock = connection
            client.request("GET", target.path, headers={"Accept-Encoding": "identity", "Connection": "close"})
            response = client.getresponse()
            if response.status in _REDIRECTS and response.headers.get("Location"):
                return response.headers["Location"]
            if response.status != 200 or response.headers.get("Content-Encoding", "identity") != "identity":
                raise refusal("fetch_failed", limits)
            return _content(response, limits)


def _content(response: http.client.HTTPResponse, limits: Limits) -> bytes:
    """The body, as long as it stays within the limit; one whose end nothing marks cannot be told from half of it."""
    promised = response.length
    if promised is None and not response.chunked:
        raise refusal("fetch_failed", limits)
    if promised is not None and promised > limits.max_bytes:
        raise refusal("too_many_bytes", limits)
    content = bytearray()
    while part := response.read1(_CHUNK):
        content += part
        if len(content) > limits.max_bytes:
            raise refusal("too_many_bytes", limits)
    if promised is not None and len(content) != promised:
        raise refusal("fetch_failed", limits)
    return bytes(content)


def _left(deadline: float) -> float:
    """Seconds until ``deadline``. Raises ``TimeoutError`` after it."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended by itself
        connection.shutdown(socket.SHUT_RDWR)


def parse(url: str, limits: Limits) -> Target:
    """Take an https address apart; refuses whatever two readers could read differently."""
    match = _HTTPS_URL.fullmatch(url) if len(url) <= MAX_URL else None
    port = int((match and match["port"]) or 443)
    if match is None or not 1 <= port <= 65535:
        raise refusal("bad_url", limits)
    split = urlsplit(url)
    host = match["host"].lower().removesuffix(".")
    if split.hostname is None or split.hostname.removesuffix(".") != host.strip("[]") or not host:
        raise refusal("bad_url", limits)
    return Target(host, port, (split.path or "/") + (f"?{split.query}" if split.query else ""))


def from_data_url(url: str, limits: Limits) -> bytes:
    """The bytes that a ``data:...;base64,`` address holds; their number is known before they are decoded."""
    match = _DATA_URL.match(url)
    if match is None:
        raise refusal("bad_url", limits)
    if (len(url) - match.end()) * 3 // 4 > limits.max_bytes + 2:
        raise refusal("too_many_bytes", limits)
    try:
        content = base64.b64decode(url[match.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise refusal("bad_url", limits) from None
    if len(content) > limits.max_bytes:
        raise refusal("too_many_bytes", limits)
    return content


_fetcher = Fetcher()


def resolve(url: str, limits: Limits) -> bytes:
    """The bytes behind a ``data:`` address, or behind an ``https:`` one if its host is among ``limits.remote``.

    Blocks until done: call it in a thread.

    Raises:
        IntakeError: it is refused; see :data:`~unireel.serving.intake.refusals.CATALOGUE`.
    """
    return _fetcher.resolve(url, limits)
