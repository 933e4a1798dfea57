"""What a supervisor says of a program, in the words of a result."""

from __future__ import annotations

import os

INSIDE = 65534
TICK = 0.02


def stopped(why: str) -> dict[str, object]:
    """Say that a program was stopped, and why."""
    if why == "processes":
        return {"status": "killed", "message": "the program had too many processes and threads"}
    return {"status": why}


def ended(code: int) -> dict[str, object]:
    """Say how a program ended, by its wait status."""
    if os.WIFSIGNALED(code):
        return {"status": "killed", "signal": os.WTERMSIG(code)}
    return exited(os.WEXITSTATUS(code))


def exited(status: int) -> dict[str, object]:
    """Say with which number a program ended by itself."""
    return {"status": "ok" if status == 0 else "error", "returncode": status}
