"""Opens the back end that a setting names, and shares one in a process."""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING

from agentrl.sandbox.jail import Sandbox
from agentrl.sandbox.remote import RemoteSandbox

if TYPE_CHECKING:
    from agentrl.sandbox.base import Backend
    from agentrl.sandbox.result import Limits

_SHARED: dict[tuple[object, ...], Backend] = {}
_LOCK = threading.Lock()


def open_sandbox(
    isolation: str = "auto", *, limits: Limits | None = None, preload: tuple[str, ...] = ()
) -> Backend:
    """Open a back end.

    Args:
        isolation: "auto", "strict" or "landlock" for our jail; the address of a SandboxFusion server.
        limits: of executions that name none.
        preload: modules imported once, in our jail.

    Raises:
        SandboxUnavailable: this machine cannot hold programs in this way; the message names the repair.
        ConfigError: the address is none.
    """
    if "://" in isolation:
        return RemoteSandbox(isolation, limits=limits)
    return Sandbox(isolation, limits=limits, preload=preload)


def shared_sandbox(
    isolation: str = "auto", *, limits: Limits | None = None, preload: tuple[str, ...] = ()
) -> Backend:
    """Return the back end of this process with these settings; it ends with the process.

    Raises:
        SandboxUnavailable: as `open_sandbox`.
    """
    key = (os.getpid(), isolation, limits, preload)
    with _LOCK:
        if key not in _SHARED:
            _SHARED[key] = open_sandbox(isolation, limits=limits, preload=preload)
            atexit.register(_SHARED[key].close)
        return _SHARED[key]
