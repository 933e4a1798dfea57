"""Indices on disk, by the hash of what they index."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def default_cache() -> Path:
    """Return the user's folder for indices; `XDG_CACHE_HOME` moves it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentrl" / "search"


def kept(cache: Path, name: str, write: Callable[[Path], None]) -> Path:
    """Return the folder `cache/name`, and let `write` fill it where it is missing: whole or not at all.

    Two processes may do so at the same time; the first one to finish wins.
    """
    folder = cache / name
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
    try:
        write(aside)
        aside.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder
