"""An environment that is awaited."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from agentrl.world.env import STEP_SECONDS, Task
from agentrl.world.protocol import Tags

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from agentrl.world.env import Reading, StepResult
    from agentrl.world.protocol import Protocol
    from agentrl.world.terms import Terms
    from agentrl.world.toolbox import TurnKey


class AsyncTextEnv:
    """An environment whose `reset` and `step` are coroutines; otherwise the contract of `TextEnv`.

    It is a class of its own because Gymnasium's checkers refuse coroutines; it is not mirrored to Gymnasium.
    Subclasses override `reset` and `step`; tasks, keys and hooks have the same names and defaults.
    """

    blocks: ClassVar[bool] = False
    is_async: ClassVar[bool] = True
    splits: ClassVar[tuple[str, ...]] = ("train",)
    reward_names: tuple[str, ...] = ()
    turn_key: TurnKey | None = None
    reading: Reading | None = None
    step_seconds: float = STEP_SECONDS
    protocol: Protocol
    terms: Mapping[str, Terms] = MappingProxyType({})
    task: Task

    def __init__(self) -> None:
        self.protocol = Tags()

    async def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[str, dict[str, object]]:
        """Begin an episode and return its first observation."""
        raise NotImplementedError

    async def step(self, action: str) -> StepResult:
        """Execute the agent's action."""
        raise NotImplementedError

    def list_splits(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        return self.splits

    def num_tasks(self, split: str) -> int | None:
        """Return the number of tasks of a split, None where it has no end."""
        return 1 if split in self.splits else 0

    def get_task(self, split: str, index: int) -> Task:
        """Return the task at (split, index)."""
        return Task(split, index)

    def system_text(self) -> str:
        """Return what the agent is told about this world before the first observation."""
        return ""

    def observation_key(self) -> Hashable | None:
        """Return what the agent has seen as an anchor key; None makes no anchor."""
        return None

    def state_key(self) -> Hashable | None:
        """Return the true state as an anchor key, or None."""
        return None

    def gold(self) -> str | None:
        """Return the reference answer for probes, or None."""
        return None

    def admissible(self) -> Sequence[str] | None:
        """Return the commands that would be accepted now, or None."""
        return None

    def close(self) -> None:
        """Release what the environment holds."""
