"""Waiting that always ends: calls in daemon threads, tasks that ignore cancellation, loops that close."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

T = TypeVar("T")

FAREWELL_SECONDS = 1.0
"""How long cancelled tasks may take to end before they are left behind."""


class Late(TimeoutError):
    """A deadline passed; a `TimeoutError` that the work itself raised is not one."""


async def within(work: Awaitable[T], seconds: float) -> T:
    """Return what `work` gives, or raise `Late`; work that ignores cancellation is left behind."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.add_done_callback(_forget)
            task.cancel()
    if not done:
        raise Late
    if task.cancelled():
        raise RuntimeError("the work was cancelled from inside")  # not the rollout's own cancellation
    return task.result()


class Patience:
    """A bound on each of many waits in a row, by one timer: one for each wait costs more than most waits.

    The timer looks when a wait could have run out, and sleeps on until the current one is due.

    Args:
        scope: what ends when a wait takes longer than `seconds`; `late` then says that it was a wait's doing.
    """

    def __init__(self, scope: asyncio.Timeout, seconds: float) -> None:
        self.scope, self.seconds, self.late = scope, seconds, False
        self._loop = asyncio.get_running_loop()
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        """Begin a wait."""
        self._due = self._loop.time() + self.seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._look)

    def __exit__(self, *_: object) -> None:
        """End the wait."""
        self._due = None

    def close(self) -> None:
        """Take the timer back."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if self._due is None or self.scope.expired():
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._look)
        else:
            self.late = True
            self.scope.reschedule(self._loop.time())


def in_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """Execute a call in a daemon thread of its own.

    A thread that hangs takes no worker from others and keeps neither the loop nor the process from ending,
    which those of `asyncio.to_thread` do.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)  # type: ignore[arg-type]  # without an error there is a value

    def work() -> None:
        value: T | None = None
        failed: BaseException | None = None
        try:
            value = call()
        except StopIteration as error:
            failed = RuntimeError(f"the call raised StopIteration({error})")  # a future cannot hold one
        except BaseException as error:  # noqa: BLE001  # raised again where the call is awaited
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
            loop.call_soon_threadsafe(settle, value, failed)

    threading.Thread(target=work, name="environment", daemon=True).start()
    return future


def run(work: Coroutine[object, object, T]) -> T:
    """Do as `asyncio.run`, but end although a task ignores cancellation or a thread hangs."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        rest = asyncio.all_tasks(loop)
        for task in rest:
            task.cancel()
        if rest:
            loop.run_until_complete(asyncio.wait(rest, timeout=FAREWELL_SECONDS))
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001  # left behind on purpose
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _forget(task: asyncio.Future[T]) -> None:
    if not task.cancelled():
        task.exception()
