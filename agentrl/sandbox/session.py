"""A persistent Python session on the host's side: cells, snapshots and branches."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from agentrl.errors import SandboxError, SandboxUnavailable
from agentrl.sandbox.connection import GRACE, START, memory_file, result_of
from agentrl.sandbox.result import ExecutionResult, Status, check_text
from agentrl.sandbox.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentrl.sandbox.connection import Supervisor
    from agentrl.sandbox.result import Limits, Tier


GONE = "the process that held the variables was ended, by an earlier cell or by another branch of the session"


@dataclass
class _Jail:
    """One jail and the states in it, shared by a session, its snapshots and its branches.

    Attributes:
        uses: how many sessions and snapshots stand on each state; the others are dropped.
        files_of: the state whose files lie in the work folder; None where they are nobody's.
        saved: states that hold a copy of their files.
        parents: states that cells went on from.
        gone: states that have ended before they were dropped.
        last: what the supervisor said when the whole jail ended.
    """

    supervisor: Supervisor
    lock: threading.Lock = field(default_factory=threading.Lock)
    uses: dict[int, int] = field(default_factory=dict[int, int])
    dropped: list[int] = field(default_factory=list[int])
    saved: set[int] = field(default_factory=set[int])
    parents: set[int] = field(default_factory=set[int])
    gone: set[int] = field(default_factory=set[int])
    last: dict[str, object] = field(default_factory=dict[str, object])
    files_of: int | None = 0
    alive: bool = True

    def take(self, state: int) -> int:
        self.uses[state] = self.uses.get(state, 0) + 1
        return state

    def give(self, state: int) -> None:
        self.uses[state] -= 1
        if self.uses[state] == 0:
            del self.uses[state]
            self.dropped.append(state)
            for kept in (self.saved, self.parents, self.gone):
                kept.discard(state)
        if not self.uses:
            self.end()

    def end(self) -> None:
        self.alive = False
        self.supervisor.close()

    def note(self, said: dict[str, object]) -> None:
        """Note which states have ended; an answer that names none is the last one."""
        gone = said.get("gone")
        if isinstance(gone, list):
            self.gone |= {state for state in gone if state in self.uses}
        elif self.alive:
            self.last = {"status": "infra_error", "message": "the supervisor of the session ended", **said}
            self.end()

    def loss(self, state: int) -> dict[str, object]:
        """Say how a state was lost; nothing where it stands."""
        if not self.alive:
            return self.last
        return {"status": "killed", "message": GONE} if state in self.gone else {}

    def is_alone(self, state: int) -> bool:
        """Say whether a state may end with the cells that go on from it."""
        return self.uses[state] == 1 and state not in self.parents

    def order(self, word: str, state: int, limits: Limits, descriptors: list[int]) -> None:
        content = {
            "word": word,
            "state": state,
            "drop": self.dropped,
            "wall_seconds": limits.wall_seconds,
            "memory": limits.memory,
            "processes": limits.processes,
        }
        socket.send_fds(self.supervisor.socket, [json.dumps(content).encode()], descriptors)
        self.dropped = []

    def save(self, state: int, limits: Limits) -> None:
        """Let a state copy its files, unless it has. One that does not is gone."""
        if state in self.saved or self.loss(state):
            return
        self.order("save", state, limits, [])
        self.supervisor.socket.settimeout(START)
        said = _read(self)
        self.note(said)
        if said.get("saved"):
            self.saved.add(state)

    def make_room(self, state: int, limits: Limits) -> bool:
        """Save the files of another state before this one lays out its own; return whether it must."""
        if self.files_of == state:
            return False
        if self.files_of in self.uses:
            self.save(self.files_of, limits)
        return True


class Snapshot:
    """A state of a session, with the files of its work folder. `close` gives it back."""

    def __init__(self, jail: _Jail, state: int, cells: int) -> None:
        self._jail, self._state, self._cells = jail, jail.take(state), cells
        self._closed = False

    def close(self) -> None:
        """Forget the state."""
        with self._jail.lock:
            if not self._closed and self._jail.alive:
                self._jail.give(self._state)
            self._closed = True


class JailSession:
    """A Python session in a jail of ours. Threads may share it; its cells run one after the other.

    A cell that is stopped leaves the variables as they were before, and so does one that ran out of memory,
    wrote too much, or leaves no memory to the next; files keep what it wrote. Where the program has ended the
    process that holds them, or keeps cells from beginning, the session's next result says so (`state_lost`),
    and the cell after it begins with none.
    """

    def __init__(
        self,
        begin: Callable[[], Supervisor],
        limits: Limits,
        tier: Tier,
        slots: threading.BoundedSemaphore,
    ) -> None:
        self.limits = limits
        self.tier = tier
        self._begin, self._slots = begin, slots
        self._cells = 0
        self._seed: int | None = None
        self._closed = False
        self._state = 0
        self._jail: _Jail | None = self._opened()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, code: str, limits: Limits | None = None, *, stdin: str = "") -> ExecutionResult:
        """Run one cell; of its limits, disk is the session's.

        Raises:
            SandboxError: the session was closed.
            TypeError: the code or the input is no text.
        """
        check_text("the code of a cell", code)
        check_text("the input of a cell", stdin)
        within = limits or self.limits
        self._check_open()
        with self._slots, Streams(within) as streams:
            began = time.monotonic()
            try:
                jail = self._standing_or_new()
            except SandboxError as error:
                return ExecutionResult(
                    Status.INFRA_ERROR, tier=self.tier, message=str(error), state_lost=True
                )
            with jail.lock:
                said = jail.loss(self._state) or self._cell(jail, code, within, streams, stdin)
                loss = jail.loss(self._state)
                if loss:
                    said = {**loss, **said, "lost": True}
                    self._leave(jail)
            return result_of(said, streams, time.monotonic() - began, self.tier)

    def snapshot(self) -> Snapshot:
        """Keep the state as it is now, files included.

        Raises:
            SandboxError: the session was closed, or could not be started anew.
        """
        self._check_open()
        jail = self._standing_or_new()
        with jail.lock:
            try:
                jail.save(self._state, self.limits)
            except OSError as error:
                jail.note({"status": "infra_error", "message": str(error)})
            return Snapshot(jail, self._state, self._cells)

    def restore(self, snapshot: Snapshot, *, seed: int | None = None) -> None:
        """Go back to a snapshot of this session or of a branch of it.

        Args:
            snapshot: a state of the same jail.
            seed: reseeds the generators; None lets them repeat what they did after the snapshot.

        Raises:
            SandboxError: the snapshot was closed or is of another jail, or the session was closed.
            TypeError: it is no snapshot.
        """
        if not isinstance(snapshot, Snapshot):
            raise TypeError(f"a session goes back to what its snapshot() returned; got {snapshot!r:.60}.")
        self._check_open()
        jail = snapshot._jail
        if snapshot._closed:
            raise SandboxError("the snapshot was closed. Close it when nobody goes back to it any more.")
        if self._jail is not None and self._jail is not jail:
            raise SandboxError("a session goes back only to snapshots of its own jail, or of its branches.")
        with jail.lock:
            jail.take(snapshot._state)
            if self._jail is jail:
                jail.give(self._state)
            self._jail, self._state = jail, snapshot._state
            self._cells, self._seed = snapshot._cells, seed

    def branch(self, *, seed: int | None = None) -> JailSession:
        """Return a second session that goes on from here, in the same jail and under the same memory limit.

        Raises:
            SandboxError: the session was closed, or could not be started anew.
        """
        snapshot = self.snapshot()
        other = JailSession.__new__(JailSession)
        other.limits, other.tier = self.limits, self.tier
        other._begin, other._slots = self._begin, self._slots
        other._closed, other._jail, other._state = False, None, 0
        other.restore(snapshot, seed=seed)
        snapshot.close()
        return other

    def close(self) -> None:
        """End the session; its jail stands while snapshots or branches use it."""
        if not self._closed and self._jail is not None:
            with self._jail.lock:
                self._leave(self._jail)
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise SandboxError("the session was closed. Open another one.")

    def _opened(self) -> _Jail:
        try:
            jail = _Jail(self._begin())
        except (OSError, SandboxUnavailable) as error:
            raise SandboxError(f"the session did not start: {error}") from error
        said = _read(jail)
        if "state" not in said:
            jail.end()
            raise SandboxError(f"the session did not start: {said.get('message', 'its supervisor died')}")
        self._state, self._cells = jail.take(0), 0
        return jail

    def _standing_or_new(self) -> _Jail:
        if self._jail is None:
            self._jail = self._opened()
        return self._jail

    def _cell(
        self, jail: _Jail, code: str, limits: Limits, streams: Streams, stdin: str
    ) -> dict[str, object]:
        said: dict[str, object]
        try:
            said = self._asked(jail, code, limits, streams, stdin)
        except OSError as error:
            said = {"status": "infra_error", "message": f"the session failed: {error}"}
        state = int(str(said.get("state", self._state)))
        if state != self._state and not streams.flooded:
            self._advance(jail, state)
        elif "state" in said:
            jail.files_of = None if self._state in jail.saved else self._state
            jail.dropped += [state] if state != self._state else []
        jail.note(said)
        return said

    def _asked(
        self, jail: _Jail, code: str, limits: Limits, streams: Streams, stdin: str
    ) -> dict[str, object]:
        restore = jail.make_room(self._state, limits)
        loss = jail.loss(self._state)
        if loss:  # found out while the other's files were saved
            return {**loss, "gone": []}
        cell = {
            "code": code,
            "number": self._cells + 1,
            "seed": self._seed,
            "restore": restore,
            "apart": not jail.is_alone(self._state),
        }
        payload = memory_file(cell)
        try:
            jail.order("cell", self._state, limits, [payload, *streams.theirs])
        finally:
            os.close(payload)
        streams.release()
        return jail.supervisor.verdict(streams, stdin, limits.wall_seconds + GRACE)

    def _advance(self, jail: _Jail, state: int) -> None:
        before, self._state = self._state, jail.take(state)
        jail.parents.add(before)
        jail.give(before)
        jail.files_of = state
        self._cells += 1
        self._seed = None

    def _leave(self, jail: _Jail) -> None:
        if jail.alive:
            jail.give(self._state)
        self._jail = None


def _read(jail: _Jail) -> dict[str, object]:
    try:
        data = jail.supervisor.socket.recv(1 << 16)
    except OSError as error:
        return {"message": str(error)}
    said: dict[str, object] = json.loads(data) if data else {}
    return said
