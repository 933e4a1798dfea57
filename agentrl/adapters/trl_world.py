"""A world as TRL plays it: public methods are tools, `reset` takes a row, `get_reward` scores."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, get_type_hints

from agentrl.errors import ConfigError
from agentrl.world.protocol import JsonCalls
from agentrl.world.registry import make

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from agentrl.world.env import TextEnv
    from agentrl.world.json_text import Json
    from agentrl.world.tool import Tool

OVER = "The episode is over."


@dataclass(frozen=True)
class Step:
    """One executed call: what it earned, and the anchor before it."""

    reward: float
    key: Hashable | None


class TrlWorld:
    """One instance, reset for each rollout. TRL calls its public functions; the rest is not shown."""

    _env: ClassVar[str]
    _arguments: ClassVar[Mapping[str, object]]

    def __init__(self) -> None:
        self._world: TextEnv = make(self._env, **self._arguments)
        self._over = False
        self.agentrl_steps: list[Step] = []

    @property
    def agentrl_key(self) -> Hashable | None:
        """The anchor now: the true state where the world has one, else what was seen."""
        state = self._world.state_key()
        return self._world.observation_key() if state is None else state

    def reset(
        self, *, split: str | None = None, index: int | None = None, seed: int | None = None, **row: object
    ) -> str:
        """Begin the task that the row names and return the first observation."""
        del row
        options = {"split": split, "index": index}
        given: dict[str, object] = {name: value for name, value in options.items() if value is not None}
        observation, _ = self._world.reset(seed=seed, options=given)
        self._over, self.agentrl_steps = False, []
        return observation

    def get_reward(self) -> float:
        """Return the sum of rewards so far."""
        return sum(step.reward for step in self.agentrl_steps)

    def _execute(self, action: str) -> str:
        if self._over:
            return OVER
        key = self.agentrl_key
        observation, reward, terminated, truncated, _ = self._world.step(action)
        self.agentrl_steps.append(Step(float(reward), key))
        self._over = terminated or truncated
        return observation


def world_class(env: str, arguments: Mapping[str, object]) -> type[TrlWorld]:
    """Return a class whose public methods are the tools of a world, with their signatures and texts."""
    probe = make(env, **arguments)
    tools = probe.toolbox.tools
    probe.close()
    taken = {"reset", "get_reward"} & {tool.name for tool in tools}
    if taken:
        raise ConfigError(f"{env} has a tool named {taken.pop()!r}, which TRL reserves; rename it.")
    methods: dict[str, Any] = {tool.name: _method(tool) for tool in tools} or {"act": _act}
    return type(
        type(probe).__name__,
        (TrlWorld,),
        {"_env": env, "_arguments": dict(arguments), "__doc__": type(probe).__doc__, **methods},
    )


def _act(self: TrlWorld, action: str) -> str:
    """Do one thing in the world and read what it answers.

    Args:
        action: the command, as the world describes it.
    """
    return self._execute(action)


_act.__name__ = "act"


def _method(tool: Tool) -> Callable[..., str]:
    """Return a method that makes the call as text, so that the world checks it as it checks every agent's."""

    def call(self: TrlWorld, **arguments: Json) -> str:
        self._world.protocol = JsonCalls()
        return self._execute(JsonCalls().write(tool.name, arguments))

    hints = get_type_hints(tool.function)
    hints.pop("return", None)
    shown = inspect.signature(tool.function)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    call.__name__ = call.__qualname__ = tool.name
    call.__doc__ = inspect.getdoc(tool.function)
    call.__annotations__ = hints
    call.__signature__ = inspect.Signature([itself, *shown.parameters.values()])  # type: ignore[attr-defined]  # read by inspect
    return call
