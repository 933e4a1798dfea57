"""Exactly once: a call that is asked for again gives what it gave before, and is not executed again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from agentrl.errors import EnvironmentUsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

CallKey: TypeAlias = tuple[str, int, int]
"""(trajectory, turn, call)."""

R = TypeVar("R")


class CallLedger(Generic[R]):
    """Remembers the outcome of each call by its key, errors included.

    A call that failed is not executed again under the same key either: nobody knows how much of it happened.

    Args:
        capacity: how many outcomes are kept; the oldest are forgotten first.

    >>> ledger = CallLedger[int]()
    >>> ledger.once(("t0", 0, 0), "roll", lambda: 4)
    4
    >>> ledger.once(("t0", 0, 0), "roll", lambda: 6)
    4
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._outcomes: OrderedDict[CallKey, tuple[Hashable, Future[R]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._outcomes)

    def __reduce__(self) -> tuple[type[CallLedger[R]], tuple[int]]:
        return type(self), (self._capacity,)

    def once(self, key: CallKey, what: Hashable, call: Callable[[], R]) -> R:
        """Return the outcome recorded under `key`, or execute `call` and record its outcome.

        A second caller waits while the first is executing.

        Args:
            key: (trajectory, turn, call).
            what: the call itself (name and arguments); one key cannot stand for two different calls.
            call: executes it.

        Raises:
            EnvironmentUsageError: the key was used for another call.
        """
        with self._lock:
            entry = self._outcomes.get(key)
            future = self._begin(key, what) if entry is None else entry[1]
        if entry is None:
            _fulfil(future, call)
        elif entry[0] != what:
            raise EnvironmentUsageError(
                f"the call key {key} was used for {entry[0]!r} and now comes with {what!r}. "
                f"Give each call of each turn of each trajectory its own key."
            )
        return future.result()

    def _begin(self, key: CallKey, what: Hashable) -> Future[R]:
        future: Future[R] = Future()
        self._outcomes[key] = (what, future)
        while len(self._outcomes) > self._capacity:
            self._outcomes.popitem(last=False)
        return future

    def forget(self, trajectory: str) -> None:
        """Forget the outcomes of one trajectory."""
        with self._lock:
            for key in [key for key in self._outcomes if key[0] == trajectory]:
                del self._outcomes[key]


def _fulfil(future: Future[R], call: Callable[[], R]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001  # recorded, and raised by future.result()
        future.set_exception(error)
