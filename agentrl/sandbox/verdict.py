"""What a supervisor says of a program, in the words of a result."""

from __future__ import annotations

import os

INSIDE = 65534
TICK = 0.02
OUT_OF_MEMORY = "MemoryError: the limit on memory leaves no more"  # ends an error that no program raised


def stopped(why: str, processes: int) -> dict[str, object]:
    """Say that a program was stopped, and why; so many processes it may have."""
    if why == "processes":
        words = f"the program had more than {processes} processes and threads together (processes)"
        return {"status": "killed", "message": words}
    return {"status": why}


def ended(code: int) -> dict[str, object]:
    """Say how a program ended, by its wait status."""
    if os.WIFSIGNALED(code):
        return {"status": "killed", "signal": os.WTERMSIG(code)}
    return exited(os.WEXITSTATUS(code))


def exited(status: int) -> dict[str, object]:
    """Say with which number a program ended by itself."""
    return {"status": "ok" if status == 0 else "error", "returncode": status}
