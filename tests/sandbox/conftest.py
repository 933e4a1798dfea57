"""Jails for the tests of the sandbox."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import SandboxUnavailable
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
    python = sys.executable if tier == "strict" else READABLE_PYTHON
    try:
        return Sandbox(tier, limits=limits, python=python)
    except SandboxUnavailable as error:
        pytest.skip(str(error))
