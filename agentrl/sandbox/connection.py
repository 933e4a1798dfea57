"""The host's connections: to the fork server, and to the supervisor of each jail."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from agentrl.errors import SandboxUnavailable
from agentrl.sandbox.inmate import ENVIRONMENT
from agentrl.sandbox.reasons import Used, reason
from agentrl.sandbox.removal import remove_soon
from agentrl.sandbox.result import ExecutionResult, Status, Tier
from agentrl.sandbox.scratch import scratch
from agentrl.sandbox.verdict import INSIDE, OUT_OF_MEMORY

if TYPE_CHECKING:
    from agentrl.sandbox.streams import Streams

GRACE = 30.0
START = 60.0
ROOT = str(Path(__file__).resolve().parents[2])
_BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from agentrl.sandbox import server; server.main()"


class ForkServer:
    """The process that makes jails.

    Raises:
        SandboxUnavailable: it did not start; the message says why.
    """

    def __init__(self, tier: Tier, preload: tuple[str, ...], python: str) -> None:
        in_folders = tier in {Tier.LANDLOCK, Tier.UNCONFINED}
        self._scratch = scratch("agentrl-jails-") if in_folders else None
        folder = self._scratch.path if self._scratch is not None else ""
        if folder and os.getuid() == 0:
            os.chown(folder, INSIDE, INSIDE)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._process = subprocess.Popen(
                # Not -I, which would let hashes of strings differ from one server to the next.
                [
                    python,
                    "-s",
                    "-P",
                    "-c",
                    _BOOT,
                    ROOT,
                    str(theirs.fileno()),
                    tier.value,
                    folder,
                    *preload,
                ],
                env={**ENVIRONMENT, "HOME": "/work"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._socket.settimeout(START)
        first = self._greeting()
        if "error" in first:
            self.close()
            raise SandboxUnavailable(f"The tier {tier.value} did not start: {first['error']}.")
        self._socket.settimeout(GRACE)

    def _greeting(self) -> dict[str, str]:
        try:
            said: dict[str, str] = json.loads(self._socket.recv(1 << 16) or b'{"error": "it died"}')
        except TimeoutError:
            return {"error": f"no answer within {START:.0f} s"}
        except OSError as error:
            return {"error": str(error)}
        return said

    def begin(self, request: dict[str, object], streams: list[int]) -> Supervisor:
        """Ask for a jail; the request travels in memory that only its supervisor reads.

        Raises:
            OSError: the fork server is gone, or did not answer in time.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        payload = memory_file(request)
        try:
            with theirs:
                socket.send_fds(self._socket, [b"x"], [payload, *streams, theirs.fileno()])
            return Supervisor(ours)
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(payload)

    def close(self) -> None:
        """End it, and every jail with it."""
        self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        if self._scratch is not None:
            remove_soon(self._scratch.path)
            self._scratch.close()


class Supervisor:
    """The process that holds one jail, as the host knows it.

    Raises:
        OSError: it did not start, and neither did the program.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        connection.settimeout(START)
        # A descriptor of itself: on a busy machine its number may be nobody's by the time that we look.
        _, fds, _, _ = socket.recv_fds(connection, 16, 1)
        if not fds:
            raise ConnectionResetError(104, "the supervisor of the execution died before it began")
        self._pidfd = fds[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def verdict(self, streams: Streams, stdin: str, seconds: float) -> dict[str, object]:
        """Drain the program until it has ended; a supervisor that says nothing in time is killed."""
        deadline = time.monotonic() + seconds + GRACE
        data = streams.drain(self.socket, stdin.encode("utf-8", "replace"), deadline)
        if data:
            said: dict[str, object] = json.loads(data)
            return said
        self.kill()
        return {"status": "infra_error", "message": "the supervisor of the execution died or hung"}

    def kill(self) -> None:
        """End it; its jail ends with it."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Hang up; whatever still runs ends."""
        if self.socket.fileno() >= 0:
            self.socket.close()
            os.close(self._pidfd)


def memory_file(content: object) -> int:
    """Put JSON into a file that has no name."""
    descriptor = os.memfd_create("request", os.MFD_CLOEXEC)
    data = memoryview(json.dumps(content).encode())
    while data:
        data = data[os.write(descriptor, data) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def result_of(said: dict[str, object], streams: Streams, wall: float, tier: Tier) -> ExecutionResult:
    """Put together what the supervisor said and what was drained."""
    out, err = streams.texts()
    code, layers = said.get("returncode"), said.get("layers")
    used = Used(wall, int(str(said.get("peak_memory", 0))), streams.written())
    status = _status(said, err, streams, used)
    number = int(str(said.get("signal", 0)))
    return ExecutionResult(
        status=status,
        returncode=code if isinstance(code, int) else None,
        stdout=out,
        stderr=err,
        signal=number,
        truncated=streams.cut(),
        wall_seconds=wall,
        cpu_seconds=float(str(said.get("cpu_seconds", 0))),
        peak_memory=used.peak_memory,
        tier=tier,
        layers=tuple(str(item) for item in layers) if isinstance(layers, list) else (),
        message=str(said.get("message") or reason(status, streams.limits, used, number)),
        state_lost=said.get("lost") is True,
    )


def _status(said: dict[str, object], err: str, streams: Streams, used: Used) -> Status:
    status = str(said.get("status", "infra_error"))
    if streams.flooded and status in {"killed", "ok", "error"}:
        return Status.OUTPUT_LIMIT
    last = err.rstrip().rsplit("\n", 1)[-1]
    if status != "error" or "state" in said:  # whether a cell ran out of memory is known
        return Status(status)
    # Other interpreters that a program starts say no more than their error.
    much = last.startswith("MemoryError") and 2 * used.peak_memory > streams.limits.memory
    return Status.MEMORY if much or last == OUT_OF_MEMORY else Status.ERROR
