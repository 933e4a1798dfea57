"""A server as a child process: one JSON message in each line, bounded, and gone when it should be.

The SDK's own transport reads lines of any length; a server that never ends its line would fill the memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

from agentrl.errors import ConfigError

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from mcp.client._transport import TransportStreams
    from mcp.shared._stream_protocols import ReadStream, WriteStream
    from mcp.shared.message import SessionMessage

INHERITED: Final = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "USER")
"""Environment variables that a server gets without being named; anything else is asked for by name."""

GRACE: Final = 1.0
"""Seconds to leave by itself when its input ends, and again after SIGTERM."""

_LAUNCH: Final = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the trainer has ended")
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]}: {error.strerror}")
"""
"""On Linux the kernel ends the server with its trainer, also when that is killed."""


class Pipe:
    """What is known of a child: its process group, and the last that it wrote to standard error."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.group: int | None = None
        self.complaint = ""
        self.problem = ""

    def kill(self) -> None:
        """End the whole group at once; from any thread, and twice without harm."""
        if self.group is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.group, signal.SIGKILL)

    def words(self) -> str:
        """Say what the server last complained of, on one line."""
        told = " ".join(self.complaint.split())[-400:]
        return "; ".join(part for part in (self.problem, told) if part)


def environment_of(inherit: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a server: the variables that are named, and what was given.

    Raises:
        ConfigError: a variable that was named is not set.
    """
    for name in inherit:
        if name not in os.environ:
            raise ConfigError(f"the server is to inherit the environment variable {name}, which is not set.")
    names = [name for name in (*INHERITED, *inherit) if name in os.environ]
    return {name: os.environ[name] for name in names} | dict(given)


@contextlib.asynccontextmanager
async def piped(
    command: Sequence[str], environment: Mapping[str, str], pipe: Pipe
) -> AsyncGenerator[TransportStreams]:
    """Start a server and yield the SDK's two streams; on leaving, nothing of the server is left."""
    import anyio
    from mcp.shared.message import SessionMessage

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *command,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=dict(environment), start_new_session=True, limit=pipe.most_bytes,
    )  # fmt: skip
    pipe.group = process.pid
    incoming, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    sent, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    workers = [
        asyncio.create_task(_read(process, incoming, pipe)),
        asyncio.create_task(_write(process, outgoing)),
        asyncio.create_task(_listen(process, pipe)),
    ]
    try:
        yield received, sent
    finally:
        await _end(process, pipe, workers)
        for stream in (incoming, received, sent, outgoing):
            stream.close()


async def _read(process: Process, incoming: WriteStream[SessionMessage | Exception], pipe: Pipe) -> None:
    """Pass on what the server says, line by line; an end, or a line without end, closes the stream."""
    import anyio
    import mcp_types
    from mcp.shared.message import SessionMessage

    assert process.stdout is not None  # noqa: S101  # it was opened with a pipe
    async with incoming:
        with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            while True:
                try:
                    line = await process.stdout.readuntil(b"\n")
                except asyncio.IncompleteReadError:
                    return
                except asyncio.LimitOverrunError:
                    pipe.problem = f"it sent a message of more than {pipe.most_bytes} bytes"
                    return
                try:
                    message = mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    pipe.problem = f"it wrote what is no message: {line[:80]!r}"
                    continue
                await incoming.send(SessionMessage(message))


async def _write(process: Process, outgoing: ReadStream[SessionMessage]) -> None:
    assert process.stdin is not None  # noqa: S101  # it was opened with a pipe
    with contextlib.suppress(ConnectionError):
        async with outgoing:
            async for item in outgoing:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()


async def _listen(process: Process, pipe: Pipe) -> None:
    """Keep the end of what the server complains of, and drop the rest."""
    assert process.stderr is not None  # noqa: S101  # it was opened with a pipe
    while chunk := await process.stderr.read(65536):
        pipe.complaint = (pipe.complaint + chunk.decode(errors="replace"))[-2000:]


async def _end(process: Process, pipe: Pipe, workers: Sequence[asyncio.Task[None]]) -> None:
    """Close the server's input, wait, ask its group to end, wait, and kill the group."""
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert process.stdin is not None  # noqa: S101  # it was opened with a pipe
    process.stdin.close()
    try:
        if not await _left(process):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            await _left(process)
    finally:
        pipe.kill()  # children that it left behind, too
    await _left(process)
    pipe.group = None
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001  # a grandchild may hold the pipes


async def _left(process: Process) -> bool:
    """Wait a little for a process; by its code, for `wait` waits for its pipes as well."""
    until = asyncio.get_running_loop().time() + GRACE
    while process.returncode is None:
        if asyncio.get_running_loop().time() > until:
            return False
        await asyncio.sleep(0.01)
    return True
