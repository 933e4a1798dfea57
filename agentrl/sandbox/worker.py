"""Processes that are killed in time: for code that may never return, and cannot be interrupted otherwise."""

from __future__ import annotations

import atexit
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from agentrl.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Mapping

START_SECONDS = 60.0
"""For a process to import what it needs."""
PATIENCE = 600.0
"""Seconds to wait for a free worker."""
_ROOT = str(Path(__file__).resolve().parents[2])
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from agentrl.sandbox import worker_main; "
    "worker_main.main()"
)


class WorkerTimeout(Exception):  # a state of a job; it never leaves this folder
    """The job did not end in its time; its process was killed."""


class WorkerDied(Exception):  # see above
    """The process ended by itself during the job."""


class WorkerFailure(Exception):  # see above
    """The job raised; the message is what it raised."""


class Worker:
    """One process that answers requests, each within its time. Started when it is first needed.

    Args:
        target: "module:function"; called once in the process with `settings`, returns what answers a request.
        settings: JSON.
    """

    def __init__(self, target: str, settings: Mapping[str, object] | None = None) -> None:
        self._arguments = [target, json.dumps(dict(settings or {}))]
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process, if one runs."""
        return self._process.pid if self._process is not None else None

    def call(self, data: Mapping[str, object], seconds: float) -> dict[str, object]:
        """Ask one thing.

        Args:
            data: JSON.
            seconds: of CPU time, which a busy machine does not shorten; of wall time it may take four times
                that and two seconds.

        Raises:
            WorkerTimeout: the time was up; the next call starts another process.
            WorkerDied: the process is gone.
            WorkerFailure: the target raised.
            SandboxError: the process does not start.
        """
        wall = 4 * seconds + 2
        line = json.dumps({"data": dict(data), "cpu": seconds, "wall": wall}).encode() + b"\n"
        with self._lock:
            process = self._started()
            said = _exchange(process, line, time.monotonic() + wall + 1)
            if said is None or not said:
                raise self._ended(late=said is None)
        answer: dict[str, object] = json.loads(said)
        if "failure" in answer:
            raise WorkerFailure(str(answer["failure"]))
        return cast("dict[str, object]", answer["answer"])

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._kill()

    def _ended(self, *, late: bool) -> Exception:
        code = self._kill(0.0 if late else 1.0)
        if late or code in {-signal.SIGPROF, -signal.SIGALRM}:
            return WorkerTimeout()
        return WorkerDied(f"the process ended with {code}")

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._kill()
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _BOOT, _ROOT, *self._arguments],
            env={"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._process = process
        os.set_blocking(_pipes(process)[0], False)
        first = _exchange(process, b"", time.monotonic() + START_SECONDS)
        said = json.loads(first) if first else {"failure": "it died, or was silent for too long"}
        if "failure" in said:
            self._kill()
            raise SandboxError(f"the worker {self._arguments[0]} did not start: {said['failure']}")
        return process

    def _kill(self, patience: float = 0.0) -> int | None:
        """End the process, unless it ends by itself within some seconds; return its exit code."""
        process, self._process = self._process, None
        if process is None:
            return None
        try:
            code = process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        return code


def _pipes(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    if process.stdin is None or process.stdout is None:
        raise SandboxError("a worker has no pipes")
    return process.stdin.fileno(), process.stdout.fileno()


def _exchange(process: subprocess.Popen[bytes], line: bytes, deadline: float) -> bytes | None:
    """Write a line and read one; None when the time is up first, b"" when the other end is gone."""
    into, out = _pipes(process)
    left, parts = memoryview(line), list[bytes]()
    poll = select.poll()
    poll.register(out, select.POLLIN)
    if left:
        poll.register(into, select.POLLOUT)
    while (wait := deadline - time.monotonic()) > 0:
        for ready, _ in poll.poll(wait * 1000):
            if ready == into:
                left = _written(into, left)
                if not left:
                    poll.unregister(into)
                continue
            data = os.read(out, 1 << 20)
            parts.append(data)
            if not data or data.endswith(b"\n"):
                return b"".join(parts) if data else b""
    return None


def _written(into: int, data: memoryview) -> memoryview:
    try:
        return data[os.write(into, data[: 1 << 16]) :]
    except BrokenPipeError:
        return data[:0]


class Workers:
    """Some equal processes; a call takes a free one, or waits for it. Threads may share it.

    Args:
        target: and settings as of `Worker`.
        size: the number of processes.
    """

    def __init__(self, target: str, settings: Mapping[str, object] | None = None, *, size: int = 1) -> None:
        self._all = [Worker(target, settings) for _ in range(size)]
        self._free: queue.LifoQueue[Worker] = queue.LifoQueue()
        for worker in self._all:
            self._free.put(worker)

    def call(self, data: Mapping[str, object], seconds: float) -> dict[str, object]:
        """Ask one thing; see `Worker.call`."""
        try:
            worker = self._free.get(timeout=PATIENCE)
        except queue.Empty:
            raise SandboxError(f"no worker became free within {PATIENCE:g} s") from None
        try:
            return worker.call(data, seconds)
        finally:
            self._free.put(worker)

    def close(self) -> None:
        """End the processes; another call starts them again."""
        for worker in self._all:
            worker.close()


_SHARED: dict[tuple[int, str, str], Workers] = {}
_SHARED_LOCK = threading.Lock()


def shared(target: str, settings: Mapping[str, object] | None = None, *, size: int = 1) -> Workers:
    """Return the workers of this process for a target and its settings; they end with it.

    So a grader is a plain value that copies and pickles, and a hundred of them share the processes.
    """
    key = (os.getpid(), target, json.dumps(dict(settings or {}), sort_keys=True))
    with _SHARED_LOCK:
        if not _SHARED:
            atexit.register(close_shared)
        if key not in _SHARED:
            _SHARED[key] = Workers(target, settings, size=size)
        return _SHARED[key]


def close_shared() -> None:
    """End the processes of all shared workers; they start again when they are needed."""
    with _SHARED_LOCK:
        mine = [workers for key, workers in _SHARED.items() if key[0] == os.getpid()]
        _SHARED.clear()
    for workers in mine:
        workers.close()
