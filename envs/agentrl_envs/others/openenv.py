"""`openenv:<address>`: an environment behind an OpenEnv server, over its WebSocket."""

from __future__ import annotations

import functools
import importlib.util
import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Final, cast

from agentrl.errors import ConfigError, EnvironmentUsageError, MissingExtraError
from agentrl.world.env import StepResult, Task, TextEnv
from agentrl.world.protocol import PlainText, Protocol, Tags
from agentrl.world.tool import ToolResult
from agentrl.world.toolbox import Toolbox
from agentrl_envs.others.openenv_session import Session, complaint
from agentrl_envs.others.openenv_tools import action_of, is_broken, listed, only_text, told_by, tool_of

REFUSED: Final = "VALIDATION_ERROR"
"""The code of the one error that is the agent's: its action does not fit the server's types."""


class OpenEnvEnv(TextEnv):
    """An environment of OpenEnv. Each episode has a connection, which is a session at the server.

    A message is sent once and never repeated. A server that fails, is full, late, or says nothing readable is
    an `EnvironmentFault`, never a reward; an action that the server's types do not take is the agent's.

    Args:
        name: address of the server, for example "http://127.0.0.1:8000".
        action: field of the action that the agent's text becomes; with "" the agent writes the whole action
            as a JSON object.
        tools: whether the environment speaks MCP: then its tools are the agent's, and each call is a step.
        observation: field of the observation that the agent reads; with "" the only text in it, or all of it
            as JSON.
        tasks: size of each split, sent as `split` and `index` with a reset; without it `train` has no end
            and only the seed is sent: the index of the task.
        success: smallest sum of an episode's rewards that is a success.
        instructions: what the agent is told before the first observation.
        seconds: deadline of one message; `most_bytes`: of one.
        max_steps: turns before the episode is cut.
        render_mode: None or "ansi".

    Raises:
        MissingExtraError: the extra is not installed.
        ConfigError: a setting is wrong.
    """

    blocks: ClassVar[bool] = True  # type: ignore[misc]  # of the class: every message crosses the network

    def __init__(  # noqa: PLR0913  # settings with defaults
        self,
        name: str,
        *,
        action: str = "message",
        tools: bool = False,
        observation: str = "",
        tasks: Mapping[str, int] | None = None,
        success: float = 1.0,
        instructions: str = "",
        seconds: float = 60.0,
        most_bytes: int = 4 << 20,
        max_steps: int = 50,
        render_mode: str | None = None,
    ) -> None:
        if any(importlib.util.find_spec(name) is None for name in ("websockets", "jsonschema")):
            raise MissingExtraError("openenv:", "openenv")
        super().__init__(render_mode=render_mode)
        scheme, mark, rest = name.rstrip("/").partition("://")
        if scheme not in {"http", "https", "ws", "wss"} or not mark or not rest:
            raise ConfigError(f"{name!r} is no address of a server; write openenv:http://127.0.0.1:8000.")
        self.protocol: Protocol = Tags() if tools else PlainText()
        self.url = f"ws{'s' if scheme in {'https', 'wss'} else ''}://{rest}/ws"
        self.tasks = dict(tasks) if tasks is not None else None
        self.action, self.observation, self.instructions = action, observation, instructions
        self.tools, self.success, self.max_steps = tools, success, max_steps
        self._session = Session(self.url, seconds, most_bytes)
        self._steps, self._sum = 0, 0.0

    def list_splits(self) -> tuple[str, ...]:
        """Return the splits of the settings."""
        return ("train",) if self.tasks is None else tuple(self.tasks)

    def num_tasks(self, split: str) -> int | None:
        """Return the size of a split, None where the settings do not say."""
        self._check_split(split)
        return None if self.tasks is None else self.tasks[split]

    def get_task(self, split: str, index: int) -> Task:
        """Return the task at (split, index)."""
        self._check_split(split)
        return Task(split, index)

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Begin an episode in a session of its own."""
        super().reset(seed=seed, options=options)
        self._session.leave()
        self._steps, self._sum = 0, 0.0
        where = {} if self.tasks is None else {"split": self.task.split, "index": self.task.index}
        data = {"seed": self.task.index, **where}
        kind, answer = self._session.ask({"type": "reset", "data": data}, "observation")
        if kind == "error":
            raise self._session.refusal("refuses to reset", answer)
        return self._read(answer), {"domain": "openenv"}

    def step(self, action: str) -> StepResult:
        """Send an action, or call the tools that it names."""
        self._steps += 1
        late = self._steps >= self.max_steps
        observation, reward, done, info = self._called(action) if self.tools else self._acted(action)
        late = late and not done
        if done or late:
            info["success"] = done and self._sum >= self.success
            self._session.leave()
        return observation, reward, done, late, info

    def _acted(self, action: str) -> tuple[str, float, bool, dict[str, object]]:
        try:
            content = {self.action: action} if self.action else _object(action)
        except ValueError as error:
            return f"The action must be a JSON object: {error}", 0.0, False, {"valid": False}
        kind, data = self._session.ask({"type": "step", "data": content}, "observation")
        if kind == "error":
            if data.get("code") != REFUSED:
                raise self._session.refusal("reports an error", data)
            return complaint(data), 0.0, False, {"valid": False}
        reward, done = self._scored(data)
        return self._read(data), reward, done, {}

    def _called(self, action: str) -> tuple[str, float, bool, dict[str, object]]:
        observation, reward, done, _, info = super().step(action)
        return observation, reward, done, info

    def _call(self, name: str, arguments: Mapping[str, object]) -> ToolResult:
        """Call a tool of the environment: one step of the episode."""
        message = {"type": "step", "data": action_of(name, arguments)}
        kind, data = self._session.ask(message, "observation")
        seen = data.get("observation")
        if kind == "error":
            raise self._session.refusal(f"fails in the tool {name!r}", data)
        if not isinstance(seen, Mapping):
            raise self._session.fault(f"gave what is no observation of the tool {name!r}: {str(seen)[:200]}")
        known = cast("Mapping[str, Any]", seen)
        text, failed = told_by(known)
        if is_broken(known):
            raise self._session.fault(f"fails in the tool {name!r}: {text}")
        reward, done = self._scored(data)
        return ToolResult(text, reward, done, error=text if failed else None)

    @functools.cached_property
    def toolbox(self) -> Toolbox:
        """The environment's tools, where it speaks MCP; they are asked for once."""
        found = listed(self._session) if self.tools else ()
        return Toolbox(tool_of(one, self.url, self._call) for one in found)

    def default_protocol(self) -> Protocol:
        """Return tags for tools, else plain text."""
        return self.protocol

    def system_text(self) -> str:
        """Return the instructions of the settings, and how the tools are called."""
        described = self.protocol.describe(self.toolbox.tools) if self.tools else ""
        return "\n\n".join(text for text in (self.instructions, described) if text)

    def snapshot(self) -> object:
        """A session cannot be copied. Raises `EnvironmentUsageError`."""
        raise EnvironmentUsageError(
            "an environment at a server cannot be copied; replay the actions instead."
        )

    def close(self) -> None:
        """End the session."""
        self._session.leave()
        self._phase = "new"

    def __deepcopy__(self, memo: dict[int, object]) -> OpenEnvEnv:
        return OpenEnvEnv(
            self.url.removesuffix("/ws"), action=self.action, tools=self.tools, observation=self.observation,
            tasks=self.tasks, success=self.success, instructions=self.instructions,
            seconds=self._session.seconds, most_bytes=self._session.most_bytes, max_steps=self.max_steps,
        )  # fmt: skip

    def _scored(self, data: Mapping[str, Any]) -> tuple[float, bool]:
        """The reward and the end of a step."""
        given = data.get("reward")
        if given is not None and (not isinstance(given, int | float) or not math.isfinite(given)):
            raise self._session.fault(f"gave the reward {given!r}, which is no number")
        reward = float(given or 0.0)
        self._sum += reward
        return reward, data.get("done") is True

    def _read(self, data: Mapping[str, Any]) -> str:
        """What the agent reads; metadata that are empty are left out."""
        seen = data.get("observation")
        known = dict(cast("Mapping[str, object]", seen)) if isinstance(seen, Mapping) else {}
        if self.observation:
            if self.observation not in known:
                raise self._session.fault(
                    f"gave an observation without {self.observation!r}: {str(cast('object', seen))[:200]}"
                )
            seen = known[self.observation]
        elif known:
            if not known.get("metadata"):
                known.pop("metadata", None)
            seen = only_text(known) or known
        return seen if isinstance(seen, str) else json.dumps(seen, ensure_ascii=False)


def _object(text: str) -> Mapping[str, object]:
    found: object = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"got {text[:80]!r}")  # noqa: TRY004  # told to the agent with json's own errors
    return cast("Mapping[str, object]", found)
