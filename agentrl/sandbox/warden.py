"""The first process of a jail: builds it, starts the program, ends it at a word or when nobody watches.

It stands inside the walls that hold processes (a pid namespace, or a Landlock domain around that of the
program), so that `kill(-1)` reaches everything in the jail at once, however it forks, and nothing outside.
The program cannot signal it, trace it or see its descriptors. Where there are no walls it goes through the
processes below it instead, and the program can do all of that.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, TypedDict

from agentrl.sandbox import inmate, kernel, landlock, tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentrl.sandbox.inmate import Request

PATIENCE = 10.0
_MEMORY_FOLDERS = ("/work", "/tmp", "/dev/shm")
_HARMLESS = kernel.MS_NOSUID | kernel.MS_NODEV


class Wanted(TypedDict):
    """What a warden is told of a request: bytes of files, and whether it is a session."""

    disk: int
    session: bool


@dataclass(frozen=True)
class Ground:
    """What a warden stands on.

    Attributes:
        settle: builds what is around the warden, where folders stay readable.
        admit: makes room for so many bytes of files; returns threads of others that a limit will count.
        signal_all: sends a signal to everything in the jail but the warden, and to nothing else.
        shut: gives up the program's rights, by work folder and readable folders.
    """

    settle: Callable[[tuple[str, ...]], None]
    admit: Callable[[int], int]
    signal_all: Callable[[int], None]
    shut: Callable[[str, tuple[str, ...]], None]


def guard(orders: socket.socket, work: str, readable: tuple[str, ...], ground: Ground) -> NoReturn:
    """Build the jail around this process and a process for the program in it, and obey.

    Args:
        orders: the supervisor. `{"begin": ...}` brings the program or session with its descriptors;
            `{"keep": [pids]}` freezes everything and kills all but these; anything else, and the end of the
            connection, kills everything.
        work: the work folder; "/work" where namespaces hold the program.
        readable: folders of the interpreter.
        ground: what holds it.
    """
    try:
        ground.settle(readable)
        woken = _woken_by_children()
        door, inner = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = os.fork()
        if program == 0:
            _be_the_program(orders, inner, work, lambda: ground.shut(work, readable))
        inner.close()
    except BaseException as error:
        _tell(orders, {"infra": f"{type(error).__name__}: {error}"})
        os._exit(0)
    try:
        _Warden(orders, door, program, ground).obey(woken)
    finally:  # only an error of ours comes here, and nothing in the jail may outlive it
        _end(orders, None, ground)


def _shut_in(readable: tuple[str, ...]) -> None:
    kernel.unshare(kernel.NEW_NS)
    for target in _MEMORY_FOLDERS:
        covered = {path: os.open(path, os.O_PATH) for path in readable if path.startswith(f"{target}/")}
        kernel.mount("tmpfs", target, "tmpfs", _HARMLESS, "size=1m,nr_inodes=2048,mode=0700")
        _uncover(covered, target)
    try:
        kernel.mount("proc", "/proc", "proc", _HARMLESS | kernel.MS_NOEXEC, "hidepid=2")
    except OSError:
        # A container that masks parts of /proc may not mount a new one; an empty folder hides more.
        kernel.mount("tmpfs", "/proc", "tmpfs", _HARMLESS | kernel.MS_RDONLY, "size=4096")
    _be_first(readable)


def _resize(disk: int) -> int:
    for target in _MEMORY_FOLDERS:
        kernel.mount("tmpfs", target, "tmpfs", _HARMLESS | kernel.MS_REMOUNT, f"size={disk}")
    return 0


def _uncover(covered: dict[str, int], target: str) -> None:
    """Bind folders again that a new file system at a target covers; the program cannot move their parents."""
    tops = {f"{target}/{path.removeprefix(target).split('/')[1]}" for path in covered} - covered.keys()
    for top in tops:
        os.mkdir(top)  # noqa: PTH102
        kernel.mount("tmpfs", top, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=64k,mode=0755")
    for path, descriptor in sorted(covered.items()):
        os.makedirs(path, exist_ok=True)  # noqa: PTH103
        kernel.mount(f"/proc/self/fd/{descriptor}", path, "", kernel.MS_BIND | kernel.MS_REC)
        os.close(descriptor)
    for top in tops:
        flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
        kernel.mount("", top, "", flags)


def _be_first(_: tuple[str, ...]) -> None:
    """Stand in a pid namespace that somebody made for us."""
    if os.getpid() != 1:
        raise OSError(3, "the first process of a jail must have the number 1")
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def _nobody_else(_: int) -> int:
    """Say that a namespace counts only its own."""
    return 0


def _gather(_: tuple[str, ...]) -> None:
    """Let processes whose parent ends fall to this one, outside of any namespace."""
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)


def _count_others(_: int) -> int:
    return inmate.INSTEAD_OF_NAMESPACE + tree.threads_of(os.getuid())


def _confine(readable: tuple[str, ...]) -> None:
    _gather(readable)
    landlock.confine()
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        return
    raise OSError(0, "Landlock let a signal out of its domain")


def _lay_files(files: dict[str, str], work: str) -> None:
    for name, content in files.items():
        path = os.path.normpath(os.path.join(work, name))  # noqa: PTH118  # no pathlib in a child
        if not path.startswith(f"{work}/"):
            raise ValueError(f"a file of a program lies in its work folder; got {name!r}")
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "w", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            file.write(content)


def _only_wake(number: int, frame: object) -> None:
    """A handler must stand there for the descriptor to be written to."""


def _woken_by_children() -> int:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.signal(signal.SIGCHLD, _only_wake)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def _be_the_program(
    orders: socket.socket, door: socket.socket, work: str, give_up: Callable[[], None]
) -> NoReturn:
    """Give everything up, wait for a program, and run it."""
    try:
        close_all_but(*sorted((orders.fileno(), door.fileno())))
        size = os.open("/proc/self/statm", os.O_RDONLY)  # which nobody opens later
        inmate.become(work)
        give_up()
        request, channel = _admitted(door, work, size)
    except BaseException as error:
        _tell(orders, {"infra": f"{type(error).__name__}: {error}"})
        os._exit(0)
    orders.close()
    try:
        inmate.run(request, channel)
    except BaseException:
        os._exit(1)


def _admitted(door: socket.socket, work: str, size: int) -> tuple[Request, socket.socket | None]:
    """Take what comes through the door: the request, and three streams or a session's channel with them."""
    spare, fds, _, _ = socket.recv_fds(door, 16, 5)
    if not fds:
        os._exit(0)  # nobody asks any more
    payload, *streams = fds
    with open(payload, "rb") as file:  # noqa: PTH123  # a descriptor
        request: Request = json.loads(file.read())
    _lay_files(request["files"], work)
    for target, stream in enumerate(streams[:3]):
        os.dup2(stream, target)
        os.close(stream)
    inmate.limit(request, int(spare), mapped=int(os.read(size, 64).split()[0]))
    os.close(size)
    door.close()
    return request, socket.socket(fileno=streams[3]) if streams[3:] else None


def close_all_but(*kept: int) -> None:
    """Close every descriptor from 3 on but some."""
    last = 2
    for descriptor in sorted(kept):
        os.closerange(last + 1, descriptor)
        last = descriptor
    os.closerange(last + 1, 65536 if sys.maxsize > 65536 else 1024)


class _Warden:
    """The first process of a jail, once everything stands.

    Attributes:
        program: the process whose end is the end of the jail; 0 where that is not one process: a session
            lasts while its states do, and its first process is one of them.
    """

    def __init__(self, orders: socket.socket, door: socket.socket, program: int, ground: Ground) -> None:
        self._orders, self._door, self._ground = orders, door, ground
        self.program = program

    def obey(self, woken: int) -> NoReturn:
        """Do what the supervisor says until the program or the connection ends."""
        poll = select.poll()
        poll.register(self._orders, select.POLLIN)
        poll.register(woken, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, 4096)
                code = _reaped().get(self.program)
                if code is not None:
                    _end(self._orders, code, self._ground)
            if self._orders.fileno() in ready:
                self._follow()

    def _follow(self) -> None:
        said, fds = b"", list[int]()
        with contextlib.suppress(ConnectionResetError):  # a supervisor died with our words unread
            said, fds, _, _ = socket.recv_fds(self._orders, 1 << 16, 5)
        if not said.startswith(b"{"):
            _end(self._orders, None, self._ground)
        order = json.loads(said)
        if "begin" in order:
            self._begin(order["begin"], fds)
        else:
            self._keep(order["keep"])

    def _begin(self, wanted: Wanted, fds: list[int]) -> None:
        try:
            others = self._ground.admit(wanted["disk"])
            if wanted["session"]:
                self.program = 0
            socket.send_fds(self._door, [str(others).encode()], fds)
        except OSError as error:
            _tell(self._orders, {"infra": f"{type(error).__name__}: {error}"})
            _end(self._orders, None, self._ground)
        for each in fds:
            os.close(each)
        self._door.close()

    def _keep(self, kept: list[int]) -> None:
        self._ground.signal_all(signal.SIGSTOP)
        ended = [pid for pid in _others() if pid not in kept]
        for pid in ended:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        # What they hold until they are gone would be counted against the next cell.
        deadline = time.monotonic() + PATIENCE
        while tree.memory(ended, sys.maxsize) and time.monotonic() < deadline:
            time.sleep(0.001)
        _tell(self._orders, {"kept": True})


def _others() -> list[int]:
    """Everybody in the jail but this process."""
    if os.getpid() != 1:
        return tree.below(os.getpid())[0]
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]  # noqa: PTH208


def _reaped() -> dict[int, int]:
    codes: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, code = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            codes[pid] = code
    return codes


def _everybody(number: int) -> None:
    """Reach all that this process may signal, which its walls make everything in the jail."""
    with contextlib.suppress(OSError):
        os.kill(-1, number)


def _everybody_below(number: int) -> None:
    """Reach all processes below this one: they are stopped first, so that they start no more."""
    stopped: set[int] = set()
    while left := set(tree.below(os.getpid())[0]) - stopped:
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGSTOP)
        stopped |= left
    for pid in stopped if number != signal.SIGSTOP else ():
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def _end(orders: socket.socket, code: int | None, ground: Ground) -> NoReturn:
    with contextlib.suppress(ChildProcessError):
        while True:
            ground.signal_all(signal.SIGKILL)
            os.waitpid(-1, 0)
            _reaped()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    last: dict[str, object] = {"cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss << 10}
    _tell(orders, last if code is None else {**last, "wait": code})
    os._exit(0)


def _tell(orders: socket.socket, message: dict[str, object]) -> None:
    with contextlib.suppress(OSError):
        orders.send(json.dumps(message).encode())


def _leave_open(_work: str, _readable: tuple[str, ...]) -> None:
    """Keep all rights."""


NAMESPACES = Ground(_shut_in, _resize, _everybody, inmate.shut)
MADE_NAMESPACES = Ground(_be_first, _nobody_else, _everybody, inmate.shut)
DOMAIN = Ground(_confine, _count_others, _everybody, inmate.shut)
OPEN = Ground(_gather, _count_others, _everybody_below, _leave_open)
