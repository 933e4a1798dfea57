"""Exactly once: a call that is asked for again gives what it gave before, and is not executed again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar, cast

from agentrl.errors import EnvironmentUsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

CallKey: TypeAlias = tuple[str, int, int]
"""(trajectory, turn, call)."""

R = TypeVar("R")


@dataclass(slots=True)
class _Outcome(Generic[R]):
    """What became of a call: `value` or `error` once it is `done`."""

    what: Hashable
    done: bool = False
    value: R | None = None
    error: BaseException | None = None

    def result(self) -> R:
        if self.error is not None:
            raise self.error
        return cast("R", self.value)


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
        # One lock for all calls: a future for each would cost more than a plain tool.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._waiting = 0
        self._outcomes: OrderedDict[CallKey, _Outcome[R]] = OrderedDict()

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
            known = self._outcomes.get(key)
            outcome = self._begin(key, what) if known is None else known
        if known is None:
            self._execute(outcome, call)
        elif outcome.what != what:
            raise EnvironmentUsageError(
                f"the call key {key} was used for {outcome.what!r} and now comes with {what!r}. "
                f"Give each call of each turn of each trajectory its own key."
            )
        elif not outcome.done:
            self._wait(outcome)
        return outcome.result()

    def _begin(self, key: CallKey, what: Hashable) -> _Outcome[R]:
        outcome: _Outcome[R] = _Outcome(what)
        self._outcomes[key] = outcome
        while len(self._outcomes) > self._capacity:
            self._outcomes.popitem(last=False)
        return outcome

    def _execute(self, outcome: _Outcome[R], call: Callable[[], R]) -> None:
        try:
            outcome.value = call()
        except BaseException as error:  # noqa: BLE001  # recorded, and raised by result()
            outcome.error = error
        with self._lock:
            outcome.done = True
            if self._waiting:
                self._changed.notify_all()

    def _wait(self, outcome: _Outcome[R]) -> None:
        with self._lock:
            self._waiting += 1
            self._changed.wait_for(lambda: outcome.done)
            self._waiting -= 1

    def forget(self, trajectory: str) -> None:
        """Forget the outcomes of one trajectory."""
        with self._lock:
            for key in [key for key in self._outcomes if key[0] == trajectory]:
                del self._outcomes[key]
