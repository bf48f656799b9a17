"""Addresses that strangers name: nothing on this machine or its network is ever asked, whatever they try."""

import base64
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unireel.serving.intake import CATALOGUE, IntakeError, Limits, fetching, resolve
from unireel.serving.intake.addresses import is_listed, is_public
from unireel.serving.intake.fetching import Fetcher, look_up

PUBLIC = "93.184.215.14"
HOST = "media.example.org"


def refused(code: str) -> Any:
    """A context in which an address must be refused with ``code`` and the catalogue's words, nothing else."""
    return pytest.raises(
        IntakeError,
        check=lambda error: error.code == code and error.message.split()[:3] == CATALOGUE[code].split()[:3],
    )


@dataclass
class House:
    """A web server on the loopback that counts what reaches it: connections, and requests."""

    port: int
    answer: Callable[[http.server.BaseHTTPRequestHandler], None]
    connections: int = 0
    requests: list[str] = field(default_factory=list)
    servers: list[http.server.ThreadingHTTPServer] = field(default_factory=list)

    def reset(self, answer: Callable[[http.server.BaseHTTPRequestHandler], None] | None = None) -> None:
        self.connections, self.requests = 0, []
        if answer is not None:
            self.answer = answer


def send(
    content: bytes, status: int = 200, **headers: str
) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    """What answers every request with ``content``."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"Content_Length": str(len(content))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for every name and address that the tests use."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    names = f"subjectAltName=DNS:{HOST},DNS:localhost,IP:127.0.0.1,IP:::1,IP:{PUBLIC}"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    )
    subprocess.run(
        [*command.split(), "-addext", names, "-keyout", str(path), "-out", f"{path}.crt"],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture(scope="module")
def trusting(certificate: Path) -> ssl.SSLContext:
    """TLS that trusts the tests' certificate, and only that."""
    return ssl.create_default_context(cafile=f"{certificate}.crt")


@pytest.fixture(scope="module")
def house(certificate: Path) -> Iterator[House]:
    house = House(0, send(b"film"))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            house.requests.append(self.path)
            house.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def process_request(self, request: Any, client_address: Any) -> None:
            house.connections += 1
            super().process_request(request, client_address)

        def handle_error(self, *_: object) -> None:
            pass  # clients that are cut off in the middle are what is tested here

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        kind = type("Server", (Server,), {"address_family": family})
        try:
            server = kind((address, house.port), Handler)
        except OSError:
            continue  # a machine without IPv6
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        house.port = house.port or server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        house.servers.append(server)
    yield house
    for server in house.servers:
        server.shutdown()
        server.server_close()


def everywhere(port: int) -> Limits:
    """A server that would fetch from any public host, at the house's port."""
    return Limits(max_bytes=1000, fetch_seconds=60, remote=(f"*:{port}",))


def fetcher(house: House, trusting: ssl.SSLContext, answers: list[list[str]] | None = None) -> Fetcher:
    """A fetcher to whom the house is a public host: names have ``answers``, and the public address leads there."""
    told = iter(answers or [[PUBLIC]] * 10)

    def dial(address: str, port: int, seconds: float) -> socket.socket:
        assert address == PUBLIC, f"dialled {address}, which was never checked"
        return fetching.dial("127.0.0.1", house.port, seconds)

    return Fetcher(look_up=lambda host, port: next(told), dial=dial, context=trusting)


LOCAL_HOSTS = [
    "127.0.0.1",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "0",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:0001]",
    "[::127.0.0.1]",
    "[2002:7f00:1::]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::127.0.0.1]",
]


@pytest.mark.parametrize("host", LOCAL_HOSTS)
def test_no_way_of_writing_this_machine_reaches_it(house: House, trusting: ssl.SSLContext, host: str) -> None:
    house.reset()
    with pytest.raises(IntakeError) as caught:
        Fetcher(context=trusting).resolve(f"https://{host}:{house.port}/", everywhere(house.port))
    assert caught.value.code in ("address_not_allowed", "bad_url", "fetch_failed")
    assert (house.connections, house.requests) == (0, [])


def test_the_counter_counts(house: House, trusting: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check of addresses the very same requests arrive: what is tested above is that check."""
    monkeypatch.setattr(fetching, "is_public", lambda address: True)
    house.reset(send(b"film"))
    for host in ("127.0.0.1", "localhost"):
        limits = everywhere(house.port)
        assert Fetcher(context=trusting).resolve(f"https://{host}:{house.port}/", limits) == b"film"
    assert (house.connections, house.requests) == (2, ["/", "/"])


NOT_PUBLIC = """
127.0.0.1 127.255.255.254 0.0.0.0 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1
192.0.0.8 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
192.88.99.1 ::1 :: ::ffff:8.8.8.8 ::ffff:127.0.0.1 ::8.8.8.8 64:ff9b::808:808 64:ff9b:1::1 2001::1 2001:db8::1
2002:808:808:: fc00::1 fd00:ec2::254 fe80::1 fe80::1%1 2606:4700::1%eth0 fec0::1 ff02::1 100::1 5f00::1
::ffff:0:127.0.0.1 2130706433 localhost nonsense 127.1 0x7f000001
"""


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", PUBLIC, "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001::200e"]
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_never_public(address: Any) -> None:
    packed = int(address)
    high, low = packed >> 16, packed & 0xFFFF
    for wrapped in (
        f"::ffff:{address}",
        f"::{high:x}:{low:x}",
        f"64:ff9b::{high:x}:{low:x}",
        f"2002:{high:x}:{low:x}::1",
        f"2001:0:{high:x}:{low:x}::1",
    ):
        assert not is_public(wrapped)


def test_a_public_host_that_is_listed_is_fetched(house: House, trusting: ssl.SSLContext) -> None:
    house.reset(send(b"a film"))
    url = f"https://{HOST}:{house.port}/a/film.mp4?size=1#part"
    limits = Limits(fetch_seconds=60, remote=(f"{HOST}:{house.port}",))
    assert fetcher(house, trusting).resolve(url, limits) == b"a film"
    assert house.requests == ["/a/film.mp4?size=1"]


def test_a_name_is_resolved_once_and_what_was_checked_is_dialled(
    house: House, trusting: ssl.SSLContext
) -> None:
    """Rebinding: the second answer, this machine, is never asked for."""
    house.reset(send(b"film"))
    url = f"https://{HOST}:{house.port}/"
    assert fetcher(house, trusting, [[PUBLIC], ["127.0.0.1"]]).resolve(url, everywhere(house.port)) == b"film"
    for answers in ([PUBLIC, "127.0.0.1"], ["10.0.0.1", PUBLIC], ["169.254.169.254"], [PUBLIC, "::1"]):
        house.reset()
        with refused("address_not_allowed"):
            fetcher(house, trusting, [answers]).resolve(url, everywhere(house.port))
        assert house.connections == 0
    with refused("fetch_failed"):
        fetcher(house, trusting, [[]]).resolve(url, everywhere(house.port))


def redirecting(*places: str) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    remaining = iter(places)

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        place = next(remaining, None)
        (send(b"film") if place is None else send(b"", 302, Location=place))(handler)

    return answer


def test_redirects_begin_again(house: House, trusting: ssl.SSLContext) -> None:
    start = f"https://{HOST}:{house.port}/"
    limits = everywhere(house.port)
    house.reset(redirecting("/second", f"https://{HOST}:{house.port}/third"))
    assert fetcher(house, trusting).resolve(start, limits) == b"film"
    assert house.requests == ["/", "/second", "/third"]
    for place, answers, code in [
        (f"http://{HOST}:{house.port}/", [[PUBLIC]], "bad_url"),
        (f"https://127.0.0.1:{house.port}/", [[PUBLIC], ["127.0.0.1"]], "address_not_allowed"),
        (f"https://{HOST}:{house.port}/", [[PUBLIC], ["127.0.0.1"]], "address_not_allowed"),
        (f"https://{HOST}:22/", [[PUBLIC]] * 2, "host_not_allowed"),
        (f"https://user@{HOST}:{house.port}/", [[PUBLIC]] * 2, "bad_url"),
        ("file:///etc/hostname", [[PUBLIC]], "bad_url"),
        ("data:text/plain;base64,eA==", [[PUBLIC]], "bad_url"),
        ("//[::1]/", [[PUBLIC], ["::1"]], "host_not_allowed"),
    ]:
        house.reset(redirecting(place))
        with refused(code):
            fetcher(house, trusting, answers).resolve(start, limits)
        assert house.connections == 1, place
    house.reset(redirecting(*["/again"] * 9))
    with refused("too_many_redirects"):
        fetcher(house, trusting).resolve(start, limits)
    assert house.connections == 4


def test_hosts_that_are_not_listed_are_not_even_resolved(house: House, trusting: ssl.SSLContext) -> None:
    limits = Limits(remote=(HOST, "*.cdn.example.org"))

    def never(host: str, port: int) -> list[str]:
        raise AssertionError(f"{host} was looked up")

    for host in (
        "example.org",
        "evil-media.example.org",
        "cdn.example.org",
        f"{HOST}.evil.example",
        f"{HOST}:8443",
    ):
        with refused("host_not_allowed"):
            Fetcher(look_up=never, context=trusting).resolve(f"https://{host}/", limits)
    with refused("remote_disabled"):
        Fetcher(look_up=never).resolve(f"https://{HOST}/", Limits())
    assert is_listed("a.cdn.example.org", 443, limits.remote)
    assert is_listed("[2606:4700::1]", 8443, ("[2606:4700::1]:8443",))
    assert not is_listed("[2606:4700::1]", 443, ("[2606:4700::1]:8443",))


AMBIGUOUS = """
http://media.example.org/ ftp://media.example.org/ file:///etc/hostname gopher://x/ https:///x https://
https:media.example.org https://user@media.example.org/ https://user:word@media.example.org/
https://media.example.org:99999/ https://media.example.org:0/ https://media.example.org:-1/
https://media.example.org\\@127.0.0.1/ https://127.0.0.1#@media.example.org/ https://media%2eexample.org/
https://media.example.org:443:80/ https://[::1 https://[::1%25lo]/ https://127。0。0。1/ https://ⓛocalhost/
javascript:x data: data:,x data:text/plain,x data:;base64 data:;base64,*** data:;base64,eA=
"""
WITH_BLANKS = [
    "https://media.example.org/a b",
    "https://media.example.org/\r\nHost: x",
    " https://x.org/",
    "",
]


@pytest.mark.parametrize("url", [*AMBIGUOUS.split(), *WITH_BLANKS, "https://media.example.org/" + "a" * 9000])
def test_addresses_that_two_readers_could_read_differently(url: str) -> None:
    def never(host: str, port: int) -> list[str]:
        if host == "127.0.0.1":
            return ["127.0.0.1"]
        raise AssertionError(f"{host} was looked up")

    with pytest.raises(IntakeError) as caught:
        Fetcher(look_up=never).resolve(url, Limits(remote=("*",)))
    assert caught.value.code == ("address_not_allowed" if "#@" in url else "bad_url")


def test_what_a_host_sends_is_bounded(house: House, trusting: ssl.SSLContext) -> None:
    url, limits = f"https://{HOST}:{house.port}/", everywhere(house.port)

    def chunks(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(100_000):
            handler.wfile.write(b"64\r\n" + bytes(100) + b"\r\n")

    def endless_headers(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 10_000)

    for answer, code in [
        (send(bytes(1001)), "too_many_bytes"),
        (send(b"", Content_Length="999999999999"), "too_many_bytes"),
        (chunks, "too_many_bytes"),
        (send(b"half", Content_Length="8"), "fetch_failed"),
        (send(b"x", Content_Encoding="gzip"), "fetch_failed"),
        (send(b"secret of the host", 404), "fetch_failed"),
        (send(b"", 302), "fetch_failed"),
        (endless_headers, "fetch_failed"),
        (lambda handler: handler.wfile.write(b"\0\xff not http\r\n\r\n") and None, "fetch_failed"),
    ]:
        house.reset(answer)
        with refused(code):
            fetcher(house, trusting).resolve(url, limits)
    house.reset(send(bytes(1000)))
    assert len(fetcher(house, trusting).resolve(url, limits)) == 1000


def test_a_host_that_drips_is_cut_off(house: House, trusting: ssl.SSLContext) -> None:
    limits = Limits(fetch_seconds=0.5, remote=(f"*:{house.port}",))
    done = threading.Event()

    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not done.wait(0.05):
            handler.wfile.write(b"x")

    house.reset(drip)
    began = time.monotonic()
    try:
        with refused("fetch_timeout"):
            fetcher(house, trusting).resolve(f"https://{HOST}:{house.port}/", limits)
        assert time.monotonic() - began < 20
        slow = Fetcher(look_up=lambda host, port: [PUBLIC] if done.wait(120) else [])
        with refused("fetch_timeout"):
            slow.resolve(f"https://{HOST}:{house.port}/", limits)
        assert time.monotonic() - began < 40
    finally:
        done.set()


def test_a_certificate_must_be_right(house: House, trusting: ssl.SSLContext) -> None:
    house.reset(send(b"film"))
    with refused("fetch_failed"):
        fetcher(house, trusting).resolve(f"https://other.example.org:{house.port}/", everywhere(house.port))
    with refused("fetch_failed"):
        fetcher(house, ssl.create_default_context()).resolve(
            f"https://{HOST}:{house.port}/", everywhere(house.port)
        )
    assert house.requests == []


def test_data_addresses() -> None:
    content = bytes(range(256))
    text = base64.b64encode(content).decode()
    for head in ("data:video/mp4;base64,", "data:;base64,", "DATA:video/mp4;codecs=avc1.42E01E;BASE64,"):
        assert resolve(head + text, Limits()) == content
    assert resolve("data:;base64," + text, Limits(max_bytes=256)) == content
    for size in (255, 10):
        with refused("too_many_bytes"):
            resolve("data:;base64," + text, Limits(max_bytes=size))


def test_the_system_resolver_is_asked_for_every_address() -> None:
    assert "127.0.0.1" in look_up("localhost", 443)
    assert look_up("[::1]", 443) == ["::1"]
