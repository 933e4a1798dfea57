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
from typing import TYPE_CHECKING, NoReturn, Self

from agentrl.sandbox import tree
from agentrl.sandbox.keeper import Keeper, listen
from agentrl.sandbox.verdict import TICK, ended, stopped
from agentrl.sandbox.warden import close_all_but

if TYPE_CHECKING:
    from agentrl.sandbox.inmate import Request
    from agentrl.sandbox.walls import Walls

PATIENCE = 20.0


def supervise(request: Request, streams: tuple[int, ...], host: socket.socket, house: House) -> NoReturn:
    """Hold one program, or one session, and tell the host what became of it."""
    try:
        if request["session"]:
            _tell(host, house.session(request, host))
        else:
            house.execute(request, streams, host)
    except BaseException as error:
        _tell(host, {"status": "infra_error", "message": f"{type(error).__name__}: {error}"})
    os._exit(0)


def _tell(host: socket.socket, answer: dict[str, object]) -> None:
    with contextlib.suppress(OSError):
        host.send(json.dumps(answer).encode())


@dataclass(frozen=True)
class House:
    """What all jails of one fork server share."""

    walls: Walls

    def execute(self, request: Request, streams: tuple[int, ...], host: socket.socket) -> None:
        """Start a program, watch it, end it and tell the host; what is left of the jail goes afterwards."""
        with Jail(self.walls, request, streams) as jail:
            why, peak = _watch(jail, request, host, time.monotonic())
            said = jail.end()
            _tell(host, {**_judged(said, why, peak), "layers": self.walls.layers()})

    def session(self, request: Request, host: socket.socket) -> dict[str, object]:
        """Keep a session until the host hangs up; return why it could not be kept."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listen(ours)  # before the first word: only then does the kernel name its sender
        null = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
        with Jail(self.walls, request, (*null, theirs.detach())) as jail, ours:
            return Keeper(jail, host, self.walls.layers()).keep(ours)


class Jail:
    """A warden and everything under it.

    Attributes:
        root: the process under which everything of the jail runs; `orders` the connection to its warden.
    """

    def __init__(self, walls: Walls, request: Request, streams: tuple[int, ...]) -> None:
        self._walls = walls
        self._request = request
        self._streams = streams
        self._work = ""

    def __enter__(self) -> Self:
        self.orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listen(self.orders)  # before the first word: only then does the kernel name its sender
        self._work = self._walls.prepare()
        self._started = os.fork()
        if self._started == 0:
            self._enter(theirs)
        theirs.close()
        for stream in self._streams:
            os.close(stream)
        self.root = self._walls.root(self._started, self.orders)
        return self

    def _enter(self, orders: socket.socket) -> NoReturn:
        try:
            self.orders.close()
            close_all_but(orders.fileno(), *self._streams)
            self._walls.enter(self._request, self._streams, orders, self._work)
        finally:
            os._exit(1)

    def end(self) -> dict[str, object]:
        """End everything in the jail; return what the warden said before."""
        with contextlib.suppress(OSError):
            self.orders.send(b"end")
        said: dict[str, object] = {}
        deadline = time.monotonic() + PATIENCE
        poll = select.poll()
        poll.register(self.orders, select.POLLIN)
        while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            data = self._received()
            if not data:
                break
            said |= json.loads(data)
            if "cpu" in said:
                break
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
        while True:
            for pid in tree.below(os.getpid())[0]:
                if pid != self._started:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return


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


def _judged(said: dict[str, object], why: str, peak: int) -> dict[str, object]:
    base: dict[str, object] = {
        "cpu_seconds": said.get("cpu", 0.0),
        "peak_memory": max(peak, int(str(said.get("peak", 0)))),
    }
    if "infra" in said:
        return {**base, "status": "infra_error", "message": said["infra"]}
    if why:
        return {**base, **stopped(why)}
    if "wait" not in said:
        return {**base, "status": "infra_error", "message": "the warden of the jail died"}
    return {**base, **ended(int(str(said["wait"])))}
