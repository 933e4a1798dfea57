"""http against real sockets: who may be asked, how much is read, how long it takes."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import ConfigError, EnvironmentFault
from agentrl.testing import check_tool
from agentrl.world import tools_of
from agentrl_tools.http import Http, is_public
from agentrl_tools.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


@contextlib.contextmanager
def server(talk: Callable[[socket.socket, bytes], None]) -> Generator[int]:
    """A server of one behaviour, which may be as rude as it likes; gives its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            talk(connection, connection.recv(65536))

    def accept() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        stop.set()
        with contextlib.suppress(OSError):
            socket.create_connection(listening.getsockname(), timeout=1).close()
        listening.close()
        thread.join(5)


def says(head: str, body: bytes = b"") -> Callable[[socket.socket, bytes], None]:
    def talk(connection: socket.socket, request: bytes) -> None:
        raw = head.replace("\n", "\r\n").encode() + b"\r\nConnection: close\r\n\r\n" + body
        connection.sendall(raw)

    return talk


def reader(port: int, **bounds: object) -> Http:
    given: dict[str, object] = {"private": True, "seconds": 5.0, **bounds}
    wire = Wire(attempts=2, pause=0.01)
    return Http([f"localhost:{port}"], wire=wire, **given)  # type: ignore[arg-type]  # a test's keywords


PAGE = "HTTP/1.1 200 OK\nContent-Type: text/html; charset=utf-8"


def test_a_page_is_read_as_text() -> None:
    with server(says(PAGE, b"<title>Tea</title><script>x</script><p>A hot <b>drink</b>.</p>")) as port:
        (found,) = tools_of(reader(port))
        check_tool(found, arguments=[{"url": f"http://localhost:{port}/tea#leaves"}]).raise_if_failed()
        assert found.call({"url": f"http://localhost:{port}/"}).text == "Tea\nA hot drink."


def test_the_host_is_sent_by_name_and_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    seen: list[bytes] = []

    def talk(connection: socket.socket, request: bytes) -> None:
        seen.append(request)
        says("HTTP/1.1 200 OK\nContent-Type: text/plain", b"ok")(connection, request)

    with server(talk) as port:
        assert reader(port).http(f"http://localhost:{port}/a?b=c").text == "ok"
    assert seen[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert f"host: localhost:{port}\r\n".encode() in seen[0].lower()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://evil.test/", "evil.test:80 is not allowed"),
        ("https://example.org:8443/", "example.org:8443 is not allowed"),
        ("http://example.org.evil.test/", "is not allowed"),
        ("http://user:secret@example.org/", "user name"),
        ("http://example.org@evil.test/", "user name|not allowed"),
        ("file:///etc/passwd", "no address"),
        ("gopher://example.org/", "no address"),
        ("example.org", "no address"),
        ("http://", "no address"),
        ("http://[::1", "Invalid|no address"),
        ("http://example.org:99999/", "[Pp]ort"),
    ],
)
def test_an_address_that_is_not_allowed_is_a_sentence(url: str, message: str) -> None:
    (found,) = tools_of(Http(["example.org"]))
    assert found.call({"url": url}).error is not None
    with pytest.raises(ValueError, match=message):
        Http(["example.org"]).http(url)


def test_private_addresses_are_refused_whatever_their_name() -> None:
    for host in ("localhost", "127.0.0.1", "0.0.0.0", "169.254.169.254", "10.0.0.1"):  # asked for
        with pytest.raises(ValueError, match="which is not public"):
            Http([f"{host}:80"]).http(f"http://{host}/")
    for address in (
        "::1",
        "fe80::1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "224.0.0.1",
        "192.168.0.1",
    ):
        assert not is_public(address)
    assert is_public("2606:4700:4700::1111")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("http://evil.test/", "not allowed"),
        ("file:///etc/passwd", "no address"),
        ("/x", "redirects more"),
    ],
)
def test_a_redirect_goes_through_the_same_door(target: str, message: str) -> None:
    found = says(f"HTTP/1.1 302 Found\nLocation: {target}\nContent-Length: 0")
    with server(found) as port, pytest.raises(ValueError, match=message):
        reader(port).http(f"http://localhost:{port}/")


def test_what_is_long_is_cut_and_what_is_no_text_is_not_shown() -> None:
    with server(says("HTTP/1.1 200 OK\nContent-Type: text/plain", b"x" * 3_000_000)) as port:
        text = reader(port, most_characters=100).http(f"http://localhost:{port}/").text
        assert text == "x" * 100 + "\n[the rest was cut]"
    with server(says("HTTP/1.1 200 OK\nContent-Type: image/png", b"\x89PNG")) as port:
        assert (
            reader(port).http(f"http://localhost:{port}/").error == "The page is image/png, which is no text."
        )
    with server(says("HTTP/1.1 404 Not Found\nContent-Length: 0")) as port:
        assert reader(port).http(f"http://localhost:{port}/").error == "The server answers with status 404."


def test_a_bomb_stays_small() -> None:
    bomb = gzip.compress(b"x" * 200_000_000)
    with server(says("HTTP/1.1 200 OK\nContent-Type: text/plain\nContent-Encoding: gzip", bomb)) as port:
        import tracemalloc

        tracemalloc.start()
        text = reader(port, most_bytes=100_000).http(f"http://localhost:{port}/").text
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert text.endswith("[the rest was cut]")
    assert peak < 5_000_000


def drips(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    for _ in range(100):
        connection.sendall(b"x")
        time.sleep(0.1)


def drips_headers(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(100):
        connection.sendall(f"X-{number}: y\r\n".encode())
        time.sleep(0.1)


def hangs(connection: socket.socket, request: bytes) -> None:
    time.sleep(10)


def resets(connection: socket.socket, request: bytes) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


FAULTS = {
    "one byte at a time": drips,
    "headers one at a time": drips_headers,
    "silence": hangs,
    "a reset": resets,
    "no HTTP": says("hello"),
    "less than promised": says("HTTP/1.1 200 OK\nContent-Length: 100", b"short"),
    "an encoding nobody asked for": says("HTTP/1.1 200 OK\nContent-Encoding: br", b"xx"),
    "broken gzip": says("HTTP/1.1 200 OK\nContent-Encoding: gzip", b"no gzip at all"),
    "a failing server": says("HTTP/1.1 500 Oops\nContent-Length: 0"),
}


@pytest.mark.parametrize("talk", FAULTS.values(), ids=FAULTS)
def test_a_failing_server_is_a_fault_in_time(talk: Callable[[socket.socket, bytes], None]) -> None:
    with server(talk) as port:
        begin = time.monotonic()
        with pytest.raises(EnvironmentFault):
            reader(port, seconds=0.4).http(f"http://localhost:{port}/")
        assert time.monotonic() - begin < 8  # two attempts of 0.4 s each, on a machine that is busy


def test_a_host_that_nobody_knows_is_a_fault() -> None:
    with pytest.raises(EnvironmentFault, match=r"cannot be looked up|did not answer within"):
        Http(["no-such-host.invalid"], seconds=5).http("http://no-such-host.invalid/")


@pytest.mark.parametrize("allow", [[], "example.org", ["http://example.org"], ["*"], ["a b"]])
def test_wrong_hosts_are_refused_at_the_door(allow: object) -> None:
    with pytest.raises(ConfigError):
        Http(allow)  # type: ignore[arg-type]  # wrong on purpose


def test_a_pattern_is_for_subdomains() -> None:
    tool = Http(["*.example.org"])
    with pytest.raises(ValueError, match="not allowed"):
        tool.http("http://example.org/")
    with pytest.raises(ValueError, match="not allowed"):
        tool.http("http://badexample.org/")
