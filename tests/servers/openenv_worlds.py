"""Two environments served by OpenEnv's own package; run as a program, by an interpreter that has it.

One takes a message, the other is an MCP environment with tools. Argument: the port.
"""

# pyright: basic, reportMissingImports=false
# What is imported here lives in another virtual environment.

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastmcp import FastMCP  # type: ignore[import-not-found]  # of another virtual environment, as all below
from openenv.core.env_server import Environment  # type: ignore[import-not-found]
from openenv.core.env_server.http_server import create_fastapi_app  # type: ignore[import-not-found]
from openenv.core.env_server.mcp_environment import MCPEnvironment  # type: ignore[import-not-found]
from openenv.core.env_server.mcp_types import (  # type: ignore[import-not-found]
    CallToolAction,
    CallToolObservation,
)
from openenv.core.env_server.types import Action, Observation, State  # type: ignore[import-not-found]
from pydantic import Field


class Say(Action):  # type: ignore[misc]  # of another virtual environment, as all below
    """What the agent says."""

    message: str = Field(max_length=40)


class Heard(Observation):  # type: ignore[misc]
    """What the agent hears."""

    text: str
    step: int = 0


class Words(Environment):  # type: ignore[misc]
    """Repeats words; "win" ends the episode and "boom" breaks it."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._state = State(episode_id="words")

    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        split: str = "none",
        index: int = -1,
        **_: Any,
    ) -> Heard:
        """Tell the task."""
        del episode_id
        if index == 9:
            raise RuntimeError("there is no task 9")
        self._state = State(episode_id="words")
        return Heard(text=f"seed {seed} of {split}/{index}")

    def step(self, action: Say, timeout_s: float | None = None, **_: Any) -> Heard:
        """Repeat what was said."""
        del timeout_s
        if action.message == "boom":
            raise RuntimeError("the words are broken")
        self._state.step_count += 1
        won = action.message == "win"
        return Heard(
            text=f"you said {action.message}",
            step=self._state.step_count,
            reward=1.0 if won else None,
            done=won,
            metadata={"length": len(action.message)},
        )

    @property
    def state(self) -> State:
        """Where the episode is."""
        return self._state


class Shelf(MCPEnvironment):  # type: ignore[misc]
    """An environment of tools: find what stands on a shelf, then take it."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        tools = FastMCP("shelf")

        def look(shelf: int) -> dict[str, int]:
            """Read what stands on a shelf."""
            return {"tins": 3 * shelf + self._seed}

        def take(tins: int, note: str) -> str:
            """Take tins; this ends the episode."""
            if tins < 0:
                raise ValueError("nobody takes less than nothing")
            return f"taken {tins}{note}"

        for one in (look, take):
            tools.tool(one)
        super().__init__(tools)
        self._seed = 0
        self._state = State(episode_id="shelf")

    def reset(self, seed: int | None = None, **_: Any) -> Observation:
        """Begin; all there is to say stands in the metadata, as in OpenEnv's own examples."""
        self._seed = seed or 0
        self._state = State(episode_id="shelf")
        return Observation(metadata={"status": "two shelves"})

    async def step_async(
        self,
        action: Action,
        timeout_s: float | None = None,
        **more: Any,
    ) -> Observation:
        """Call a tool; the right number of tins is the reward."""
        self._state.step_count += 1
        seen = await super().step_async(action, timeout_s=timeout_s, **more)
        if isinstance(action, CallToolAction) and action.tool_name == "take" and seen.error is None:
            seen.done = not getattr(seen.result, "is_error", False)
            seen.reward = float(action.arguments.get("tins") == 6 + self._seed)
        return seen

    def _step_impl(self, action: Action, timeout_s: float | None = None, **_: Any) -> Observation:
        del action, timeout_s
        return Observation()

    @property
    def state(self) -> State:
        """Where the episode is."""
        return self._state


def served() -> FastAPI:
    """Both environments as one application, and the first once more with two places."""
    app = FastAPI()
    app.mount("/words", create_fastapi_app(Words, Say, Heard, max_concurrent_envs=8))
    app.mount("/small", create_fastapi_app(Words, Say, Heard, max_concurrent_envs=2))
    app.mount("/shelf", create_fastapi_app(Shelf, CallToolAction, CallToolObservation, max_concurrent_envs=8))

    @app.get("/ready")
    def ready() -> str:
        return "yes"

    return app


if __name__ == "__main__":
    uvicorn.run(served(), host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
