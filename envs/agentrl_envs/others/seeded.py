"""What worlds of others have in common whose only task is a seed."""

from __future__ import annotations

from typing import ClassVar, Final

from agentrl.world.env import Task, TextEnv

SPLITS: Final = ("train", "valid_seen", "valid_unseen")
_SEEDS_OF_SPLIT: Final = 100_000_000


class SeededEnv(TextEnv):
    """A world whose task is a seed of the inner one; splits are disjoint ranges of seeds, without an end.

    Members of a group share the task, so they meet the same start and the same chance.

    Attributes:
        name: the inner world's own id.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS
    name: str

    def num_tasks(self, split: str) -> None:
        """There is no end of seeds."""
        self._check_split(split)

    def get_task(self, split: str, index: int) -> Task:
        """Return the task at (split, index): a seed."""
        self._check_split(split)
        seed = self.splits.index(split) * _SEEDS_OF_SPLIT + index
        return Task(split, index, data={"seed": seed}, type=self.name)

    @property
    def task_seed(self) -> int:
        """The seed of the current task."""
        return int(str(self.task.data["seed"]))
