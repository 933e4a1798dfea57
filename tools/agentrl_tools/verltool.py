"""`verltool:<address>`: a tool of a VerlTool server, as ours."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from agentrl.errors import ConfigError, EnvironmentFault
from agentrl.world.signature import read_signature
from agentrl.world.source import ToolSource
from agentrl.world.tool import Tool, ToolResult
from agentrl_tools.wire import Wire

if TYPE_CHECKING:
    from agentrl.world.json_text import Json


class VerlTool(ToolSource):
    """One tool of a server that speaks VerlTool's `/get_observation`.

    The server finds the tool by what an action looks like, so `template` writes it:
    `<python>{text}</python>`. A trajectory has an id of its own and is finished at the server when it ends.
    Each request holds one action of one trajectory (the router sends a whole request to one worker), and is
    sent once: the server would execute a repeated one again. Another status than 200, silence, and what
    cannot be read are an `EnvironmentFault`, never a reward.

    Args:
        name: address of the server, for example "http://127.0.0.1:5000".
        tool: the name that the model writes; `description`: what it is told.
        template: of the action; `{text}` stands for what the model wrote.
        extra: sent with each action, such as the database of a question.
        seconds: for one call; `most_characters`: of a result.
        ends: whether the server may end the episode.

    Raises:
        ConfigError: a setting is wrong.
    """

    def __init__(
        self,
        name: str,
        *,
        tool: str = "python",
        description: str = "Run Python code and return what it prints.",
        template: str = "",
        extra: Mapping[str, Json] | None = None,
        seconds: float = 60.0,
        most_characters: int = 8000,
        ends: bool = False,
    ) -> None:
        if not name.startswith(("http://", "https://")):
            raise ConfigError(f"{name!r} is no address of a server; write verltool:http://127.0.0.1:5000.")
        self.url, self.tool, self.description = f"{name.rstrip('/')}/get_observation", tool, description
        self.template = template or f"<{tool}>{{text}}</{tool}>"
        if "{text}" not in self.template:
            raise ConfigError(f"the template of {tool!r} has no {{text}}; got {template!r}.")
        self.extra, self.most_characters, self.ends = dict(extra or {}), most_characters, ends
        self._wire = Wire(seconds=seconds, attempts=1)
        self._trajectory = ""

    def __deepcopy__(self, memo: dict[int, object]) -> VerlTool:
        return VerlTool(
            self.url.removesuffix("/get_observation"), tool=self.tool, description=self.description,
            template=self.template, extra=self.extra, seconds=self._wire.seconds,
            most_characters=self.most_characters, ends=self.ends,
        )  # fmt: skip

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The one tool."""

        def call(text: str) -> ToolResult:
            """Set below."""
            return self._call(text)

        call.__doc__ = f"{self.description}\n\nArgs:\n    text: what to do"
        return (Tool(read_signature(call, self.tool), call, max_characters=self.most_characters),)

    def reset(self, seed: int = 0) -> None:
        """Finish the trajectory at the server; the next call begins another one."""
        del seed
        trajectory, self._trajectory = self._trajectory, ""
        if trajectory:
            try:
                self._ask(trajectory, "", finish=True)
            except EnvironmentFault:
                return  # what the server forgets by itself is no loss to the next trajectory

    def close(self) -> None:
        """Finish the trajectory, and close the connections."""
        self.reset()
        self._wire.close()

    def _call(self, text: str) -> ToolResult:
        self._trajectory = self._trajectory or secrets.token_hex(16)
        given, done, valid = self._ask(self._trajectory, self.template.replace("{text}", text))
        told = given if isinstance(given, Mapping) else {"obs": given}
        observation, reward = told.get("obs"), told.get("reward")
        if not isinstance(observation, str):
            raise EnvironmentFault(f"{self.url} gave the observation {str(given)[:200]}, which is no text.")
        if reward is not None and (
            isinstance(reward, bool) or not isinstance(reward, int | float) or not math.isfinite(reward)
        ):
            raise EnvironmentFault(f"{self.url} gave the reward {reward!r}, which is no number.")
        problem = (
            None if valid else str(told.get("invalid_reason") or observation or "The action is not valid.")
        )
        return ToolResult(
            observation.strip("\n") or problem or "", float(reward or 0.0), done and self.ends, error=problem
        )

    def _ask(self, trajectory: str, action: str, *, finish: bool = False) -> tuple[Any, bool, bool]:
        """Send one action and return observation, done and valid."""
        body = {
            "trajectory_ids": [trajectory], "actions": [action], "finish": [finish],
            "is_last_step": [finish], "extra_fields": [self.extra],
        }  # fmt: skip
        answer = self._wire.send("POST", self.url, json=body)
        if answer.status != 200 or answer.cut:
            words = answer.body[:200].decode(errors="replace")
            raise EnvironmentFault(f"{self.url} answered with status {answer.status}: {words}")
        try:
            found = cast("Mapping[str, Any]", json.loads(answer.body))
            (observation,), (done,), (valid,) = found["observations"], found["dones"], found["valids"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise EnvironmentFault(
                f"{self.url} answered what cannot be read: {answer.body[:200]!r}"
            ) from error
        return observation, bool(done), bool(valid)
