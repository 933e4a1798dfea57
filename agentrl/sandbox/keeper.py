"""The supervisor's side of a session: which processes are states, which cell runs, and what ends with it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from agentrl.sandbox import tree
from agentrl.sandbox.verdict import TICK, ended, exited, stopped

if TYPE_CHECKING:
    from agentrl.sandbox.supervisor import Jail

_PASS_CREDENTIALS, _CREDENTIALS = 16, 2
PATIENCE = 30.0
ATTEMPTS = 20
BEGINNING = 10.0  # seconds within which a state begins a cell, or never does


class Order(TypedDict):
    """What the host asks: run a cell on a state, save a state's files, drop states.

    `drop` comes with every order; `wall_seconds` counts for cells.
    """

    word: str
    state: int
    drop: list[int]
    wall_seconds: float
    memory: int
    processes: int


@dataclass
class State:
    """A process that waits with the variables of a session.

    Attributes:
        started: how many cells began from it.
        ended: whether it was killed from here.
    """

    channel: socket.socket
    pid: int
    pidfd: int
    started: int = 0
    ended: bool = False

    def thaw(self) -> None:
        """Let it run."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGCONT)

    def end(self) -> None:
        """Kill it."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self.ended = True

    def has_ended(self) -> bool:
        """Say whether it is gone, or going."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        poll.register(self.channel, select.POLLHUP)  # which a process that is ending closes first
        return self.ended or bool(poll.poll(0))

    def drop(self) -> None:
        """End it and forget it."""
        self.end()
        os.close(self.pidfd)
        self.channel.close()


class Said(NamedTuple):
    """A message of a state, and the number of the process that sent it, by the kernel's word."""

    message: dict[str, object]
    pid: int


class Lost(Exception):
    """The program destroyed its whole session; the message says how."""


ENDED = (
    "the process that held the variables has ended, by what the program did in this cell or before, "
    "or by another branch of the session"
)
UNDONE = "the cell's process ended before the cell did; the variables are as they were before it"
CROWDED = "the cell did not begin, for what the session left takes all the processes that it may have"
STUCK = "no cell begins any more, by what the program did before"


class Keeper:
    """Keeps the states of one session; between cells all of them are frozen.

    Attributes:
        own_memory: bytes that the jail held before the first cell, which are not the program's.
    """

    def __init__(self, jail: Jail, host: socket.socket, layers: list[str]) -> None:
        self.jail = jail
        self.host = host
        self._layers = layers
        self.own_memory = 0
        self.states: dict[int, State] = {}
        self._next = 0

    def keep(self, first: socket.socket) -> dict[str, object]:
        """Obey the host until it hangs up or nothing is left to keep; return the last words."""
        said = self._wait(first, "ready")
        if said is None or not self._adopt(first, said.pid):
            return {"status": "infra_error", "message": self._why_not()}
        self._freeze()
        self.own_memory = tree.memory(tree.below(self.jail.root)[0], sys.maxsize)
        self.host.send(json.dumps({"state": 0, "layers": self._layers}).encode())
        while True:
            data, fds, _, _ = socket.recv_fds(self.host, 1 << 16, 4)
            if not data:
                return {}
            if data == b"k":  # a cell that ended before the word to stop it came
                continue
            try:
                answer = self._obey(json.loads(data), fds)
            except Lost as lost:
                return {"status": "killed", "lost": True, "message": str(lost), "layers": self._layers}
            self.host.send(json.dumps({**answer, "gone": self._gone()}).encode())

    def _gone(self) -> list[int]:
        """Drop the states that have ended, and return them; another branch may have done it."""
        gone = [number for number, state in self.states.items() if state.has_ended()]
        for number in gone:
            self.states.pop(number).drop()
        return gone

    def _why_not(self) -> str:
        return str(self.jail.end().get("infra", "the first process of the session did not start"))

    def _obey(self, order: Order, fds: list[int]) -> dict[str, object]:
        for number in order["drop"]:
            if number in self.states:
                self.states.pop(number).drop()
        if order["word"] == "drop":
            return {}
        state = self.states[order["state"]]
        if order["word"] == "save":
            return self._save(state)
        return {**self._cell(state, order, fds), "layers": self._layers}

    def _save(self, state: State) -> dict[str, object]:
        """Let a state save its files; one that does not is of no use any more."""
        state.thaw()
        with contextlib.suppress(OSError):
            state.channel.send(b"save")
        saved = self._wait(state.channel, "saved") is not None
        if not saved:
            state.end()
        self._freeze()
        return {"saved": saved}

    def _cell(self, state: State, order: Order, fds: list[int]) -> dict[str, object]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listen(ours)
        state.started += 1
        ran = _Run(self, ours, state, order)
        state.thaw()
        with theirs, contextlib.suppress(OSError):
            socket.send_fds(state.channel, [b"cell"], [*fds, theirs.fileno()])
        for each in fds:
            os.close(each)
        verdict, said = ran.outcome()
        base: dict[str, object] = {"cpu_seconds": ran.cpu, "peak_memory": ran.peak}
        if said is None or not self._adopt(ours, said.pid):
            ours.close()
            if ran.stuck:
                state.end()
            self._freeze()
            if said is not None:  # a cell that ended well, and its process at once after it
                verdict = {"status": "killed", "message": UNDONE}
            if state.has_ended():
                why = STUCK if ran.stuck else ENDED
                return {**base, "status": "killed", "message": why}
            return {**base, **verdict, "state": order["state"]}
        self._freeze()
        return {**base, **verdict, "state": self._next - 1}

    def _adopt(self, channel: socket.socket, pid: int) -> bool:
        try:
            pidfd = os.pidfd_open(pid)
        except (OSError, ValueError):
            return False
        if not self._holds(pid):
            os.close(pidfd)
            return False
        self.states[self._next] = State(channel, pid, pidfd)
        self._next += 1
        return True

    def _holds(self, pid: int) -> bool:
        """Say whether a process is in the jail; one whose parent is just ending may be out of sight."""
        for _ in range(ATTEMPTS):
            if pid in tree.below(self.jail.root)[0]:
                return True
            time.sleep(0.01)
        return False

    def _freeze(self) -> None:
        """Stop every state and end everything else."""
        keep = [tree.inner_pid(state.pid) for state in self.states.values() if not state.has_ended()]
        with contextlib.suppress(OSError):
            self.jail.orders.send(json.dumps({"keep": keep}).encode())
        poll = select.poll()
        poll.register(self.jail.orders, select.POLLIN)
        if not poll.poll(PATIENCE * 1000) or not self.jail.orders.recv(4096).startswith(b'{"kept"'):
            raise TimeoutError("the warden of the session did not stop it between its cells")

    def _wait(self, channel: socket.socket, word: str) -> Said | None:
        """Wait for a message with a word; what comes before it is about cells that were stopped."""
        deadline = time.monotonic() + PATIENCE
        poll = select.poll()
        for item in (channel, self.jail.orders):
            poll.register(item, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ready = dict(poll.poll(left * 1000))
            if channel.fileno() not in ready:
                return None
            said = heard(channel)
            if said is None or word in said.message:
                return said
        return None


class _Run:
    """One cell, from its start to its end.

    Attributes:
        peak: bytes of the whole session, as polled; `cpu` seconds of the cell's own processes.
        stuck: whether the cell ended before the program's code began.
    """

    def __init__(self, keeper: Keeper, own: socket.socket, before: State, order: Order) -> None:
        self._jail = keeper.jail
        self._host = keeper.host
        self._channels = {each.fileno(): each for each in (own, before.channel)}
        self._own = own
        self._cell = before.started
        self._order = order
        self._allowed: tree.Allowance = {
            "memory": order["memory"] + keeper.own_memory,
            "processes": order["processes"],
        }
        self._deadline = time.monotonic() + BEGINNING
        self._others = set(tree.below(keeper.jail.root)[0])
        self._poll = select.poll()
        for item in (own, before.channel, self._host, self._jail.orders):
            self._poll.register(item, select.POLLIN)
        self.peak = 0
        self.cpu = 0.0
        self._shared = len(keeper.states) > 1
        self._begun = self.stuck = False

    def outcome(self) -> tuple[dict[str, object], Said | None]:
        """Wait for the end; return the verdict, and what the new state said if there is one."""
        while True:
            left = self._deadline - time.monotonic()
            ready = dict(self._poll.poll(max(0.0, min(left, TICK)) * 1000))
            why = self._measured()
            end = self._heard(ready)
            if end is not None and (why != "memory" or self.stuck):
                return end
            if self._host.fileno() in ready:
                why = self._called() or why
            if self._jail.orders.fileno() in ready:
                raise Lost("the program ended its session")
            if not self._channels:
                why = "killed"
            if why or self._is_late():
                return stopped(why or "timeout", self._order["processes"]), None

    def _is_late(self) -> bool:
        """Say whether the time is up; a cell that has not even begun then never will."""
        if time.monotonic() < self._deadline:
            return False
        self.stuck = self.stuck or not self._has_begun()
        return time.monotonic() >= self._deadline

    def _heard(self, ready: dict[int, int]) -> tuple[dict[str, object], Said | None] | None:
        for number in ready.keys() & self._channels.keys():
            channel = self._channels[number]
            said = heard(channel)
            if said is None:
                self._poll.unregister(number)
                del self._channels[number]
            elif channel is self._own and "begun" in said.message:
                self._begin()
            elif channel is self._own and "lacking" in said.message:
                return stopped("memory", self._order["processes"]), None
            elif channel is self._own:
                return exited(_number(said.message.get("end")) & 255), said
            elif said.message.get("cell") == self._cell:
                crowded = said.message.get("crowded") is True
                self.stuck = not self._has_begun() and not (crowded and self._shared)
                why = CROWDED if crowded else UNDONE
                return {**ended(_number(said.message.get("wait"))), "message": why}, None
        return None

    def _has_begun(self) -> bool:
        """Say whether the cell's process said so before it ended."""
        own = self._own.fileno()
        if not self._begun and own in self._channels and own in dict(self._poll.poll(0)):
            said = heard(self._own)
            if said is not None and "begun" in said.message:
                self._begin()
        return self._begun

    def _begin(self) -> None:
        """Let the cell's clock run."""
        if not self._begun:
            self._begun = True
            self._deadline = time.monotonic() + self._order["wall_seconds"]

    def _called(self) -> str:
        if not self._host.recv(16):
            raise Lost("nobody waits for the session")
        return "killed"

    def _measured(self) -> str:
        pids, threads = tree.below(self._jail.root, self._order["processes"] + len(self._others))
        used = tree.memory(pids, self._allowed["memory"])
        self.peak = max(self.peak, used)
        self.cpu = max(self.cpu, tree.cpu_seconds([pid for pid in pids if pid not in self._others]))
        return tree.excess(used, threads - len(self._others), self._allowed)


def listen(channel: socket.socket) -> None:
    """Ask the kernel to name the sender of each message."""
    channel.setsockopt(socket.SOL_SOCKET, _PASS_CREDENTIALS, 1)


def heard(channel: socket.socket) -> Said | None:
    """Read one message of a state; None where the channel has closed. Nonsense is an empty message."""
    try:
        data, extra, _, _ = channel.recvmsg(4096, socket.CMSG_SPACE(12))
    except OSError:
        return None
    if not data:
        return None
    pid = next((struct.unpack("3i", item[2])[0] for item in extra if item[1] == _CREDENTIALS), -1)
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        message = {}
    return Said(message if isinstance(message, dict) else {}, pid)


def _number(value: object) -> int:
    """Return a number of 16 bits, as a wait status is; 1 where a program sent something else."""
    return value if isinstance(value, int) and 0 <= value < 1 << 16 else 1
