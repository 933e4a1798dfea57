"""Copies of a session's files: read into memory, and laid out again with their kinds and modes.

A program made the files, so no link is followed, nothing but plain files is opened, and what refuses is
left out.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TypeAlias

from agentrl.sandbox import removal

Copies: TypeAlias = dict[str, tuple[int, bytes]]
"""By path: kind and mode as in `st_mode`, and the content of a file or the target of a link."""


def saved(tops: list[str]) -> Copies:
    """Read folders with the files, folders and links in them; a folder stands before what is in it."""
    found: Copies = {}
    waiting = [(top, os.lstat(top)) for top in tops]
    while waiting:
        folder, status = waiting.pop()
        found[folder] = status.st_mode, b""
        with contextlib.suppress(OSError):
            _admit(folder, status, 0o700)
            for path, inner in _entries(folder):
                if not stat.S_ISDIR(inner.st_mode):
                    _read_in(path, inner, found)
                elif inner.st_dev == status.st_dev:  # else an interpreter is mounted
                    waiting.append((path, inner))
    _shut(found)
    return found


def lay_out(copies: Copies, tops: list[str]) -> None:
    """Put copies in the place of everything in the folders that they are of."""
    for top in tops:
        removal.empty(top)
    mask = os.umask(0o077)
    for path, (mode, content) in copies.items():
        with contextlib.suppress(OSError):
            if stat.S_ISLNK(mode):
                os.symlink(content, path)  # noqa: PTH211  # no pathlib in a child
            elif stat.S_ISREG(mode):
                _write(path, mode, content)
            elif path not in tops:
                os.mkdir(path)  # noqa: PTH102
    os.umask(mask)
    _shut(copies)


def _entries(folder: str) -> list[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        return [(entry.path, entry.stat(follow_symlinks=False)) for entry in entries]


def _admit(path: str, status: os.stat_result, rights: int) -> None:
    """Give the owner of a file or folder these rights, where they are lacking."""
    if status.st_mode & rights != rights:
        os.chmod(path, stat.S_IMODE(status.st_mode) | rights)  # noqa: PTH101


def _read_in(path: str, status: os.stat_result, found: Copies) -> None:
    mode = status.st_mode
    with contextlib.suppress(OSError):
        if stat.S_ISLNK(mode):
            found[path] = mode, os.fsencode(os.readlink(path))  # noqa: PTH115
        elif stat.S_ISREG(mode):
            found[path] = mode, _content(path, status)


def _content(path: str, status: os.stat_result) -> bytes:
    _admit(path, status, 0o400)
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()
    finally:
        if not status.st_mode & 0o400:
            os.chmod(path, stat.S_IMODE(status.st_mode))  # noqa: PTH101


def _write(path: str, mode: int, content: bytes) -> None:
    with open(path, "xb") as file:  # noqa: PTH123  # x follows no link
        file.write(content)
    os.chmod(path, stat.S_IMODE(mode))  # noqa: PTH101


def _shut(copies: Copies) -> None:
    """Give folders their modes, the inner ones first: as long as it was read or filled, each was open."""
    for path, (mode, _) in reversed(copies.items()):
        if stat.S_ISDIR(mode):
            with contextlib.suppress(OSError):
                os.chmod(path, stat.S_IMODE(mode))  # noqa: PTH101
