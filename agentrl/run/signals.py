"""Who answers SIGINT and SIGTERM for a while."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType

    Handler: TypeAlias = Callable[[int, FrameType | None], object] | signal.Handlers

STOP: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping_by(handler: Handler) -> Generator[None]:
    """Let `handler` answer the signals that stop a run; outside the main thread nothing changes."""
    try:
        before = {name: signal.signal(name, handler) for name in STOP}
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for name, earlier in before.items():
            signal.signal(name, earlier)
