"""Why a program was stopped, in a sentence that names the limit and what was used of it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.sandbox.result import MIB, Status

if TYPE_CHECKING:
    from agentrl.sandbox.result import Limits


@dataclass(frozen=True)
class Used:
    """What a program used: seconds, bytes of all its processes at most, bytes that it wrote."""

    wall_seconds: float
    peak_memory: int
    output: int


def reason(status: Status, limits: Limits, used: Used, number: int = 0) -> str:
    """Say why a program was stopped; nothing where it ended by itself. `number` is the signal that ended it.

    >>> from agentrl.sandbox.result import Limits
    >>> reason(Status.TIMEOUT, Limits(wall_seconds=4), Used(4.02, 0, 0))
    'the program was stopped after 4.0 s; its limit is 4 s (wall_seconds)'
    >>> reason(Status.MEMORY, Limits(memory=256 * MIB), Used(1, 301 * MIB, 0))
    'the processes of the program held 301 MiB together; their limit is 256 MiB (memory)'
    >>> reason(Status.OK, Limits(), Used(1, 1, 1))
    ''
    """
    if status is Status.TIMEOUT:
        limit = f"{limits.wall_seconds:g} s (wall_seconds)"
        return f"the program was stopped after {used.wall_seconds:.1f} s; its limit is {limit}"
    if status is Status.MEMORY:
        return _memory(limits.memory, used.peak_memory)
    if status is Status.OUTPUT_LIMIT:
        limit = f"{_size(limits.output)} (output)"
        return f"the program wrote {_size(used.output)}, after which it was stopped; its limit is {limit}"
    if status is Status.KILLED and number:
        return f"signal {number} ({_named(number)}) ended the program"
    return ""


def _memory(limit: int, peak: int) -> str:
    if peak > limit:
        held = f"the processes of the program held {_size(peak)} together"
        return f"{held}; their limit is {_size(limit)} (memory)"
    held = f"; it held {_size(peak)} at most" if peak else ""
    return f"the program asked for more memory than its limit of {_size(limit)} (memory){held}"


def _size(count: int) -> str:
    if count < MIB:
        return f"{count:,} bytes"
    return f"{count / MIB:,.0f} MiB" if count >= 10 * MIB else f"{count / MIB:.1f} MiB"


def _named(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "a real-time signal"
