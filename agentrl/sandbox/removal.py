"""Removes folders that programs wrote: as deep as they like, with whatever rights, even if some still run."""

from __future__ import annotations

import contextlib
import os
import secrets
import time


def remove(folder: str) -> None:
    """Remove a folder and everything in it as far as possible; never raises `OSError` or recurses.

    Folders move up before they are emptied, so that no path grows too long for the kernel. Everything in the
    folder is named relative to an open folder and no link is followed, so that a program that puts a link in
    the place of a folder while it is removed leads nowhere else.
    """
    empty(folder)
    with contextlib.suppress(OSError):
        os.rmdir(folder)  # noqa: PTH106


def empty(folder: str) -> None:
    """Remove everything in a folder as far as possible, as `remove` does; folders that are mounted stay."""
    with contextlib.suppress(OSError):
        top = _entered(folder)
        try:
            waiting = _emptied(top, top)
            while waiting:
                waiting += _removed(waiting.pop(), top)
        finally:
            os.close(top)


def remove_soon(folder: str) -> None:
    """Remove a folder in which programs are just being ended, which may need a moment."""
    for _ in range(50):
        remove(folder)
        if not os.path.exists(folder):  # noqa: PTH110
            return
        time.sleep(0.02)


def _removed(name: str, top: int) -> list[str]:
    """Remove a folder at the top; return what was in it, which lies at the top now."""
    moved: list[str] = []
    with contextlib.suppress(OSError):
        descriptor = _entered(name, top)
        try:
            moved = _emptied(descriptor, top)
        finally:
            os.close(descriptor)
        os.rmdir(name, dir_fd=top)
    return moved


def _emptied(descriptor: int, top: int) -> list[str]:
    """Unlink the files of a folder and move its folders to the top; return their names there."""
    moved: list[str] = []
    with os.scandir(descriptor) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        with contextlib.suppress(OSError):
            if not is_folder:
                os.unlink(name, dir_fd=descriptor)
                continue
            os.close(_entered(name, descriptor))  # a folder moves only where its owner may write in it
            place = secrets.token_hex(8)
            os.rename(name, place, src_dir_fd=descriptor, dst_dir_fd=top)
            moved.append(place)
    return moved


def _entered(name: str, within: int | None = None) -> int:
    """Open a folder and let its owner do everything in it.

    Raises:
        OSError: it is no folder, or a link to one, or somebody else's.
    """
    found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=within)
    try:
        os.chmod(f"/proc/self/fd/{found}", 0o700)  # noqa: PTH101
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=found)
    finally:
        os.close(found)
