"""Processes under a process, as /proc shows them: who they are, and what they use."""

from __future__ import annotations

import contextlib
import math
import os
import resource
from typing import TypedDict

_PAGE = resource.getpagesize()
_CLOCK = os.sysconf("SC_CLK_TCK")


def below(root: int, most: float = math.inf) -> tuple[list[int], int]:
    """Return every process under a root, and the number of their threads.

    Children of a process that ends meanwhile fall to the root of a jail, so that is looked at once more.
    Beyond `most` threads it looks no further: while processes multiply, nobody could count them all.
    """
    found: dict[int, None] = {}
    waiting, threads = [root], 0
    while waiting and threads <= most:
        pid = waiting.pop()
        children, count = _family(pid)
        threads += count if pid != root else 0
        new = [child for child in children if child not in found]
        found.update(dict.fromkeys(new))
        waiting += new or ([root] if pid != root and not waiting else [])
    return list(found), threads


def _family(pid: int) -> tuple[list[int], int]:
    """Return the children of a process, and how many threads it has."""
    children: list[int] = []
    count = 0
    with contextlib.suppress(OSError):
        tasks = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  # no pathlib where every millisecond counts
        count = len(tasks)
        for task in tasks:
            with open(f"/proc/{pid}/task/{task}/children", "rb", buffering=0) as file:  # noqa: PTH123
                children += [int(word) for word in file.read().split()]
    return children, count


def memory(pids: list[int], limit: int) -> int:
    """Return bytes that processes hold together.

    Resident pages are cheap to read and count shared ones once for each process; only where their sum is
    beyond the limit are shared pages divided among those that share them.
    """
    resident = sum(_resident(pid) for pid in pids)
    if resident <= limit:
        return resident
    return sum(_proportional(pid) for pid in pids)


class Allowance(TypedDict):
    """Of what the processes of a jail may have too much: bytes, processes with threads."""

    memory: int
    processes: int


def excess(used: int, threads: int, allowed: Allowance) -> str:
    """Say of what there is too much: "memory", "processes" or ""."""
    if used > allowed["memory"]:
        return "memory"
    return "processes" if threads > allowed["processes"] else ""


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * _PAGE
    return 0


def _proportional(pid: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123
        for line in file:
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) << 10
    return _resident(pid)


def cpu_seconds(pids: list[int]) -> float:
    """Return seconds of CPU that processes have used, with those of their children that were waited for."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError, IndexError, ValueError), open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            # The name of the program stands in parentheses and may hold spaces.
            ticks += sum(int(word) for word in file.read().rsplit(b")", 1)[1].split()[11:15])
    return ticks / _CLOCK


def inner_pid(pid: int) -> int:
    """Return the number that a process has in its innermost namespace; itself where there is none."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123
        for line in file:
            if line.startswith(b"NSpid:"):
                return int(line.split()[-1])
    return pid


def threads_of(user: int) -> int:
    """Count the threads that a user has now: where there is no namespace, a limit counts them all."""
    count = 0
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid == user:  # noqa: PTH116
                    count += len(os.listdir(f"/proc/{name}/task"))  # noqa: PTH208
    return count
