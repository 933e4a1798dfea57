"""The host's side of the jail: asks the fork server for executions and drains what programs write."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from agentrl.errors import SandboxError, SandboxUnavailable
from agentrl.sandbox.inmate import ENVIRONMENT
from agentrl.sandbox.probe import missing, probe
from agentrl.sandbox.result import ExecutionResult, Limits, Program, Status, Tier

if TYPE_CHECKING:
    from types import TracebackType

GRACE = 5.0
BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from agentrl.sandbox import server; "
_SERVE = BOOT + "server.serve(int(sys.argv[1]), sys.argv[2] == 'strict', tuple(sys.argv[3:]))"
ROOT = str(Path(__file__).resolve().parents[2])


class Sandbox:
    """Runs programs that nobody trusts, each in a jail of its own. Threads may share one.

    Args:
        tier: "strict", "landlock", or "auto" for the best that this machine has.
        limits: of every execution that names none.
        preload: modules imported once, before the jail is shut, such as ("numpy", "numpy.random").
        python: an interpreter; the running one by default.

    Raises:
        SandboxUnavailable: the machine lacks layers; the message names each one and its repair.
    """

    def __init__(
        self,
        tier: str = "auto",
        *,
        limits: Limits | None = None,
        preload: tuple[str, ...] = (),
        python: str = sys.executable,
    ) -> None:
        self.limits = limits or Limits()
        self._preload, self._python = preload, python
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self.tier = self._opened(tier)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the fork server and with it everything that still runs."""
        with self._lock:
            self._stop()

    def run(self, program: Program | str, limits: Limits | None = None) -> ExecutionResult:
        """Run one program to its end.

        Raises:
            SandboxError: the sandbox was closed.
        """
        asked = Program(program) if isinstance(program, str) else program
        within = limits or self.limits
        began = time.monotonic()
        try:
            execution = self._begin(asked, within)
        except OSError as error:
            return ExecutionResult(Status.INFRA_ERROR, tier=self.tier, message=str(error))
        with execution:
            answer = execution.drain(asked.stdin.encode())
        if answer is None:
            self._restart()
        return execution.result(answer, time.monotonic() - began, self.tier)

    async def execute(self, program: Program | str, limits: Limits | None = None) -> ExecutionResult:
        """Run one program in a thread; see `run`."""
        return await asyncio.to_thread(self.run, program, limits)

    def _opened(self, tier: str) -> Tier:
        if tier != "auto":
            self._start(Tier(tier))
            return Tier(tier)
        found = probe(self._python)
        reasons: list[str] = []
        for candidate in Tier:
            lacking = missing(found, candidate)
            if lacking:
                reasons += [item for item in lacking if item not in reasons]
                continue
            try:
                self._start(candidate)
            except SandboxUnavailable as error:
                reasons.append(str(error))
            else:
                return candidate
        raise SandboxUnavailable("No tier holds untrusted code on this machine. " + " ".join(reasons))

    def _start(self, tier: Tier) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._server = subprocess.Popen(
                [self._python, "-I", "-c", _SERVE, ROOT, str(theirs.fileno()), tier.value, *self._preload],
                env={**ENVIRONMENT, "HOME": "/work"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._socket = ours
        ours.settimeout(60)
        try:
            first: dict[str, str] = json.loads(ours.recv(1 << 16) or b'{"error": "the fork server died"}')
        except TimeoutError:
            first = {"error": "the fork server did not answer within 60 s"}
        if "error" in first:
            self._stop()
            raise SandboxUnavailable(f"The tier {tier.value} did not start: {first['error']}.")
        ours.settimeout(GRACE)

    def _stop(self) -> None:
        if self._server is None:
            return
        self._socket.close()
        with contextlib.suppress(ProcessLookupError):
            self._server.send_signal(signal.SIGKILL)
        self._server.wait()
        self._server = None

    def _restart(self) -> None:
        with self._lock:
            if self._server is not None:
                self._stop()
                self._start(self.tier)

    def _begin(self, program: Program, limits: Limits) -> Execution:
        execution = Execution(limits)
        with self._lock:
            if self._server is None:
                execution.close()
                raise SandboxError("the sandbox was closed. Make another one.")
            try:
                payload = _payload(program, limits)
                try:
                    socket.send_fds(self._socket, [b"x"], [payload, *execution.theirs])
                finally:
                    os.close(payload)
            except OSError:
                execution.close()
                raise
        execution.release()
        return execution


def _payload(program: Program, limits: Limits) -> int:
    """Put the request into memory that only its supervisor reads; the fork server never sees it."""
    content = {
        "code": program.code,
        "argv": list(program.argv),
        "files": dict(program.files),
        "seed": program.seed,
        "wall_seconds": limits.wall_seconds,
        "memory": limits.memory,
        "disk": limits.disk,
        "processes": limits.processes,
    }
    descriptor = os.memfd_create("request", os.MFD_CLOEXEC)
    data = memoryview(json.dumps(content).encode())
    while data:
        data = data[os.write(descriptor, data) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


class Execution:
    """The pipes of one execution, and what came out of them."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        stdin, self._feed = os.pipe()
        self._out, stdout = os.pipe()
        self._err, stderr = os.pipe()
        self._control, control = socket.socketpair()
        self.theirs = [stdin, stdout, stderr, control.detach()]
        self._kept = {self._out: bytearray(), self._err: bytearray()}
        self._seen = {self._out: 0, self._err: 0}
        self._open = {self._feed, self._out, self._err}
        self._flooded = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def release(self) -> None:
        """Close the ends that the fork server has now."""
        for descriptor in self.theirs:
            os.close(descriptor)
        self.theirs = []

    def close(self) -> None:
        """Close everything."""
        self.release()
        for descriptor in self._open:
            os.close(descriptor)
        self._open = set()
        self._control.close()

    def drain(self, stdin: bytes) -> dict[str, object] | None:
        """Feed and drain until the supervisor answers; None if it never does."""
        deadline = time.monotonic() + self.limits.wall_seconds + GRACE
        for descriptor in self._open:
            os.set_blocking(descriptor, False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            for descriptor in (self._out, self._err):
                selector.register(descriptor, selectors.EVENT_READ)
            selector.register(self._feed, selectors.EVENT_WRITE)
            while time.monotonic() < deadline:
                for key, _ in selector.select(deadline - time.monotonic()):
                    if key.fileobj is self._control:
                        return self._answered()
                    if key.fd == self._feed:
                        stdin = self._fed(selector, stdin)
                    elif not self._drained(key.fd):
                        selector.unregister(key.fd)
        return None

    def _fed(self, selector: selectors.BaseSelector, stdin: bytes) -> bytes:
        try:
            written = os.write(self._feed, stdin[: 1 << 16]) if stdin else 0
        except BrokenPipeError:
            stdin, written = b"", 0
        left = stdin[written:]
        if not left:
            selector.unregister(self._feed)
            self._open.discard(self._feed)
            os.close(self._feed)
        return left

    def _drained(self, descriptor: int) -> bool:
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return True
        kept = self._kept[descriptor]
        kept += data[: max(0, self.limits.kept_output - len(kept))]
        self._seen[descriptor] += len(data)
        if sum(self._seen.values()) > self.limits.output and not self._flooded:
            self._flooded = True
            self._control.send(b"k")
        return bool(data)

    def _answered(self) -> dict[str, object] | None:
        data = self._control.recv(1 << 16)
        for descriptor in (self._out, self._err):
            for _ in range(64):
                before = self._seen[descriptor]
                if not self._drained(descriptor) or self._seen[descriptor] == before:
                    break
        answer: dict[str, object] | None = json.loads(data) if data else None
        return answer

    def result(self, answer: dict[str, object] | None, wall: float, tier: Tier) -> ExecutionResult:
        """Put together what the supervisor said and what was drained."""
        said = answer or {"status": "infra_error", "message": "the supervisor of the execution died"}
        out, err = (self._kept[end].decode("utf-8", "replace") for end in (self._out, self._err))
        code = said.get("returncode")
        return ExecutionResult(
            status=self._status(str(said["status"]), err),
            returncode=code if isinstance(code, int) else None,
            stdout=out,
            stderr=err,
            signal=int(str(said.get("signal", 0))),
            truncated=self._cut(),
            wall_seconds=wall,
            cpu_seconds=float(str(said.get("cpu_seconds", 0))),
            peak_memory=int(str(said.get("peak_memory", 0))),
            tier=tier,
            layers=_words(said.get("layers")),
            message=str(said.get("message", "")),
        )

    def _cut(self) -> tuple[int, int]:
        first, second = (self._seen[end] - len(self._kept[end]) for end in (self._out, self._err))
        return first, second

    def _status(self, said: str, err: str) -> Status:
        if self._flooded and said in {"killed", "ok", "error"}:
            return Status.OUTPUT_LIMIT
        last = err.rstrip().rsplit("\n", 1)[-1]
        return Status.MEMORY if said == "error" and last.startswith("MemoryError") else Status(said)


def _words(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()
