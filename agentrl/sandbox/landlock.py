"""Landlock: a process that gives up files, TCP, abstract sockets and signals outside its own domain."""

from __future__ import annotations

import ctypes
import functools
import os
from typing import TYPE_CHECKING

from agentrl.sandbox.kernel import PR_SET_NO_NEW_PRIVS, prctl, syscall

if TYPE_CHECKING:
    from collections.abc import Sequence

NEEDED_ABI = 6  # scopes for signals and abstract sockets; below it the landlock tier alone does not hold

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_READ = (1 << 0) | (1 << 2) | (1 << 3)
_LIST = 1 << 3
_FILE_ONLY = (1 << 0) | (1 << 1) | (1 << 2) | (1 << 14) | (1 << 15)
_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("fd", ctypes.c_int32))


@functools.cache
def abi() -> int:
    """Return the version that the kernel offers, 0 if none."""
    try:
        return syscall("landlock", _CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    except OSError:
        return 0


def restrict(
    readable: Sequence[str], writable: Sequence[str], *, listable: Sequence[str] = (), most: int = 99
) -> int:
    """Keep this process to these paths; return the version that did it.

    Args:
        readable: folders and files that may be read and executed.
        writable: folders in which everything is allowed.
        listable: folders whose names may be seen, theirs and those of all folders in them.
        most: use no newer version, to see what an older kernel would hold.

    Raises:
        OSError: the kernel refused.
    """
    version = min(abi(), most)
    every = (1 << _FS_BITS.get(version, 16)) - 1
    ruleset = _Ruleset(every, 3 if version >= 4 else 0, 3 if version >= NEEDED_ABI else 0)
    size = 24 if version >= NEEDED_ABI else 16 if version >= 4 else 8
    made = syscall("landlock_create_ruleset", _CREATE, ctypes.byref(ruleset), ctypes.c_size_t(size), 0)
    for paths, allowed in ((readable, _READ), (writable, every), (listable, _LIST)):
        for path in paths:
            _allow(made, path, allowed & every)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    syscall("landlock_restrict_self", _RESTRICT, ctypes.c_int(made), 0)
    os.close(made)
    return version


def confine() -> None:
    """Make a domain that signals do not leave; files and the network stay as they are.

    Raises:
        OSError: the kernel's Landlock has no scope for signals.
    """
    if abi() < NEEDED_ABI:
        raise OSError(38, f"Landlock {abi()} has no scope for signals; {NEEDED_ABI} has")
    ruleset = _Ruleset(0, 0, 2)
    made = syscall("landlock_create_ruleset", _CREATE, ctypes.byref(ruleset), ctypes.c_size_t(24), 0)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    syscall("landlock_restrict_self", _RESTRICT, ctypes.c_int(made), 0)
    os.close(made)


def _allow(ruleset: int, path: str, allowed: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return
    if not os.path.isdir(path):  # noqa: PTH112  # no pathlib in a child
        allowed &= _FILE_ONLY
    rule = _Beneath(allowed, opened)
    syscall("landlock_add_rule", _ADD, ctypes.c_int(ruleset), 1, ctypes.byref(rule), 0)
    os.close(opened)
