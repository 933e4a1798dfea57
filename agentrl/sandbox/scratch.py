"""Folders that go with their process; where it was killed, a later process of the same user removes them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from agentrl.errors import SandboxUnavailable
from agentrl.sandbox.removal import remove
from agentrl.sandbox.verdict import INSIDE

_SWEPT: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Scratch:
    """A folder of this process among the temporary ones.

    Attributes:
        path: where it lies; everything in it goes with `close`.
    """

    path: str
    _lock: int
    _owner: int = field(default_factory=os.getpid)

    def close(self) -> None:
        """Remove it, unless this process is a fork of the one that made it."""
        if os.getpid() == self._owner:
            remove(self.path)
            with contextlib.suppress(OSError):
                os.close(self._lock)


def scratch(prefix: str) -> Scratch:
    """Make a folder, after removing those with this prefix whose processes are gone.

    A living process holds a lock on its folder, which the kernel takes away from a dead one, however it died.
    Folders of other users are left alone.

    Raises:
        SandboxUnavailable: there is no place for temporary files.
    """
    try:
        place = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise SandboxUnavailable(
            f"No folder for temporary files can be written ({error.strerror}). Set TMPDIR to one that can."
        ) from error
    if (place, prefix) not in _SWEPT:
        _SWEPT.add((place, prefix))
        sweep(prefix)
    while True:
        path = tempfile.mkdtemp(prefix=prefix)
        lock = _locked(path)
        if lock is not None and os.path.isdir(path):  # noqa: PTH112
            return Scratch(path, lock)
        if lock is not None:  # somebody swept before we held it
            os.close(lock)


def sweep(prefix: str) -> None:
    """Remove the temporary folders of this user with a prefix that no process holds."""
    users = {os.geteuid()} | ({INSIDE} if os.geteuid() == 0 else set())
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if path.lstat().st_uid not in users:
                continue
            lock = _locked(str(path))
            if lock is not None:
                remove(str(path))
                os.close(lock)


def _locked(path: str) -> int | None:
    """Take the lock of a folder; None where somebody holds it, or where it is no folder (any more)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
