"""What to roll out: the rollout, not the environment, fixes (task, seed) for a group."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Assignment:
    """One trajectory to collect.

    Members of a group share (split, index, seed), so they start equal; `noise` and `member` tell their
    sampling apart. `attempt` counts retries after infrastructure failures. `hint` is the share of the
    expert's turns that it plays before the policy begins.
    """

    split: str
    index: int
    seed: int
    group: str
    member: int = 0
    step: int = 0
    noise: int = 0
    attempt: int = 0
    hint: float = 0.0

    @property
    def id(self) -> str:
        """Unique name within a run."""
        suffix = f"~{self.attempt}" if self.attempt else ""
        return f"{self.step}:{self.group}:{self.member}{suffix}"

    @property
    def task(self) -> str:
        """The task's address, "split/index"."""
        return f"{self.split}/{self.index}"

    def key(self, turn: int) -> tuple[int, ...]:
        """The noise key of a turn: (seed, step, task, member, turn)."""
        return (self.noise, self.step, zlib.crc32(self.task.encode()), self.member, turn)


def assign_groups(
    split: str,
    indices: Iterable[int],
    *,
    members: int | Sequence[int],
    seed: int,
    step: int = 0,
    hints: Sequence[float] | None = None,
) -> list[Assignment]:
    """Return `members` assignments for each task; the group's environment seed comes from (seed, task).

    Args:
        members: of every group, or of each; `hints`: the share of each group that the expert plays.

    >>> [a.id for a in assign_groups("train", [7], members=2, seed=1)]
    ['0:train/7:0', '0:train/7:1']
    """
    tasks = list(indices)
    sizes = [members] * len(tasks) if isinstance(members, int) else members
    shares = [0.0] * len(tasks) if hints is None else hints
    return [
        Assignment(
            split=split,
            index=index,
            seed=zlib.crc32(f"{seed}:{split}/{index}".encode()),
            group=f"{split}/{index}",
            member=member,
            step=step,
            noise=seed,
            hint=hint,
        )
        for index, size, hint in zip(tasks, sizes, shares, strict=True)
        for member in range(size)
    ]
