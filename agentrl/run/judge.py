"""Judging a policy: play a fixed set of tasks and state success with an interval clustered by task."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.rollout import Assignment
from agentrl.run.jobs import collect_on
from agentrl.run.shard import Task
from agentrl.run.statistics import Interval, by_task, success_interval
from agentrl.trajectory import Invalid, StopReason, Trajectory

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from agentrl.run.crew import Crew
    from agentrl.run.shard import Actor
    from agentrl.run.suite import Mode

JUDGE_SEED = 20_001
"""Noise of evaluations: the same for every policy and step, so that comparisons are paired."""


@dataclass(frozen=True)
class Verdict:
    """What an evaluation found.

    Attributes:
        outcomes: success (0 or 1) of each rollout by task; failed rollouts are not among them. Empty where
            success is unknown, see `says_success`.
        trajectories: all valid ones; `invalid`: rollouts that failed, counted apart.
    """

    outcomes: dict[str, list[float]]
    trajectories: tuple[Trajectory, ...]
    invalid: tuple[Invalid, ...]

    @property
    def success(self) -> Interval:
        """Success over tasks with a 95 % interval; of NaN where it is unknown."""
        return self._success_of(self.trajectories)

    @property
    def unjudged(self) -> int:
        """Trajectories whose world did not say whether they succeeded."""
        return sum(item.success is None for item in self.trajectories)

    @property
    def unknown(self) -> bool:
        """Whether nobody can say how many trajectories succeeded."""
        return bool(self.trajectories) and not self.outcomes

    def by_type(self) -> dict[str, dict[str, object]]:
        """Success by task type."""
        found: dict[str, list[Trajectory]] = {}
        for item in self.trajectories:
            found.setdefault(item.task_type or "all", []).append(item)
        return {kind: interval_row(self._success_of(found[kind])) for kind in sorted(found)}

    def _success_of(self, trajectories: Sequence[Trajectory]) -> Interval:
        if self.unknown:
            tasks = len({item.task for item in trajectories})
            return Interval(math.nan, math.nan, math.nan, tasks, len(trajectories))
        return success_interval(_outcomes(trajectories))

    def stops(self) -> dict[str, int]:
        """Counts of stop reasons, failed rollouts included."""
        counts = Counter(item.stop.value for item in self.trajectories)
        counts.update(f"invalid: {item.reason.value}" for item in self.invalid)
        return dict(counts)

    def tiers(self) -> list[str]:
        """How the programs of the trajectories were held; empty where none ran."""
        return sorted({item.sandbox_tier for item in self.trajectories} - {""})

    def figures(self) -> dict[str, float]:
        """Means over trajectories: reward, turns, invalid actions, tokens."""
        turns = [turn for item in self.trajectories for turn in item.turns]
        count = max(len(turns), 1)
        return {
            "reward": sum(item.reward for item in self.trajectories) / max(len(self.trajectories), 1),
            "turns": len(turns) / max(len(self.trajectories), 1),
            "invalid_share": sum(not turn.valid for turn in turns) / count,
            "tokens": sum(len(turn.tokens) for turn in turns if turn.tokens is not None)
            / max(len(self.trajectories), 1),
            "infrastructure_failures": float(len(self.invalid)),
        }


def verdict_of(results: Sequence[Trajectory | Invalid]) -> Verdict:
    """Sort rollouts into a verdict."""
    valid = tuple(item for item in results if isinstance(item, Trajectory))
    failed = tuple(item for item in results if isinstance(item, Invalid))
    return Verdict(_outcomes(valid) if says_success(valid) else {}, valid, failed)


def says_success(trajectories: Sequence[Trajectory]) -> bool:
    """Return whether the world says which trajectories succeed.

    It does not where episodes end without `info["success"]` and none is called a success, nor one that the
    world itself ended a failure. A world that names only its successes is taken at its word after the first.
    """
    return any(
        item.success or (item.success is False and item.stop is StopReason.TERMINATED)
        for item in trajectories
    ) or all(item.success is not None for item in trajectories)


def _outcomes(trajectories: Sequence[Trajectory]) -> dict[str, list[float]]:
    return by_task((item.task for item in trajectories), (float(bool(item.success)) for item in trajectories))


def judge(
    crew: Crew,
    *,
    split: str,
    tasks: int,
    mode: Mode = "sampled",
    actor: Actor = "model",
    rollouts: int = 1,
    first_task: int = 0,
    weights: torch.Tensor | None = None,
) -> Verdict:
    """Play `rollouts` of each of `tasks` tasks of a split."""
    assignments = assignments_of(split, tasks, first_task=first_task, rollouts=rollouts)
    share = Task(assignments, actor, 0.0 if mode == "greedy" else 1.0, 1.0)
    return verdict_of(collect_on(crew, share, weights))


def assignments_of(
    split: str, tasks: int, *, first_task: int = 0, rollouts: int = 1, seed: int = JUDGE_SEED
) -> tuple[Assignment, ...]:
    """Return `rollouts` assignments for each task, the same for every policy: comparisons are paired."""
    return tuple(
        Assignment(
            split=split,
            index=first_task + index,
            seed=index,
            group=f"{split}/{first_task + index}",
            member=member,
            noise=seed,
        )
        for index in range(tasks)
        for member in range(rollouts)
    )


def interval_row(interval: Interval) -> dict[str, object]:
    """An interval as plain data, None where it is unknown."""
    mean, low, high = (
        None if math.isnan(bound) else bound for bound in (interval.mean, interval.low, interval.high)
    )
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "tasks": interval.n_tasks,
        "rollouts": interval.n_rollouts,
    }
