"""Jails for the tests of the sandbox."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import SandboxUnavailable
from agentrl.sandbox import tree
from agentrl.sandbox.jail import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentrl.sandbox.result import Limits

READABLE_PYTHON = "/usr/bin/python3"  # where only strict binds the interpreter in, any user must read it


@pytest.fixture(scope="session")
def open_jail() -> Callable[[str, Limits], Sandbox]:
    """Open a tier of the jail, or skip the test where this machine has none."""
    return _opened


def _opened(tier: str, limits: Limits) -> Sandbox:
    python = sys.executable if tier in {"auto", "strict"} else READABLE_PYTHON
    try:
        return Sandbox(tier, limits=limits, python=python)
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def jail_ahead() -> Callable[[Sandbox], list[int]]:
    """Wait until the jail that stands ahead is all that a sandbox has; return its processes."""
    return _ahead


def _ahead(sandbox: Sandbox) -> list[int]:
    """They are a supervisor, a warden, and the process of the program."""
    assert sandbox._server is not None
    server, deadline = sandbox._server._process.pid, time.monotonic() + 60
    while True:
        found = tree.below(server)[0]
        time.sleep(0.05)
        if len(found) == 3 and tree.below(server)[0] == found:
            return found
        assert time.monotonic() < deadline, f"these are left: {found}"
