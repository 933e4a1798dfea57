"""One process for each execution, outside the jail: builds it, watches time and memory, ends everything."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from typing import TYPE_CHECKING, NoReturn

from agentrl.sandbox import kernel, landlock
from agentrl.sandbox.inmate import Request, become, run

if TYPE_CHECKING:
    import socket

INSIDE = 65534
TICK = 0.02
_PAGE = resource.getpagesize()


def supervise(request: Request, streams: tuple[int, int, int], host: socket.socket, house: House) -> NoReturn:
    """Run one program and tell the host how it ended."""
    began = time.monotonic()
    try:
        answer = house.execute(request, streams, host, began)
    except BaseException as error:
        answer = {"status": "infra_error", "message": f"{type(error).__name__}: {error}"}
    answer["wall_seconds"] = time.monotonic() - began
    with contextlib.suppress(OSError):
        host.sendall(json.dumps(answer).encode())
    os._exit(0)


class House:
    """What every execution of one fork server shares.

    Args:
        strict: whether namespaces hold the program.
        readable: folders that the interpreter needs.
    """

    def __init__(self, strict: bool, readable: tuple[str, ...]) -> None:
        self.strict = strict
        self.readable = readable
        self.layers = _layers(strict)

    def execute(
        self, request: Request, streams: tuple[int, int, int], host: socket.socket, began: float
    ) -> dict[str, object]:
        """Start the program, watch it, end it; return what the host is told."""
        report, told = os.pipe()
        work = "/work"
        processes = request["processes"]
        if self.strict:
            outside = os.getuid(), os.getgid()
            flags = kernel.NEW_USER | kernel.NEW_PID | kernel.NEW_NET | kernel.NEW_IPC | kernel.NEW_UTS
            kernel.unshare(flags)
            kernel.map_identity(INSIDE, *outside)
        else:
            work = tempfile.mkdtemp(prefix="agentrl-jail-")
            kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
            processes += _threads_of(os.getuid())
        try:
            child = os.fork()
            if child == 0:
                os.close(report)
                host.close()
                self._enter(request, streams, told, work, processes)
            os.close(told)
            for stream in streams:
                os.close(stream)
            verdict = _watch(child, request, host, began, first=self.strict)
            _end(child)
            said = os.read(report, 4096)
        finally:
            if not self.strict:
                shutil.rmtree(work, ignore_errors=True)
        return {**_judged(said, *verdict), "layers": self.layers}

    def _enter(
        self, request: Request, streams: tuple[int, int, int], told: int, work: str, processes: int
    ) -> NoReturn:
        """Become the first process of the jail, and start the program in it."""
        try:
            if not self.strict:
                _lay_files(request["files"], work)
                self._start(request, streams, work, processes, told)
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            for number in (signal.SIGINT, signal.SIGPIPE):
                signal.signal(number, signal.SIG_IGN)
            kernel.unshare(kernel.NEW_NS)
            _mount_own(request["disk"])
            _lay_files(request["files"], work)
            kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
            program = os.fork()
            if program == 0:
                self._start(request, streams, work, processes, told)
            for stream in streams:
                os.close(stream)
            code = _reap_until(program)
            os.write(told, json.dumps({"wait": code}).encode())
        except BaseException as error:
            os.write(told, json.dumps({"infra": f"{type(error).__name__}: {error}"}).encode())
        os._exit(0)

    def _start(
        self, request: Request, streams: tuple[int, int, int], work: str, processes: int, told: int
    ) -> NoReturn:
        try:
            for target, stream in enumerate(streams):
                os.dup2(stream, target)
            _close_all_but(told)
            become(request, work, self.readable, processes)
        except BaseException as error:
            os.write(told, json.dumps({"infra": f"{type(error).__name__}: {error}"}).encode())
            os._exit(0)
        os.close(told)
        try:
            run(request)
        except BaseException:
            os._exit(1)


def _layers(strict: bool) -> list[str]:
    common = [f"landlock {landlock.abi()}"] if landlock.abi() else []
    common += ["seccomp", "rlimits", "memory_total: polled"]
    if not strict:
        return common
    kinds = ("user", "pid", "mount", "network", "ipc", "uts")
    return [*(f"{kind} namespace" for kind in kinds), "tmpfs", *common]


def _mount_own(disk: int) -> None:
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    for target, share in (("/work", disk), ("/tmp", disk), ("/dev/shm", disk)):
        kernel.mount("tmpfs", target, "tmpfs", flags, f"size={share},nr_inodes=2048,mode=0700")
    try:
        kernel.mount("proc", "/proc", "proc", flags | kernel.MS_NOEXEC, "hidepid=2")
    except OSError:
        # A container that masks parts of /proc may not mount a new one; an empty folder hides more.
        kernel.mount("tmpfs", "/proc", "tmpfs", flags | kernel.MS_RDONLY, "size=4096")


def _lay_files(files: dict[str, str], work: str) -> None:
    for name, content in files.items():
        path = os.path.normpath(os.path.join(work, name))  # noqa: PTH118  # no pathlib in a child
        if not path.startswith(f"{work}/"):
            raise ValueError(f"a file of a program lies in its work folder; got {name!r}")
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(content)


def _close_all_but(kept: int) -> None:
    os.closerange(3, kept)
    os.closerange(kept + 1, 65536 if sys.maxsize > 65536 else 1024)


def _reap_until(program: int) -> int:
    while True:
        pid, code = os.wait()
        if pid == program:
            return code


def _watch(
    child: int, request: Request, host: socket.socket, began: float, *, first: bool
) -> tuple[str, int, int | None]:
    """Wait for the end: (why it was ended, peak memory, the wait status if the child is the program)."""
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(host, select.POLLIN | select.POLLHUP)
    deadline, peak, why = began + request["wall_seconds"], 0, ""
    while not why:
        left = deadline - time.monotonic()
        ready = dict(poll.poll(max(0.0, min(left, TICK)) * 1000))
        if ended in ready:
            break
        used = _memory(_below(child, include=not first))
        if used > request["memory"]:
            used = _memory(_below(child, include=not first), exact=True)
        peak = max(peak, used)
        if host.fileno() in ready:
            why = "killed"
        elif used > request["memory"]:
            why = "memory"
        elif left <= 0:
            why = "timeout"
    os.close(ended)
    code = None
    if not why and not first:
        code = os.waitpid(child, 0)[1]
    return why, peak, code


def _below(root: int, *, include: bool) -> list[int]:
    """Every process under a root, or under ourselves, to whom orphans fall where the root is the program."""
    start = os.getpid() if include else root
    found, waiting = [], [start]
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
                with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:  # noqa: PTH123
                    waiting += (below := [int(word) for word in file.read().split()])
                    found += below
    return found


def _memory(pids: list[int], *, exact: bool = False) -> int:
    return sum((_proportional(pid) if exact else None) or _resident(pid) for pid in pids)


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * _PAGE
    return 0


def _proportional(pid: int) -> int | None:
    """Return a process's own memory and its part of what it shares; None where that is unreadable."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123
        for line in file:
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) << 10
    return None


def _end(child: int) -> None:
    """Kill whatever is left; in strict the kernel ends the namespace with its first process."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    while True:
        left = _below(child, include=True)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _judged(said: bytes, why: str, peak: int, code: int | None) -> dict[str, object]:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    base: dict[str, object] = {
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory": max(peak, usage.ru_maxrss << 10),
    }
    told: dict[str, object] = json.loads(said) if said else {}
    if "infra" in told:
        return {**base, "status": "infra_error", "message": told["infra"]}
    if why:
        return {**base, "status": why}
    if code is None:
        if "wait" not in told:
            return {**base, "status": "killed", "signal": int(signal.SIGKILL)}
        code = int(str(told["wait"]))
    if os.WIFSIGNALED(code):
        return {**base, "status": "killed", "signal": os.WTERMSIG(code)}
    status = os.WEXITSTATUS(code)
    return {**base, "status": "ok" if status == 0 else "error", "returncode": status}


def _threads_of(user: int) -> int:
    """Count the threads that a user has now: where there is no namespace, the limit counts them all."""
    count = 0
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == user:  # noqa: PTH116
                    count += len(os.listdir(f"/proc/{name}/task"))  # noqa: PTH208
    return count
