"""What a supervisor puts around a program: our own namespaces, a Landlock domain, or nothing but limits."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NoReturn, Protocol

from agentrl.sandbox import kernel, landlock, warden
from agentrl.sandbox.removal import remove
from agentrl.sandbox.verdict import INSIDE

if TYPE_CHECKING:
    import socket

    from agentrl.sandbox.warden import Ground

POLLED = "memory_total: polled"


class Walls(Protocol):
    """How one tier holds a program. One value serves every jail of a fork server.

    Attributes:
        ahead: whether a jail can stand before anybody asks for it.
    """

    ahead: ClassVar[bool]

    def layers(self) -> list[str]:
        """Say what holds a program, in words."""
        ...

    def prepare(self) -> str:
        """Get this process, a supervisor, ready to start a warden; return the work folder."""
        ...

    def enter(self, orders: socket.socket, work: str, disk: int, errors: int) -> NoReturn:
        """Become the warden, in a fork of the supervisor.

        Args:
            orders: the connection to the supervisor.
            work: the work folder.
            disk: bytes that it may hold, where this must be known before the request.
            errors: a descriptor for what goes wrong in words of somebody else.
        """
        ...

    def root(self, started: int, orders: socket.socket) -> int:
        """Return the process under which everything of the jail runs, once it stands.

        Raises:
            OSError: it did not start.
        """
        ...

    def clear(self, work: str) -> None:
        """Remove what a program left in its work folder."""
        ...


def landlock_layer() -> list[str]:
    """Name the version of Landlock, if there is one."""
    return [f"landlock {landlock.abi()}"] if landlock.abi() else []


@dataclass(frozen=True)
class Namespaces:
    """The tier `strict`: every jail has namespaces of its own.

    Attributes:
        readable: folders that the interpreter needs.
        own_network: whether each jail needs a network namespace of its own; one empty one serves all where
            Landlock keeps them from each other's sockets.
        ahead: see `Walls`.
    """

    readable: tuple[str, ...]
    own_network: bool = True
    ahead: ClassVar[bool] = True

    def layers(self) -> list[str]:
        """See `Walls`."""
        kinds = ("user", "pid", "mount", "network", "ipc", "uts")
        names = [f"{kind} namespace" for kind in kinds]
        return [*names, "tmpfs", *landlock_layer(), "seccomp", "rlimits", POLLED]

    def prepare(self) -> str:
        """See `Walls`."""
        user, group = os.getuid(), os.getgid()
        flags = kernel.NEW_USER | kernel.NEW_PID | kernel.NEW_IPC | kernel.NEW_UTS
        kernel.unshare(flags | (kernel.NEW_NET if self.own_network else 0))
        kernel.map_identity(INSIDE, user, group)
        return "/work"

    def enter(self, orders: socket.socket, work: str, disk: int, errors: int) -> NoReturn:
        """See `Walls`; the warden learns later how large the work folder is."""
        warden.guard(orders, work, self.readable, warden.NAMESPACES)

    def root(self, started: int, orders: socket.socket) -> int:
        """See `Walls`."""
        return started

    def clear(self, work: str) -> None:
        """See `Walls`; it ended with its namespace."""


@dataclass(frozen=True)
class Folder:
    """The tiers `landlock` and `unconfined`: a folder for each jail, and what `ground` says.

    Attributes:
        base: where the work folders lie.
        readable: folders of the interpreter.
        named: the layers, in words.
        ahead: see `Walls`.
    """

    base: str
    readable: tuple[str, ...]
    ground: Ground
    named: tuple[str, ...]
    ahead: ClassVar[bool] = True

    def layers(self) -> list[str]:
        """See `Walls`."""
        return list(self.named)

    def prepare(self) -> str:
        """See `Walls`."""
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        return tempfile.mkdtemp(prefix="jail-", dir=self.base)

    def enter(self, orders: socket.socket, work: str, disk: int, errors: int) -> NoReturn:
        """See `Walls`."""
        warden.guard(orders, work, self.readable, self.ground)

    def root(self, started: int, orders: socket.socket) -> int:
        """See `Walls`."""
        return started

    def clear(self, work: str) -> None:
        """See `Walls`."""
        remove(work)
