"""An environment on stage: deadlines, faults and replay around `reset` and `step`.

An exception in an environment is never the agent's reward. The same actions are replayed once in a fresh
environment; if they fail again the environment has a bug on these actions (`environment_error`).
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from agentrl.errors import EnvironmentFault
from agentrl.trajectory import InvalidReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentrl.rollout.assignment import Assignment
    from agentrl.world.env import AsyncTextEnv, StepResult, TextEnv
    from agentrl.world.protocol import Protocol

AnyEnv: TypeAlias = "TextEnv | AsyncTextEnv"


class StageFailure(Exception):  # noqa: N818  # control flow inside the rollout, never shown
    """The environment cannot go on with this trajectory."""

    def __init__(self, reason: InvalidReason, detail: str, *, again: bool) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.again = again


@dataclass
class Stage:
    """One environment instance for one trajectory.

    Args:
        make: builds a fresh environment; `env`: a used one that may be reset, if there is one.
        seconds: deadline of one call of an environment that blocks.
    """

    make: Callable[[], AnyEnv]
    assignment: Assignment
    protocol: Protocol
    seconds: float
    env: AnyEnv | None = None
    actions: list[str] = field(default_factory=list)
    replays: int = 0

    async def open(self) -> str:
        """Reset to the assigned task and return the first observation."""
        try:
            return await self._reset()
        except Exception as error:  # noqa: BLE001  # any exception of a world is contained here
            return await self._replay(error)

    async def act(self, action: str) -> StepResult:
        """Execute one action; after a failure the episode is replayed once in a fresh environment."""
        self.actions.append(action)
        try:
            return await self._call("step", action)
        except Exception as error:  # noqa: BLE001  # any exception of a world is contained here
            await self._replay(error, upto=len(self.actions) - 1)
            return await self._again(action)

    def close(self) -> None:
        """Drop the environment; its own failure to close is not the trajectory's."""
        if self.env is not None:
            with contextlib.suppress(Exception):
                self.env.close()
        self.env = None

    async def _reset(self) -> str:
        if self.env is None:
            self.env = self.make()
        self.env.protocol = self.protocol
        options = {"split": self.assignment.split, "index": self.assignment.index}
        observation, _ = await self._call("reset", seed=self.assignment.seed, options=options)
        return observation

    async def _replay(self, error: Exception, upto: int = 0) -> str:
        self.close()
        if self.replays:
            raise self._failure(error) from error
        self.replays += 1
        try:
            observation = await self._reset()
            for action in self.actions[:upto]:
                observation = (await self._call("step", action))[0]
        except Exception as second:
            self.close()
            raise self._failure(second) from second
        return observation

    async def _again(self, action: str) -> StepResult:
        try:
            return await self._call("step", action)
        except Exception as error:
            self.close()
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> StageFailure:
        detail = f"{type(error).__name__}: {error}"
        if isinstance(error, TimeoutError):
            detail = f"a call took longer than {self.seconds:g} s"
            return StageFailure(InvalidReason.WALL_CLOCK, detail, again=True)
        if isinstance(error, EnvironmentFault):
            return StageFailure(InvalidReason.ENVIRONMENT_FAULT, detail, again=True)
        return StageFailure(InvalidReason.ENVIRONMENT_ERROR, detail, again=False)

    async def _call(self, name: str, *args: object, **kwargs: object):  # type: ignore[no-untyped-def]  # noqa: ANN202  # result of reset or step
        method = getattr(self.env, name)
        if inspect.iscoroutinefunction(method):
            return await asyncio.wait_for(method(*args, **kwargs), self.seconds)
        if self.env is not None and self.env.blocks:
            return await asyncio.wait_for(asyncio.to_thread(method, *args, **kwargs), self.seconds)
        return method(*args, **kwargs)
