"""`finish`: the tool that ends an episode with an answer, for worlds made of tools alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.world.tool import ToolResult, tool

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Finish:
    """Ends the episode with an answer.

    Protocols that write an answer without naming a tool (`<answer>`, a boxed answer, plain text among JSON
    calls) come here too.

    Args:
        score: the reward of an answer; by default every answer earns 0.
        reply: what the agent reads; the answer is not repeated, and nothing says whether it was right.

    >>> Finish(lambda answer: float(answer == "42")).finish("42").reward
    1.0
    """

    score: Callable[[str], float] | None = None
    reply: str = "The episode is over."

    @tool
    def finish(self, answer: str) -> ToolResult:
        """Give the final answer and end the episode.

        Args:
            answer: the answer alone, without explanation.
        """
        reward = 0.0 if self.score is None else self.score(answer)
        return ToolResult(self.reply, reward=reward, done=True)
