"""HTTP calls that end: deadlines, retries with jitter, capped bodies, several servers that may fail.

Every call has one deadline for all of its attempts. What may pass (a lost connection, 429, 5xx, a body
that is no JSON) is tried again, on another server where there is one; what will not (401, 404, a redirect)
is `ServerRefused` at once.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import random
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from agentrl.errors import ConfigError, ServerRefused, ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

_logger = logging.getLogger(__name__)

PASSING: Final = frozenset({408, 409, 425, 429})
"""Statuses below 500 that may pass."""

_SHOWN: Final = 300
"""Characters of a server's own words that an error repeats."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often one call is tried.

    Attributes:
        total_seconds: deadline of a call, waiting and all attempts included.
        connect_seconds, read_seconds: longest silence while connecting and between two pieces of a body.
        attempts: most tries; the pause before a new one starts at `pause_seconds`, doubles up to
            `longest_pause_seconds`, and is shortened at random by up to a half.
        most_bytes: longest body that is read, after decompression.
        rest_after: failures in a row after which a server is left alone for `rest_seconds`.
    """

    total_seconds: float = 120.0
    connect_seconds: float = 10.0
    read_seconds: float = 60.0
    attempts: int = 6
    pause_seconds: float = 0.25
    longest_pause_seconds: float = 10.0
    most_bytes: int = 32 << 20
    rest_after: int = 3
    rest_seconds: float = 5.0

    def __post_init__(self) -> None:
        for name in ("total_seconds", "connect_seconds", "read_seconds", "attempts", "most_bytes"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; give a number above 0.")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered: the JSON value, which server, after how many tries, in how many seconds."""

    value: object
    url: str
    attempts: int
    seconds: float


@dataclass
class _Pool:
    """The connections to one server, and how many calls are using them."""

    client: httpx.AsyncClient
    calls: int = 0
    retired: bool = False


@dataclass
class _Server:
    """One server as this event loop knows it."""

    url: str
    pool: _Pool
    failures: int = 0
    rests_until: float = 0.0


@dataclass
class _Loop:
    """What belongs to one event loop: connections and waiting lines cannot move to another."""

    loop: asyncio.AbstractEventLoop
    gate: asyncio.Semaphore
    servers: list[_Server]
    next_slot: float = 0.0


class _Failed(Exception):  # control flow between attempts, never shown
    """One attempt failed in a way that may pass."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class Servers:
    """Some servers that offer one API.

    Calls of one `sticky` name prefer one server, whose caches may know it; they move on when it fails.

    Args:
        urls: base addresses, such as "http://127.0.0.1:8000/v1".
        patience: deadlines and retries.
        concurrency: most calls under way at the same time, over all servers.
        per_minute: most calls that begin within a minute; 0 sets no bound.
        headers: sent with every call. They are secret: no error and no `repr` shows them.

    Raises:
        ConfigError: an address is not http(s), or carries a password.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        patience: Patience | None = None,
        concurrency: int = 64,
        per_minute: float = 0.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.urls = tuple(_checked(url) for url in urls)
        if not self.urls:
            raise ConfigError("no server was named; give an address such as http://127.0.0.1:8000/v1.")
        if concurrency < 1 or per_minute < 0:
            raise ConfigError(
                f"concurrency is {concurrency} and per_minute {per_minute}; give at least 1, and 0 or more."
            )
        self.patience = patience or Patience()
        self.concurrency = concurrency
        self.per_minute = per_minute
        self._headers = dict(headers or {})
        self._secrets = [value.removeprefix("Bearer ") for value in self._headers.values() if len(value) > 8]
        self._jitter = random.Random()
        self._state: _Loop | None = None

    def __repr__(self) -> str:
        return f"Servers({', '.join(self.urls)})"

    async def get(self, path: str) -> Answer:
        """Do as `post`, without a body."""
        return await self._call("GET", path, None, "")

    async def post(self, path: str, content: object, *, sticky: str = "") -> Answer:
        """Send `content` as JSON to one of the servers and return the JSON value that it answers.

        The call must be safe to repeat.

        Raises:
            ServerRefused: a server answered with a status that no repetition mends.
            ServerUnavailable: no attempt succeeded before the deadline.
        """
        return await self._call("POST", path, json.dumps(content).encode(), sticky)

    async def aclose(self) -> None:
        """Close all connections of this event loop; the next call opens new ones."""
        state, self._state = self._state, None
        if state is None or state.loop is not asyncio.get_running_loop():
            return
        for server in state.servers:
            await server.pool.client.aclose()

    # -- attempts ----------------------------------------------------------------------------------------

    async def _call(self, method: str, path: str, body: bytes | None, sticky: str) -> Answer:
        state, began = self._here(), time.monotonic()
        tried: list[str] = []
        clock = asyncio.timeout(self.patience.total_seconds)
        try:
            async with clock, state.gate:
                return await self._attempts(state, method, path, body, sticky, began, tried)
        except TimeoutError as error:
            if not clock.expired():
                raise
            raise self._unavailable(
                path, f"the deadline of {self.patience.total_seconds:g} s passed", tried
            ) from error

    async def _attempts(
        self, state: _Loop, method: str, path: str, body: bytes | None, sticky: str, began: float,
        tried: list[str],
    ) -> Answer:  # fmt: skip
        for attempt in range(self.patience.attempts):
            await self._slot(state)
            server = self._choose(state, sticky, attempt)
            try:
                value = await self._once(server, method, path, body)
            except _Failed as failed:
                tried.append(f"{server.url}: {failed}")
                if attempt + 1 < self.patience.attempts:
                    await self._pause(attempt, failed.wait, path, began, tried)
                continue
            server.failures = 0
            return Answer(value, server.url, attempt + 1, time.monotonic() - began)
        raise self._unavailable(path, f"{self.patience.attempts} attempts failed", tried)

    async def _once(self, server: _Server, method: str, path: str, body: bytes | None) -> object:
        import httpx

        try:
            status, headers, text = await self._exchange(server, method, path, body)
        except (httpx.HTTPError, httpx.StreamError, zlib.error) as error:
            failed = _Failed(f"{type(error).__name__}: {error}".rstrip(": "))
            self._count_failure(server, failed)
            raise failed from error
        if status >= 500 or status in PASSING:
            failed = _Failed(f"status {status}: {self._words(text)}", _retry_after(headers))
            self._count_failure(server, failed)
            raise failed
        if status >= 300:
            where = f" to {headers['location']}" if "location" in headers else ""
            raise ServerRefused(
                f"{server.url}{path} answered with status {status}{where}: {self._words(text)}", status
            )
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            failed = _Failed(f"it answered something that is no JSON: {self._words(text)}")
            self._count_failure(server, failed)
            raise failed from error

    async def _exchange(
        self, server: _Server, method: str, path: str, body: bytes | None
    ) -> tuple[int, httpx.Headers, bytes]:
        pool = server.pool
        pool.calls += 1
        try:
            async with pool.client.stream(method, path, content=body) as response:
                text = await self._read(response)
        except asyncio.CancelledError:
            # A call that was cut off may leave its connection half closed: later calls take new ones.
            if not pool.retired:
                pool.retired, server.pool = True, self._pool(server.url)
            raise
        finally:
            pool.calls -= 1
            if pool.retired and not pool.calls:
                await pool.client.aclose()
        return response.status_code, response.headers, text

    async def _read(self, response: httpx.Response) -> bytes:
        """The body, decompressed, up to the cap: what is beyond it is never held."""
        most, encoding = self.patience.most_bytes, response.headers.get("content-encoding", "identity")
        if encoding not in {"identity", "gzip", "deflate"}:
            raise _Failed(f"it answered in the encoding {encoding!r}, which was not asked for")
        expand = None if encoding == "identity" else zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        text = bytearray()
        async for chunk in response.aiter_raw():
            text += chunk if expand is None else expand.decompress(chunk, most + 1 - len(text))
            if len(text) > most:
                raise _Failed(f"its answer is longer than {most} bytes")
        return bytes(text)

    # -- servers and pauses ------------------------------------------------------------------------------

    def _here(self) -> _Loop:
        loop = asyncio.get_running_loop()
        if self._state is None or self._state.loop is not loop:
            servers = [_Server(url, self._pool(url)) for url in self.urls]
            self._state = _Loop(loop, asyncio.Semaphore(self.concurrency), servers)
        return self._state

    def _pool(self, url: str) -> _Pool:
        import httpx

        patience = self.patience
        client = httpx.AsyncClient(
            base_url=url,
            headers={"accept-encoding": "identity", "content-type": "application/json", **self._headers},
            timeout=httpx.Timeout(
                patience.read_seconds, connect=patience.connect_seconds, pool=patience.total_seconds
            ),
            limits=httpx.Limits(max_connections=self.concurrency),
            trust_env=False,
        )
        return _Pool(client)

    def _choose(self, state: _Loop, sticky: str, attempt: int) -> _Server:
        """The preferred server, or the next that is not resting; all resting, the one that wakes first."""
        count, now = len(state.servers), time.monotonic()
        first = zlib.crc32(sticky.encode()) if sticky else self._jitter.randrange(count)
        order = [state.servers[(first + attempt + shift) % count] for shift in range(count)]
        awake = [server for server in order if server.rests_until <= now]
        return awake[0] if awake else min(order, key=lambda server: server.rests_until)

    def _count_failure(self, server: _Server, failed: _Failed) -> None:
        server.failures += 1
        if server.failures == self.patience.rest_after:  # a dead server must not look like a hang
            _logger.warning(
                "%s failed %d times in a row (%s); it is tried again.", server.url, server.failures, failed
            )
        if server.failures >= self.patience.rest_after:
            server.rests_until = time.monotonic() + self.patience.rest_seconds

    async def _slot(self, state: _Loop) -> None:
        """Wait until another call may begin within this minute."""
        if not self.per_minute:
            return
        now = state.loop.time()
        state.next_slot = max(now, state.next_slot + 60.0 / self.per_minute)
        await asyncio.sleep(state.next_slot - now)

    async def _pause(
        self, attempt: int, wait: float | None, path: str, began: float, tried: Sequence[str]
    ) -> None:
        """Wait before the next attempt: as long as the server asks, or longer each time."""
        patience = self.patience
        pause = min(patience.longest_pause_seconds, patience.pause_seconds * 2**attempt)
        pause = max(pause * self._jitter.uniform(0.5, 1.0), wait or 0.0)
        left = patience.total_seconds - (time.monotonic() - began)
        if pause > left:
            raise self._unavailable(
                path, f"the next try would begin after the deadline, in {pause:.0f} s", tried
            )
        await asyncio.sleep(pause)

    # -- words -------------------------------------------------------------------------------------------

    def _words(self, text: bytes) -> str:
        """The beginning of what a server wrote, on one line, without our secrets."""
        words = " ".join(text[: 4 * _SHOWN].decode("utf-8", "replace").split())
        for secret in self._secrets:
            words = words.replace(secret, "***")
        return words[:_SHOWN] or "(an empty body)"

    def _unavailable(self, path: str, why: str, tried: Sequence[str]) -> ServerUnavailable:
        last = f" The last failure was: {tried[-1]}." if tried else ""
        return ServerUnavailable(
            f"no server answered {path}: {why}.{last} Check that {' and '.join(self.urls)} "
            f"{'runs' if len(self.urls) == 1 else 'run'}, or allow more time."
        )


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"{url!r} is no address of a server; write one such as http://127.0.0.1:8000/v1.")
    if parts.username or parts.password:
        raise ConfigError(
            "the address of a server holds a password; put the key into the environment instead."
        )
    return url.rstrip("/")


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds that the server asks to wait, written as seconds or as a date."""
    given = headers.get("retry-after", "").strip()
    if given.isdigit():
        return float(given)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(given).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
