"""Removes folders that programs wrote: as deep as they like, with whatever rights."""

from __future__ import annotations

import contextlib
import os
import secrets


def remove(folder: str) -> None:
    """Remove a folder and everything in it as far as possible; never raises `OSError` or recurses.

    Folders move up before they are emptied, so that no path grows too long for the kernel.
    """
    _open_up(folder)
    waiting = _emptied(folder, folder)
    while waiting:
        path = waiting.pop()
        waiting += _emptied(path, folder)
        with contextlib.suppress(OSError):
            os.rmdir(path)  # noqa: PTH106
    with contextlib.suppress(OSError):
        os.rmdir(folder)  # noqa: PTH106


def _emptied(path: str, top: str) -> list[str]:
    """Unlink the files of a folder and move its folders to the top; return where they are now."""
    moved: list[str] = []
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in list(entries):
            with contextlib.suppress(OSError):
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)  # noqa: PTH108
                    continue
                _open_up(entry.path)
                os.rename(entry.path, place := f"{top}/{secrets.token_hex(8)}")  # noqa: PTH104
                moved.append(place)
    return moved


def _open_up(folder: str) -> None:
    """Let its owner do everything in a folder, and never in what a link points to."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY)
        try:
            os.chmod(f"/proc/self/fd/{descriptor}", 0o700)  # noqa: PTH101
        finally:
            os.close(descriptor)
