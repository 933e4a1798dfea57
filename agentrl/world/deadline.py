"""Calls with a deadline."""

from __future__ import annotations

import contextvars
import queue
import threading
from typing import TYPE_CHECKING, TypeVar, cast

from agentrl.errors import EnvironmentFault

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def within(
    call: Callable[[], T],
    timeout: float,
    name: str,
    *,
    late: Callable[[str], Exception] = EnvironmentFault,
    afterwards: Callable[[], object] | None = None,
) -> T:
    """Execute a call in a thread of its own and wait for it.

    A thread that outlives the deadline is left behind, for threads cannot be killed.

    Args:
        timeout: seconds.
        name: of what is called, for the message.
        late: makes the error where the call took longer, from a sentence.
        afterwards: what the thread does once the result is there, such as to wait.

    Raises:
        EnvironmentFault: the call took longer.
    """
    box: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            box.put((context.run(call), None))
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            box.put((None, error))
        if afterwards is not None:
            afterwards()

    threading.Thread(target=work, name=f"within {name}", daemon=True).start()
    try:
        value, raised = box.get(timeout=timeout)
    except queue.Empty:
        raise late(f"{name} did not answer within {timeout:g} s.") from None
    if raised is not None:
        raise raised
    return cast("T", value)
