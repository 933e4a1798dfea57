"""Calls with a deadline."""

from __future__ import annotations

import contextvars
import queue
import threading
from typing import TYPE_CHECKING

from agentrl.errors import EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Callable


def within(call: Callable[[], object], timeout: float, name: str) -> object:
    """Execute a call in a thread and wait for it.

    A thread that outlives the deadline is left behind, for threads cannot be killed.

    Args:
        timeout: seconds.
        name: of what is called, for the message.

    Raises:
        EnvironmentFault: the call took longer.
    """
    box: queue.SimpleQueue[tuple[object, BaseException | None]] = queue.SimpleQueue()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            box.put((context.run(call), None))
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            box.put((None, error))

    threading.Thread(target=work, name=f"within {name}", daemon=True).start()
    try:
        value, raised = box.get(timeout=timeout)
    except queue.Empty:
        raise EnvironmentFault(f"{name} did not answer within {timeout:g} s.") from None
    if raised is not None:
        raise raised
    return value
