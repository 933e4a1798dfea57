"""`http`: reads pages of hosts that the user allowed; private addresses only when told to."""

from __future__ import annotations

import html.parser
import ipaddress
import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urljoin, urlsplit

from agentrl.errors import ConfigError, EnvironmentFault
from agentrl.world.deadline import within
from agentrl.world.tool import ToolResult, tool
from agentrl_tools.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentrl_tools.wire import Answer

PORTS: Final = {"http": 80, "https": 443}
MOVED: Final = frozenset({301, 302, 303, 307, 308})
_TRANSLATED: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
"""IPv6 addresses that a gateway turns into IPv4 ones, private ones too."""


@dataclass
class Http:
    """Fetches text over HTTP and HTTPS.

    The name of a host is looked up once for each request, all its addresses are checked, and the connection
    goes to one that was checked, so a name that changes its mind between check and use gains nothing.
    Redirects go through the same door.

    Args:
        allow: hosts, such as "en.wikipedia.org", "*.example.org" (not the domain itself) or
            "localhost:8000"; a host without a port means the port of its scheme.
        private: whether private, loopback and link-local addresses may be reached.
        most_characters: of what the agent reads; `most_bytes`: of a body; `seconds`: for one request.
        redirects: how many are followed.
        wire: the bounds in one; made from the others by default.

    Raises:
        ConfigError: nothing is allowed, or an entry is no host.
    """

    allow: Sequence[str]
    private: bool = False
    most_characters: int = 8000
    most_bytes: int = 1_000_000
    seconds: float = 15.0
    redirects: int = 3
    wire: Wire = field(default_factory=Wire, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.allow, str) or not self.allow:
            raise ConfigError(
                f'the http tool needs hosts, such as allow=["en.wikipedia.org"]; got {self.allow!r}.'
            )
        for entry in self.allow:
            if not re.fullmatch(r"(\*\.)?[A-Za-z0-9.-]+(:\d{1,5})?", entry):
                raise ConfigError(
                    f"{entry!r} is no host; write one such as 'example.org' or 'localhost:8000'."
                )
        self.wire = Wire(
            self.seconds, self.most_bytes, self.wire.attempts, self.wire.pause, self.wire.transport
        )

    @tool
    def http(self, url: str) -> ToolResult:
        """Read a web page as text.

        Args:
            url: the whole address, beginning with http:// or https://
        """
        for _ in range(self.redirects + 1):
            answer = self._get(urlsplit(url.strip()))
            target = answer.headers.get("location")
            if answer.status not in MOVED or target is None:
                return self._shown(answer)
            url = urljoin(url, target)
        raise ValueError(f"the page redirects more than {self.redirects} times")

    def _get(self, url: SplitResult) -> Answer:
        host, port = self._checked(url)
        address = self._address(host, port)
        written = f"[{address}]" if ":" in address else address
        netloc = host if port == PORTS[url.scheme] else f"{host}:{port}"
        target = url._replace(netloc=f"{written}:{port}", fragment="").geturl()
        return self.wire.send(
            "GET",
            target,
            headers={"host": netloc, "accept": "text/html, text/plain, application/json;q=0.9, */*;q=0.1"},
            extensions={"sni_hostname": host},
        )

    def _checked(self, url: SplitResult) -> tuple[str, int]:
        """Return host and port of an address that is allowed."""
        if url.scheme not in PORTS or not url.hostname:
            raise ValueError(f"{url.geturl()[:80]!r} is no address; write one that begins with https://")
        if url.username is not None or url.password is not None:
            raise ValueError("an address with a user name is not allowed")
        host, port = url.hostname.rstrip(".").lower(), url.port or PORTS[url.scheme]
        if not any(_fits(host, port, PORTS[url.scheme], entry) for entry in self.allow):
            raise ValueError(f"{host}:{port} is not allowed; allowed are {', '.join(self.allow)}")
        return host, port

    def _address(self, host: str, port: int) -> str:
        """Look a host up and return an address that may be reached."""
        try:
            found = within(
                lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM),
                self.seconds,
                "the look-up of a host",
            )
        except OSError as error:
            raise EnvironmentFault(f"the host {host} cannot be looked up: {error}") from error
        addresses = [str(entry[4][0]) for entry in found]  # type: ignore[attr-defined]  # what getaddrinfo gives
        refused = [address for address in addresses if not (self.private or is_public(address))]
        if refused or not addresses:
            raise ValueError(f"{host} has the address {', '.join(refused) or 'none'}, which is not public")
        return addresses[0]

    def _shown(self, answer: Answer) -> ToolResult:
        if answer.status >= 400:
            message = f"The server answers with status {answer.status}."
            return ToolResult(message, error=message)
        kind = answer.headers.get("content-type", "text/plain")
        if not re.match(r"\s*(text/|application/([\w.+-]*\+)?(json|xml))", kind, re.IGNORECASE):
            message = f"The page is {kind.partition(';')[0].strip()}, which is no text."
            return ToolResult(message, error=message)
        text = _decoded(answer.body, kind)
        text = readable(text) if "html" in kind.lower() else text
        cut = answer.cut or len(text) > self.most_characters
        return ToolResult(f"{text[: self.most_characters]}\n[the rest was cut]" if cut else text)


def is_public(address: str) -> bool:
    """Return whether an address is one of the public internet, looking through translated IPv6 forms.

    >>> [
    ...     is_public(item)
    ...     for item in ("1.1.1.1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::a00:1")
    ... ]
    [True, False, False, False, False]
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is not None:
            return is_public(str(inner))
        if any(found in network for network in _TRANSLATED):
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def _fits(host: str, port: int, usual: int, entry: str) -> bool:
    name, _, wanted = entry.lower().partition(":")
    if port != (int(wanted) if wanted else usual):
        return False
    return host.endswith(name[1:]) and host != name[2:] if name.startswith("*.") else host == name


def _decoded(body: bytes, kind: str) -> str:
    named = re.search(r"charset=[\"']?([\w.:-]{1,40})", kind, re.IGNORECASE)
    try:
        return body.decode(named[1] if named else "utf-8", errors="replace")
    except LookupError:
        return body.decode("utf-8", errors="replace")


class _Text(html.parser.HTMLParser):
    """Collects what a reader would see."""

    unseen: Final = frozenset({"script", "style", "noscript", "template", "svg"})
    blocks: Final = frozenset(
        {"p", "br", "div", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "title", "section"}
    )

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.hidden += tag in self.unseen
        if tag in self.blocks:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.hidden = max(self.hidden - (tag in self.unseen), 0)

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.pieces.append(data)


def readable(page: str) -> str:
    r"""Return the visible text of an HTML page, one block in each line.

    >>> readable("<title>Tea</title><script>x()</script><p>A <b>drink</b>.</p>")
    'Tea\nA drink.'
    """
    parser = _Text()
    parser.feed(page)
    lines = (" ".join(line.split()) for line in "".join(parser.pieces).split("\n"))
    return "\n".join(line for line in lines if line)
