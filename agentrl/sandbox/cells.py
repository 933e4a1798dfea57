"""A session's side in the jail: a process is a state, and each cell runs in a fork of the state before it.

A state waits at its channel. A cell comes with its own streams and with a channel of its own; the fork runs
it, reports there, and waits there as the next state. The state before is untouched, so a cell that is killed
costs nothing, and two cells may start from one state. Threads and children of a cell do not outlive it.

Nothing here is trusted: whatever a program does to these processes, it does to its own session. Where other
sessions or snapshots stand on a state, its cells run in Landlock domains of their own and reach none of them.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import mmap
import os
import random
import select
import signal
import socket
import time
from typing import TYPE_CHECKING, NoReturn, TypedDict

from agentrl.sandbox import copies, landlock, script

if TYPE_CHECKING:
    import types

FORK_ATTEMPTS = 100
PATIENCE = 60.0
ROOM = 4 << 20  # bytes of address space that a cell must leave to the next one
RESERVE = 1 << 20  # and that are kept from it, to say that it had too little
_LACKING = json.dumps({"lacking": True}).encode()
_mapped = mmap.mmap


class Cell(TypedDict):
    """What the host sends for one cell.

    `seed` reseeds the generators before the cell, None leaves them; `restore` lays out the files that this
    state saved; `apart` shuts the cell off from the other states.
    """

    code: str
    number: int
    seed: int | None
    restore: bool
    apart: bool


def serve(channel: socket.socket, setup: str, seed: int) -> NoReturn:
    """Be the first state of a session, and in forks every later one."""
    script.open_streams()
    main = script.new_main()
    script.run_source(setup, "setup", main, echo=False)
    script.reseed(seed)
    _State(channel, main, os.getcwd()).serve()  # noqa: PTH109  # no pathlib in a child


class _State:
    """This process as a state.

    Attributes:
        channel: where cells come from.
        home: the work folder.
        files: what the session's folders held when they were saved; None before.
    """

    def __init__(self, channel: socket.socket, main: types.ModuleType, home: str) -> None:
        self.channel = channel
        self.main = main
        self.home = home
        self.files: copies.Copies | None = None
        self.cell = 0
        self.started = 0

    def serve(self) -> NoReturn:
        """Wait for orders until the channel closes."""
        self._tell({"ready": True})
        while True:
            try:
                word, fds, _, _ = socket.recv_fds(self.channel, 16, 5)
            except InterruptedError:
                continue
            if not word:
                os._exit(0)
            if word == b"save":
                self.files = copies.saved(_folders(self.home))
                self._tell({"saved": True})
            else:
                self._fork(fds)

    def _fork(self, fds: list[int]) -> None:
        script.flush()
        self.started += 1
        self.cell = _forked()
        if self.cell < 0:
            self._tell({"wait": signal.SIGKILL, "cell": self.started, "crowded": True})
        if self.cell == 0:
            self._become_next(fds)
            return
        for each in fds:
            os.close(each)
        if self.cell > 0:
            self._attend()

    def _attend(self) -> None:
        """Report the end of the cell's process, unless an order comes first."""
        ended = os.pidfd_open(self.cell)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(self.channel, select.POLLIN)
        if ended in dict(poll.poll()):
            self._tell({"wait": os.waitpid(self.cell, 0)[1], "cell": self.started})
            self.cell = 0
        os.close(ended)

    def _become_next(self, fds: list[int]) -> None:
        script.mend()
        payload, *streams, channel = fds
        self.channel.close()
        self.channel = socket.socket(fileno=channel)
        self.cell = self.started = 0
        # A session of its own: the kernel hangs up stopped process groups whose parent in their session ends.
        os.setsid()
        with open(payload, "rb") as file:  # noqa: PTH123  # a descriptor
            cell: Cell = json.loads(file.read())
        _redirect(streams)
        script.open_streams()
        if cell["apart"]:
            # Beyond the kernel's depth of domains, and where it has none, branches stay within reach.
            with contextlib.suppress(OSError):
                landlock.confine()
        if cell["restore"] and self.files is not None:
            copies.lay_out(self.files, _folders(self.home))
        if cell["seed"] is not None:
            script.reseed(cell["seed"])
        own = os.getpid()
        self._tell({"begun": True})
        code, lacking = self._run(cell)
        if os.getpid() != own:  # a child of the cell that fell out of it: only the cell itself goes on
            os._exit(code)
        if lacking or not _has_room():
            self._end_for_want_of_memory()
        self.files = None
        null = [os.open(os.devnull, os.O_RDWR) for _ in range(3)]
        _redirect(null)
        if _thread._count() and _forked() > 0:  # a fork has none of the cell's threads, and is the state
            while True:
                time.sleep(PATIENCE)  # until everything but the states is ended
        self._tell({"end": code})

    def _run(self, cell: Cell) -> script.Ended:
        """Run the program's code, so that where it takes all memory there is enough to go on from here."""
        try:
            reserve = _mapped(-1, RESERVE)
        except OSError:
            return script.Ended(1, lacking=True)
        try:
            ended = script.run_source(cell["code"], f"cell {cell['number']}", self.main, echo=True)
        except MemoryError:  # while the first one was told
            ended = script.Ended(1, lacking=True)
        reserve.close()
        if not ended.lacking:  # or it would show more than one that is killed
            script.flush()
        return ended

    def _end_for_want_of_memory(self) -> NoReturn:
        """Be no state: the one before goes on, as after a cell that is killed."""
        with contextlib.suppress(OSError):
            self.channel.send(_LACKING)
        while True:
            time.sleep(PATIENCE)

    def _tell(self, message: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            self.channel.send(json.dumps(message).encode())


def _forked() -> int:
    """Fork; return -1 where what earlier cells left takes all the processes and does not go away."""
    randomness = random.getstate()
    for _ in range(FORK_ATTEMPTS):
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # children of the cell, ended since: they count as processes
                pass
        with contextlib.suppress(BlockingIOError):
            child = os.fork()
            if child == 0:
                random.setstate(randomness)  # which Python seeds anew in every fork
            return child
        time.sleep(0.01)
    return -1


def _has_room() -> bool:
    """Say whether another cell has the memory to begin."""
    try:
        _mapped(-1, ROOM).close()
    except OSError:
        return False
    return True


def _redirect(streams: list[int]) -> None:
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)


def _folders(home: str) -> list[str]:
    return [home, *(["/tmp", "/dev/shm"] if home == "/work" else [])]
