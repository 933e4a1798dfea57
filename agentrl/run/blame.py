"""Whose code raised an exception: ours, or that of a world, tool or policy that somebody else wrote."""

from __future__ import annotations

import functools
import importlib.util
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.world.asynchronous import AsyncTextEnv
from agentrl.world.env import TextEnv

if TYPE_CHECKING:
    from types import FrameType

_OURS = ("agentrl", "agentrl_envs", "agentrl_tools")
_LIBRARIES = ("stdlib", "platstdlib", "purelib", "platlib")


def culprit(error: BaseException) -> str | None:
    """Return where code of others raised, as "close() in /home/me/worlds.py, line 7", or None if none did.

    The innermost frame of such code counts, also where a library that it called raised. Installed packages
    are libraries, but for the methods of worlds in them.
    """
    found: str | None = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if _of_others(frame):
            found = f"{frame.f_code.co_name}() in {frame.f_code.co_filename}, line {line}"
    return found


def _of_others(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    if file.startswith("<") or _below(file, _places(_OURS)):
        return False
    return isinstance(frame.f_locals.get("self"), TextEnv | AsyncTextEnv) or not _below(file, _libraries())


def _below(file: str, folders: tuple[Path, ...]) -> bool:
    return any(Path(file).is_relative_to(folder) for folder in folders)


@functools.cache
def _places(packages: tuple[str, ...]) -> tuple[Path, ...]:
    specs = [importlib.util.find_spec(name) for name in packages]
    return tuple(Path(place) for spec in specs if spec for place in spec.submodule_search_locations or ())


@functools.cache
def _libraries() -> tuple[Path, ...]:
    return tuple(Path(sysconfig.get_path(name)) for name in _LIBRARIES)
