"""Questions of your own files, answered with whatever tools the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from agentrl.errors import ConfigError, EnvironmentUsageError
from agentrl.world.registry import load_toolset
from agentrl.world.source import ToolSource
from agentrl_envs.search.asking import AskingEnv
from agentrl_envs.search.source import Files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@runtime_checkable
class Remembers(Protocol):
    """A tool that keeps something during a trajectory."""

    def reset(self, seed: int = 0) -> None:
        """Begin another trajectory."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


class QuestionsEnv(AskingEnv):
    """Questions with known answers, and tools by name: our own, a package's, or those of an MCP server.

    The reward is 1 for a right answer, which ends the episode like every other answer. Tools that keep
    something (a session, a client) begin anew with each episode.

    Args:
        questions: a file for each split, such as JSONL with `question` and `answer`.
        tools: names as `agentrl tools show` takes them ("calculator", "mcp:python server.py"), or tables with
            the `name` and the tool's arguments.
        reward: "exact"; "f1", which gives wrong answers their F1; or "contains".
        ask: what the agent is told before the tools.
        render_mode: None or "ansi".

    Raises:
        ConfigError, RegistryError: a setting is wrong, or there is no such tool.
    """

    blocks: ClassVar[bool] = True  # type: ignore[misc]  # of the class: tools may wait

    def __init__(
        self,
        questions: Mapping[str, str],
        tools: Sequence[str | Mapping[str, object]] = (),
        *,
        reward: str = "exact",
        ask: str = "Answer the question. Use the tools where they help.",
        render_mode: str | None = None,
    ) -> None:
        if isinstance(tools, str):
            raise ConfigError(f'tools is a list, such as tools = ["calculator"]; got {tools!r}.')
        super().__init__(Files(questions), reward, render_mode=render_mode)
        self.ask = ask
        self.sets = [_toolset(given) for given in tools]

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Begin a question; no tool remembers the one before."""
        observation, info = super().reset(seed=seed, options=options)
        drawn = int(self.rng.integers(2**31))
        for tools in self.sets:
            if isinstance(tools, Remembers):
                tools.reset(drawn)
        return observation, info

    def system_text(self) -> str:
        """Return the task and the tools."""
        return f"{self.ask}\n{super().system_text()}".strip()

    def snapshot(self) -> object:
        """Return the state of the episode. Raises `EnvironmentUsageError` where a tool's cannot be copied."""
        if any(isinstance(tools, ToolSource) for tools in self.sets):
            raise EnvironmentUsageError(
                "what a server remembers cannot be copied; replay the actions instead."
            )
        return super().snapshot()

    def close(self) -> None:
        """Release what the tools hold."""
        for tools in self.sets:
            if isinstance(tools, Remembers):
                tools.close()
        self._phase = "new"


def _toolset(given: str | Mapping[str, object]) -> object:
    if isinstance(given, str):
        return load_toolset(given)
    arguments = dict(given)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f'a table of tools needs a name, such as {{name = "calculator"}}; got {given!r}.')
    return load_toolset(name, **arguments)
