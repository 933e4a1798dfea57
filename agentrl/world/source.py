"""Things that have tools which nobody marked, such as those of a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentrl.world.tool import Tool


class ToolSource:
    """Offers tools, and serves one trajectory at a time."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools, in order."""
        raise NotImplementedError

    def reset(self, seed: int = 0) -> None:
        """Begin another trajectory."""

    def close(self) -> None:
        """Release what the tools hold."""
