"""What holds around `reset`, `step` and `restore` of every world, however a subclass writes them."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentrl.world.env import StepResult, TextEnv

    Reset = Callable[..., tuple[str, dict[str, object]]]
    Step = Callable[[TextEnv, str], StepResult]
    Restore = Callable[[TextEnv, object], None]

_SHAPES = {
    "reset": "(observation, info)",
    "step": "(observation, reward, terminated, truncated, info)",
}


def guard_reset(reset: Reset) -> Reset:
    """Begin an episode where `reset` went well."""

    def guarded(
        self: TextEnv, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        result: object = None
        try:
            result = reset(self, seed=seed, options=options)
            observation, info = result
        except BaseException as error:
            self._phase = "new"
            if result is not None and isinstance(error, TypeError | ValueError):
                raise TypeError(_misshapen(self, "reset", result)) from None
            raise
        self._phase = "running"
        self._note(observation, valid=True)
        return observation, info

    own = inspect.signature(guarded)
    functools.update_wrapper(guarded, reset)
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(reset).parameters.values()):
        guarded.__signature__ = own  # type: ignore[attr-defined]  # it takes a seed, whatever the name of **kwargs
    return guarded


def guard_step(step: Step) -> Step:
    """Refuse a step outside of an episode, and note what it gave."""

    @functools.wraps(step)
    def guarded(self: TextEnv, action: str) -> StepResult:
        self._check_running()
        result = step(self, action)
        try:
            observation, _, terminated, truncated, info = result
            valid = info.get("valid", True) is not False
        except (AttributeError, TypeError, ValueError):
            raise TypeError(_misshapen(self, "step", result)) from None
        self._note(observation, valid=valid)
        self._phase = "over" if terminated or truncated else "running"
        return result

    return guarded


def guard_restore(restore: Restore) -> Restore:
    """Go on with the episode where `restore` says no more: a snapshot is of an episode that runs."""

    @functools.wraps(restore)
    def guarded(self: TextEnv, state: object) -> None:
        before, self._phase = self._phase, ""
        try:
            restore(self, state)
        except BaseException:
            self._phase = self._phase or before
            raise
        if not self._phase:
            self._phase, self._finished = "running", None

    return guarded


def _misshapen(env: TextEnv, name: str, value: object) -> str:
    world = type(env).__name__
    if inspect.iscoroutine(value):
        value.close()
        return f"{name}() of {world} is `async def`; write `def {name}`, or derive it from AsyncTextEnv."
    kinds = ", ".join(type(item).__name__ for item in value) if isinstance(value, tuple) else ""
    shown = f"({kinds})" if kinds else type(value).__name__
    return f"{name}() of {world} returned {shown}; return {_SHAPES[name]}, with a dictionary as info."
