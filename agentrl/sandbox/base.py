"""What every back end of the sandbox can do, whoever holds the program."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentrl.sandbox.result import ExecutionResult, Limits, Program, Tier


class Session(Protocol):
    """A Python interpreter that remembers: each cell sees the variables of the cells before it.

    A cell that is stopped leaves the variables as they were before it. The value of a cell's last expression
    is shown, as in a notebook. Threads and child processes do not outlive their cell.
    """

    def run(self, code: str, limits: Limits | None = None, *, stdin: str = "") -> ExecutionResult:
        """Run one cell; only its clock, output and memory limits count."""
        ...

    def branch(self) -> Session:
        """Return a second session that goes on from here on its own.

        Raises:
            SandboxError: the back end has no branches, or the state was lost.
        """
        ...

    def close(self) -> None:
        """End the session."""
        ...


class Backend(Protocol):
    """Somebody who runs programs. `agentrl.sandbox.jail.Sandbox` is ours.

    Attributes:
        tier: how strongly programs are held; stamped on every result.
        limits: of executions that name none.
    """

    tier: Tier
    limits: Limits

    def run(self, program: Program | str, limits: Limits | None = None) -> ExecutionResult:
        """Run one program to its end.

        Raises:
            SandboxError: the back end was closed.
        """
        ...

    async def execute(self, program: Program | str, limits: Limits | None = None) -> ExecutionResult:
        """Run one program without blocking the event loop."""
        ...

    def open_session(
        self,
        limits: Limits | None = None,
        *,
        files: Mapping[str, str] | None = None,
        seed: int = 0,
        setup: str = "",
    ) -> Session:
        """Open a session with an empty state.

        Args:
            limits: of every cell that names none.
            files: relative path to content, laid into the work folder.
            seed: of the generators of `random` and numpy, at the beginning.
            setup: Python that runs before the first cell.

        Raises:
            SandboxError: it could not be opened.
        """
        ...

    def close(self) -> None:
        """End everything that still runs."""
        ...


def parallel_default() -> int:
    """Return how many programs may run at once, so that none runs out of time because of the others."""
    return max(2, 2 * (os.cpu_count() or 1))
