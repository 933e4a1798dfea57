"""An HTTP server for tests that answers as it is told, and misbehaves on purpose."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

Fault: TypeAlias = Literal[
    "status 500", "status 503", "status 429", "garbage", "empty", "endless", "bomb", "drip", "hang", "silent",
    "reset", "short", "redirect",
]  # fmt: skip
"""How a call goes wrong: an error status; a body that is no JSON, none, without end, or a gzip bomb; one
byte a second; nothing after the headers; nothing at all; a reset connection; fewer bytes than announced; a
redirect to itself."""

FAULTS: tuple[Fault, ...] = Fault.__args__  # type: ignore[attr-defined]  # the names in the alias
PASSING_FAULTS: tuple[Fault, ...] = tuple(fault for fault in FAULTS if fault != "redirect")
"""Faults after which a client may ask again."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One call as the server received it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        """The body as a JSON object."""
        value = json.loads(self.body)
        if not isinstance(value, dict):
            raise TypeError(f"the body is no JSON object: {value!r}")
        return value


@dataclass(frozen=True, slots=True)
class Told:
    """What the server answers."""

    value: object = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class MisbehavingServer:
    """A server on the loopback interface, in a thread of its own; use it in a `with` statement.

    Args:
        handle: from a call to an answer; it runs in the server's thread.
        faults: what happens to the calls in order, None for an honest answer; afterwards all are honest.
        retry_after: the header that comes with "status 429".

    Attributes:
        asked: every call so far, those that failed included.
    """

    def __init__(
        self,
        handle: Callable[[Asked], Told],
        faults: Sequence[Fault | None] = (),
        retry_after: str = "0",
    ) -> None:
        self.handle = handle
        self.faults = list(faults)
        self.retry_after = retry_after
        self.asked: list[Asked] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="misbehaving server", daemon=True)
        self._ready = threading.Event()

    @property
    def url(self) -> str:
        """The base address."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the server did not start within 10 s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = int(server.sockets[0].getsockname()[1])
        self._ready.set()
        await self._stopping.wait()
        server.close()
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        try:
            while (asked := await _read(reader)) is not None:
                self.asked.append(asked)
                fault = self.faults.pop(0) if self.faults else None
                if not await self._answer(asked, fault, writer):
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client has left, or the server stops
        finally:
            writer.close()

    async def _answer(self, asked: Asked, fault: Fault | None, writer: asyncio.StreamWriter) -> bool:
        """Write one answer; whether the connection may be used again."""
        if fault is not None:
            await _fail(fault, self.retry_after, asked, writer)
            return False
        told = self.handle(asked)
        body = json.dumps(told.value).encode()
        writer.write(
            _head(told.status, {"content-type": "application/json", **told.headers}, len(body)) + body
        )
        await writer.drain()
        return True


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, path, headers, body)


def _head(status: int, headers: Mapping[str, str], length: int | None) -> bytes:
    lines = [f"HTTP/1.1 {status} Told", *(f"{name}: {value}" for name, value in headers.items())]
    if length is not None:
        lines.append(f"content-length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _fail(fault: Fault, retry_after: str, asked: Asked, writer: asyncio.StreamWriter) -> None:
    if fault == "reset":
        writer.transport.abort()
        return
    if fault in _STORIES:
        await _STORIES[fault](writer)
    else:
        writer.write(_canned(fault, retry_after, asked))
    await writer.drain()


def _canned(fault: Fault, retry_after: str, asked: Asked) -> bytes:
    if fault.startswith("status"):
        status = int(fault.split()[1])
        return _head(status, {"retry-after": retry_after} if status == 429 else {}, 4) + b"oops"
    if fault == "redirect":
        return _head(302, {"location": asked.path}, 0)
    if fault == "bomb":
        body = gzip.compress(b" " * (8 << 20), 1)
        return _head(200, {"content-encoding": "gzip"}, len(body)) + body
    return {
        "garbage": _head(200, {}, 9) + b"{'not': J",
        "empty": _head(200, {}, 0),
        "short": _head(200, {}, 1000) + b'{"a": 1',
    }[fault]


async def _endless(writer: asyncio.StreamWriter) -> None:
    writer.write(_head(200, {}, 1 << 40))
    while True:
        writer.write(b" " * 65536)
        await writer.drain()


async def _drip(writer: asyncio.StreamWriter) -> None:
    writer.write(_head(200, {}, 1000))
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(1.0)


async def _hang(writer: asyncio.StreamWriter) -> None:
    writer.write(_head(200, {}, 1000))
    await writer.drain()
    await asyncio.sleep(3600)


async def _silent(writer: asyncio.StreamWriter) -> None:
    del writer
    await asyncio.sleep(3600)


_STORIES: dict[Fault, Callable[[asyncio.StreamWriter], Awaitable[None]]] = {
    "endless": _endless,
    "drip": _drip,
    "hang": _hang,
    "silent": _silent,
}
