"""HTTP with bounds: a deadline for the whole exchange, a cap on what is read, and retries that back off."""

from __future__ import annotations

import random
import time
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agentrl.errors import EnvironmentFault, as_sentence
from agentrl.world.deadline import within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import httpx

BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may pass."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server sent.

    Attributes:
        body: at most as many bytes as were allowed, decompressed; `cut`: whether there was more.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool = False


@dataclass
class Wire:
    """Exchanges requests under bounds.

    Args:
        seconds: for one whole exchange, headers and body, however slowly they come.
        most_bytes: of the decompressed body.
        attempts: how often a request is sent that failed on the way or met a busy server.
        pause: seconds before the second attempt, doubled for each one after; half of it is drawn at random.
        transport: of httpx, for tests and proxies of the user's own.

    Raises:
        EnvironmentFault: from `send`: time was up, the connection failed, or the server stayed busy.
    """

    seconds: float = 20.0
    most_bytes: int = 4_000_000
    attempts: int = 3
    pause: float = 0.5
    transport: httpx.BaseTransport | None = None
    _client: httpx.Client | None = field(default=None, init=False, repr=False)
    _noise: random.Random = field(default_factory=lambda: random.Random(0), init=False, repr=False)

    def send(self, method: str, url: str, **content: object) -> Answer:
        """Send a request that may be repeated without harm, and return what came back.

        Args:
            content: `json`, `headers`, `extensions`, as `httpx.Client.build_request` takes them.
        """
        failure = EnvironmentFault("")
        asked: str | None = None
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(self._pause(attempt, asked))
            try:
                answer = self._exchange(method, url, content)
            except EnvironmentFault as fault:
                failure, asked = fault, None
                continue
            if answer.status not in BUSY:
                return answer
            failure = EnvironmentFault(f"{_place(url)} answered with status {answer.status}.")
            asked = answer.headers.get("retry-after")
        if self.attempts == 1:
            raise failure
        raise EnvironmentFault(f"{self.attempts} attempts failed; the last one: {failure}")

    def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def __deepcopy__(self, memo: dict[int, object]) -> Wire:
        return Wire(self.seconds, self.most_bytes, self.attempts, self.pause, self.transport)

    def __reduce__(self) -> tuple[Callable[..., Wire], tuple[object, ...]]:
        return Wire, (self.seconds, self.most_bytes, self.attempts, self.pause, self.transport)

    def _pause(self, attempt: int, asked: str | None) -> float:
        """Seconds before the next attempt: what the server asked for, or twice those before, with noise."""
        if asked is not None and asked.isdecimal():
            return min(float(asked), self.seconds)
        longest: float = self.pause * 2 ** (attempt - 1)
        return min(longest, self.seconds) * (0.5 + self._noise.random() / 2)

    def _exchange(self, method: str, url: str, content: Mapping[str, object]) -> Answer:
        import httpx

        client = self._open()
        try:
            found = within(lambda: self._read(client, method, url, content), self.seconds, _place(url))
        except EnvironmentFault:
            # A connection that was left half-way is not used again; closing it ends the thread that reads.
            self.close()
            raise
        except httpx.HTTPError as error:
            said = as_sentence(f"{type(error).__name__}: {error}")
            raise EnvironmentFault(f"{_place(url)} cannot be reached: {said}") from error
        if not isinstance(found, Answer):
            raise TypeError(found)  # a defect of this module
        return found

    def _open(self) -> httpx.Client:
        import httpx

        if self._client is None:
            # Proxies from the environment would take requests past the checks of addresses. No connection is
            # kept: one that a server has dropped in the meantime looks like a failure of the next request.
            self._client = httpx.Client(
                timeout=self.seconds,
                trust_env=False,
                transport=self.transport,
                limits=httpx.Limits(max_keepalive_connections=0),
            )
        return self._client

    def _read(self, client: httpx.Client, method: str, url: str, content: Mapping[str, object]) -> Answer:
        given = dict(content)
        headers = {"accept-encoding": "gzip", **dict(given.pop("headers", {}) or {})}  # type: ignore[call-overload]  # httpx checks it
        request = client.build_request(method, url, headers=headers, **given)  # type: ignore[arg-type]  # as above
        response = client.send(request, stream=True)
        try:
            body, cut = _bounded(_plain(response), self.most_bytes, time.monotonic() + self.seconds)
        finally:
            response.close()
        return Answer(response.status_code, dict(response.headers), body, cut)


def _plain(response: httpx.Response) -> Iterator[bytes]:
    """Yield the body in pieces of at most 64 KiB, decompressed: a small bomb never becomes a large one."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        yield from response.iter_raw()
        return
    if encoding not in {"gzip", "deflate"}:
        raise EnvironmentFault(f"the server sends the encoding {encoding!r}, which nobody asked for")
    unpack = zlib.decompressobj(wbits=47 if encoding == "gzip" else 15)
    try:
        for piece in response.iter_raw():
            rest = piece
            while rest:
                yield unpack.decompress(rest, 65536)
                rest = unpack.unconsumed_tail
    except zlib.error as error:
        raise EnvironmentFault(f"the server sends {encoding} that cannot be read: {error}") from error


def _bounded(pieces: Iterator[bytes], most: int, until: float) -> tuple[bytes, bool]:
    found = bytearray()
    for piece in pieces:
        found += piece
        if len(found) > most:
            return bytes(found[:most]), True
        if time.monotonic() > until:
            raise EnvironmentFault("the server sends too slowly")
    return bytes(found), False


def _place(url: str) -> str:
    """Host and port, which is what a wrong address has wrong most often."""
    import httpx

    return httpx.URL(url).netloc.decode() or url
