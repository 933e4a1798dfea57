"""Dynamic sampling and replay: which groups a step learns from, besides those that it has just drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from agentrl.errors import AlgorithmError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentrl.trajectory import Trajectory

Group: TypeAlias = "tuple[Trajectory, ...]"


def groups_of(trajectories: Iterable[Trajectory]) -> list[Group]:
    """Return the groups, in order of first appearance."""
    found: dict[tuple[int, str], list[Trajectory]] = {}
    for trajectory in trajectories:
        found.setdefault((trajectory.step, trajectory.group), []).append(trajectory)
    return [tuple(group) for group in found.values()]


def spread(group: Sequence[Trajectory]) -> float:
    """Largest minus smallest episode reward of a group."""
    rewards = [trajectory.reward for trajectory in group]
    return max(rewards) - min(rewards)


@dataclass(frozen=True)
class Refill:
    """Groups whose rewards are all equal are replaced by groups of other tasks, in at most `rounds` rounds.

    What is still missing then is filled with equal groups, so a batch always has its size. Everything that
    was played counts in the ledger. Source: dynamic sampling of DAPO (arXiv 2503.14476, section 3.2), which
    has no bound; verl-agent stops after 10 rounds.

    Attributes:
        tolerance: largest spread that still counts as equal.
    """

    rounds: int = 3
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise AlgorithmError(f"dynamic sampling takes at least 1 round; got {self.rounds}.")

    def telling(self, group: Sequence[Trajectory], /) -> bool:
        """Whether the group's rewards differ."""
        return spread(group) > self.tolerance


@dataclass(frozen=True)
class Replay:
    """Some groups of earlier steps are learnt from again, against the log-probabilities they were drawn with.

    Groups of equal rewards are not kept. One that is kept is drawn in proportion to its spread, at most once
    a step, and forgotten after `age` steps or when `capacity` newer ones stand before it.
    Source: selective sample replay of VL-Rethinker (arXiv 2504.08837). Departure: whole groups, by spread
    of rewards, theirs single samples by |advantage|.

    Attributes:
        groups: how many a step replays, if there are so many.
    """

    groups: int = 1
    capacity: int = 32
    age: int = 8

    def __post_init__(self) -> None:
        for name in ("groups", "capacity", "age"):
            if getattr(self, name) < 1:
                raise AlgorithmError(f"the {name} of a replay must be at least 1; got {getattr(self, name)}.")

    def keep(self, shelf: Sequence[Group], new: Sequence[Group], step: int) -> tuple[Group, ...]:
        """Return the shelf with the new groups, without what is too old or too much."""
        young = [group for group in shelf if step - group[0].step < self.age]
        kept = [*young, *(group for group in new if spread(group) > 0)]
        return tuple(kept[-self.capacity :])

    def draw(self, shelf: Sequence[Group], rng: np.random.Generator) -> tuple[Group, ...]:
        """Return the groups to replay."""
        if not shelf:
            return ()
        wanted = np.array([spread(group) for group in shelf])
        count = min(self.groups, len(shelf))
        drawn = rng.choice(len(shelf), count, replace=False, p=wanted / wanted.sum())
        return tuple(shelf[int(place)] for place in drawn)
