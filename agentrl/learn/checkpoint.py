"""Checkpoints that are whole or absent: written aside, hashed, then renamed.

A checkpoint is a folder: `model/` in the hub's format, `optimizer.pt`, `state.json`, and `manifest.json` with
the SHA-256 of every file. Resuming takes the newest whole one and says which it passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.errors import RunDirectoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Found:
    """The newest whole checkpoint, and the damaged ones that were passed over."""

    path: Path | None
    damaged: tuple[str, ...]


def write_checkpoint(folder: Path, name: str, fill: Callable[[Path], None]) -> Path:
    """Write a checkpoint atomically: `fill` puts the files into a folder beside the final one.

    Raises:
        RunDirectoryError: the disk is full or read-only; earlier checkpoints stay as they were.
    """
    aside, final, before = folder / f".writing-{name}", folder / name, folder / f".replaced-{name}"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        fill(aside)
        _write_manifest(aside)
        if final.exists():
            # Never without a whole one: what a kill leaves between these lines, `clean` puts right.
            shutil.rmtree(before, ignore_errors=True)
            final.rename(before)
        aside.rename(final)
        _sync(folder)
        shutil.rmtree(before, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if not isinstance(error, writing_errors()):
            raise
        raise RunDirectoryError(
            f"the checkpoint {final} could not be written: {error}. Free some space or make the folder "
            "writable, then resume: earlier checkpoints are whole."
        ) from error
    return final


def writing_errors() -> tuple[type[BaseException], ...]:
    """What the writers of weights raise where a disk is full: torch a RuntimeError, safetensors its own."""
    try:
        from safetensors import SafetensorError
    except ImportError:
        return (OSError, RuntimeError)
    return (OSError, RuntimeError, SafetensorError)


def is_whole(path: Path) -> bool:
    """Return whether every file of the checkpoint is there with the hash that its manifest names."""
    try:
        manifest: dict[str, str] = json.loads((path / MANIFEST).read_text())
        return bool(manifest) and all(_hash(path / name) == value for name, value in manifest.items())
    except (OSError, ValueError, AttributeError):
        return False


def newest(folder: Path, names: Sequence[str]) -> Found:
    """Return the first whole checkpoint of `names` (newest first)."""
    damaged: list[str] = []
    for name in names:
        if is_whole(folder / name):
            return Found(folder / name, tuple(damaged))
        damaged.append(name)
    return Found(None, tuple(damaged))


def clean(folder: Path) -> None:
    """Remove what an interrupted writer left behind; a checkpoint that it was replacing comes back."""
    for path in folder.glob(".writing-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".replaced-*"):
        final = folder / path.name.removeprefix(".replaced-")
        if final.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(final)


def set_aside(folder: Path, names: Sequence[str]) -> None:
    """Rename damaged checkpoints, so that they are neither resumed from nor counted as kept."""
    for name in names:
        kept = folder / f"damaged-{name}"
        shutil.rmtree(kept, ignore_errors=True)
        (folder / name).rename(kept)


def _write_manifest(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        _sync(path)
    manifest = {path.relative_to(folder).as_posix(): _hash(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    _sync(folder / MANIFEST)
    _sync(folder)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
