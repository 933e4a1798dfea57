"""Whether a tier holds what it promises on this machine, seen by trying from the inside."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from agentrl.errors import SandboxUnavailable
from agentrl.sandbox.jail import Sandbox
from agentrl.sandbox.result import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentrl.sandbox.result import Tier

_ATTEMPTS: Final = {
    "connect": "import socket; socket.create_connection(('127.0.0.1', PORT), 1); print('REACHED')",
    "read": "open('/proc/PID/environ').read(); print('REACHED')",
    "write": "open('/var/tmp/agentrl-trial', 'w'); print('REACHED')",
    "kill": "import os; os.kill(PID, 0); print('REACHED')",
    "namespace": "import ctypes; print('REACHED' if ctypes.CDLL(None).unshare(0x10000000) == 0 else '')",
    "fork": (
        "import os, time\nfor _ in range(400):\n    if os.fork() == 0:\n        time.sleep(9)\n"
        "        os._exit(0)\nprint('REACHED')"
    ),
    "memory": "data = bytearray(1 << 30); print('REACHED')",
}


def trial(tier: Tier) -> Mapping[str, str]:
    """Try what a jail forbids; return "held" or what happened instead, by name."""
    limits = Limits(wall_seconds=5, memory=256 << 20)
    try:
        with socket.create_server(("127.0.0.1", 0)) as server, Sandbox(str(tier), limits=limits) as sandbox:
            port = str(server.getsockname()[1])
            return {name: _tried(sandbox, code, port) for name, code in _ATTEMPTS.items()}
    except SandboxUnavailable as error:
        return {"start": str(error)}


def _tried(sandbox: Sandbox, code: str, port: str) -> str:
    result = sandbox.run(code.replace("PORT", port).replace("PID", str(os.getpid())))
    if result.message and not result.stdout and result.status == "infra_error":
        return result.message
    return "NOT HELD" if "REACHED" in result.stdout else "held"
