"""One process for each jail, outside of it: starts the warden, watches time and memory, ends everything."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Self

from agentrl.sandbox import tree
from agentrl.sandbox.keeper import Keeper, listen
from agentrl.sandbox.verdict import TICK, ended, stopped
from agentrl.sandbox.warden import close_all_but

if TYPE_CHECKING:
    from agentrl.sandbox.inmate import Request
    from agentrl.sandbox.walls import Walls

PATIENCE = 20.0


class Asked(NamedTuple):
    """What came for a supervisor.

    Attributes:
        payload: a descriptor of the request's JSON; `streams` are three, or none for a session.
        host: who waits for the verdict.
    """

    request: Request
    payload: int
    streams: tuple[int, ...]
    host: socket.socket


def supervise(door: socket.socket, house: House) -> NoReturn:
    """Hold one program, or one session, and tell the host what became of it.

    Args:
        door: where the descriptors of one request come. A jail that breaks before shuts it.
        house: how jails are made.
    """
    asked = None
    try:
        if house.walls.ahead:
            with Jail(house.walls) as jail:
                asked = jail.wait(door)
                house.hold(jail, asked)
        else:
            asked = _received(door)
            errors = asked.streams[2] if asked.streams else 2
            with Jail(house.walls, asked.request["disk"], errors) as jail:
                house.hold(jail, asked)
    except BaseException as error:
        asked = asked or _last_call(door)
        if asked is not None:
            _tell(asked.host, {"status": "infra_error", "message": f"{type(error).__name__}: {error}"})
    os._exit(0)


def _received(door: socket.socket) -> Asked:
    _, fds, _, _ = socket.recv_fds(door, 1, 5)
    if not fds:
        raise EOFError("the fork server has ended")
    payload, *streams, control = fds
    host = socket.socket(fileno=control)
    ourselves = os.pidfd_open(os.getpid())
    socket.send_fds(host, [b"x"], [ourselves])
    os.close(ourselves)
    # The program's process reads it too, from where the descriptor stands.
    request: Request = json.loads(os.pread(payload, os.fstat(payload).st_size, 0))
    return Asked(request, payload, tuple(streams), host)


def _last_call(door: socket.socket) -> Asked | None:
    """Shut the door; return the request that came before it was shut, if one did."""
    with contextlib.suppress(OSError, EOFError):
        door.shutdown(socket.SHUT_RD)
        return _received(door)
    return None


def _tell(host: socket.socket, answer: dict[str, object]) -> None:
    with contextlib.suppress(OSError):
        host.send(json.dumps(answer).encode())


@dataclass(frozen=True)
class House:
    """What all jails of one fork server share."""

    walls: Walls

    def hold(self, jail: Jail, asked: Asked) -> None:
        """Run what was asked in a jail, and tell the host how it ended."""
        if asked.request["session"]:
            _tell(asked.host, self._session(jail, asked))
        else:
            self._execute(jail, asked)

    def _execute(self, jail: Jail, asked: Asked) -> None:
        """Start a program, watch it, end it and tell the host; what is left of the jail goes afterwards."""
        jail.begin(asked.request, (asked.payload, *asked.streams))
        why, peak = _watch(jail, asked.request, asked.host, time.monotonic())
        said = jail.end()
        _tell(asked.host, {**_judged(said, why, peak, asked.request), "layers": self.walls.layers()})

    def _session(self, jail: Jail, asked: Asked) -> dict[str, object]:
        """Keep a session until the host hangs up; return why it could not be kept."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listen(ours)  # before the first word: only then does the kernel name its sender
        null = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
        jail.begin(asked.request, (asked.payload, *null, theirs.detach()))
        with ours:
            return Keeper(jail, asked.host, self.walls.layers()).keep(ours)


class Jail:
    """A warden and everything under it.

    Args:
        walls: what holds it.
        disk: bytes of its work folder, where these must be known before the request.
        errors: a descriptor for what goes wrong in words of somebody else.

    Attributes:
        root: the process under which everything of the jail runs; `orders` the connection to its warden.
    """

    def __init__(self, walls: Walls, disk: int = 0, errors: int = 2) -> None:
        self._walls, self._disk, self._errors = walls, disk, errors
        self._work = ""
        self._last: dict[str, object] | None = None

    def __enter__(self) -> Self:
        self.orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listen(self.orders)  # before the first word: only then does the kernel name its sender
        self._work = self._walls.prepare()
        self._started = os.fork()
        if self._started == 0:
            self._enter(theirs)
        theirs.close()
        self.root = self._walls.root(self._started, self.orders)
        return self

    def _enter(self, orders: socket.socket) -> NoReturn:
        try:
            self.orders.close()
            close_all_but(orders.fileno(), self._errors)
            self._walls.enter(orders, self._work, self._disk, self._errors)
        finally:
            os._exit(1)

    def wait(self, door: socket.socket) -> Asked:
        """Wait until somebody asks for this jail.

        Raises:
            EOFError: nobody will.
            ChildProcessError: the jail broke before.
        """
        poll = select.poll()
        poll.register(door, select.POLLIN)
        poll.register(self.orders, select.POLLIN)
        if self.orders.fileno() in dict(poll.poll()):
            why = self.end().get("infra", "it ended, perhaps for want of memory")
            raise ChildProcessError(f"a jail broke before its program began: {why}")
        return _received(door)

    def begin(self, request: Request, descriptors: tuple[int, ...]) -> None:
        """Let a program or a session begin, and close its descriptors here."""
        wanted = json.dumps({"begin": {"disk": request["disk"], "session": request["session"]}})
        with contextlib.suppress(OSError):  # a warden that has ended is found by who waits for it
            socket.send_fds(self.orders, [wanted.encode()], descriptors)
        for each in descriptors:
            os.close(each)

    def end(self) -> dict[str, object]:
        """End everything in the jail; return what the warden said before."""
        if self._last is None:
            self._last = self._ended()
        return self._last

    def _ended(self) -> dict[str, object]:
        said: dict[str, object] = {}
        deadline = time.monotonic() + PATIENCE
        poll = select.poll()
        poll.register(self.orders, select.POLLIN)
        if not poll.poll(0):
            with contextlib.suppress(OSError):
                self.orders.send(b"end")
        while "cpu" not in said and poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            data = self._received()
            if not data:
                break
            said |= json.loads(data)
        return said

    def _received(self) -> bytes:
        """Read a message; where the warden left our word to end unread, its own comes after an error."""
        for _ in range(2):
            with contextlib.suppress(ConnectionResetError):
                return self.orders.recv(1 << 16)
        return b""

    def __exit__(self, *_: object) -> None:
        self.end()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._started, signal.SIGKILL)
        self._bury()
        self.orders.close()
        self._walls.clear(self._work)

    def _bury(self) -> None:
        """Wait for the warden, and for whatever fell to us because it died early."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._started, 0)
            while True:
                os.waitpid(-1, os.WNOHANG)  # which raises where nobody is left
                for pid in tree.below(os.getpid())[0]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                os.waitpid(-1, 0)


def _watch(jail: Jail, request: Request, host: socket.socket, began: float) -> tuple[str, int]:
    """Wait for the end; return why it was ended, and the peak of memory."""
    poll = select.poll()
    poll.register(jail.orders, select.POLLIN)
    poll.register(host, select.POLLIN | select.POLLHUP)
    deadline, peak = began + request["wall_seconds"], 0
    while True:
        left = deadline - time.monotonic()
        ready = dict(poll.poll(max(0.0, min(left, TICK)) * 1000))
        if jail.orders.fileno() in ready:
            return "", peak
        pids, threads = tree.below(jail.root, request["processes"])
        used = tree.memory(pids, request["memory"])
        peak = max(peak, used)
        why = tree.excess(used, threads, request)
        if host.fileno() in ready:
            why = "killed"
        if why or left <= 0:
            return why or "timeout", peak


def _judged(said: dict[str, object], why: str, peak: int, request: Request) -> dict[str, object]:
    base: dict[str, object] = {
        "cpu_seconds": said.get("cpu", 0.0),
        "peak_memory": max(peak, int(str(said.get("peak", 0)))),
    }
    if "infra" in said:
        return {**base, "status": "infra_error", "message": said["infra"]}
    if why:
        return {**base, **stopped(why, request["processes"])}
    if "wait" not in said:
        return {**base, "status": "infra_error", "message": "the warden of the jail died"}
    return {**base, **ended(int(str(said["wait"])))}
