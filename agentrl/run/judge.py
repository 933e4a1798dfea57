"""Judging a policy: play a fixed set of tasks and state success with an interval clustered by task."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.rollout import Assignment
from agentrl.run.jobs import collect_on
from agentrl.run.shard import Task
from agentrl.run.statistics import Interval, by_task, success_interval
from agentrl.trajectory import Invalid, Trajectory

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
        outcomes: success (0 or 1) of each rollout by task; failed rollouts are not among them.
        trajectories: all valid ones; `invalid`: rollouts that failed, counted apart.
    """

    outcomes: dict[str, list[float]]
    trajectories: tuple[Trajectory, ...]
    invalid: tuple[Invalid, ...]

    @property
    def success(self) -> Interval:
        """Success over tasks with a 95 % interval."""
        return success_interval(self.outcomes)

    def by_type(self) -> dict[str, dict[str, object]]:
        """Success by task type."""
        kinds = sorted({item.task_type or "all" for item in self.trajectories})
        return {
            kind: interval_row(
                verdict_of([t for t in self.trajectories if (t.task_type or "all") == kind]).success
            )
            for kind in kinds
        }

    def stops(self) -> dict[str, int]:
        """Counts of stop reasons, failed rollouts included."""
        counts = Counter(item.stop.value for item in self.trajectories)
        counts.update(f"invalid: {item.reason.value}" for item in self.invalid)
        return dict(counts)

    def tiers(self) -> list[str]:
        """How the programs of the trajectories were held; empty where none ran."""
        return sorted({item.sandbox_tier for item in self.trajectories} - {""})

    def figures(self) -> dict[str, float]:
        """Means over trajectories: turns, invalid actions, tokens."""
        turns = [turn for item in self.trajectories for turn in item.turns]
        count = max(len(turns), 1)
        return {
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
    outcomes = by_task((item.task for item in valid), (float(bool(item.success)) for item in valid))
    return Verdict(outcomes, valid, failed)


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
    """An interval as plain data."""
    return {
        "mean": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "tasks": interval.n_tasks,
        "rollouts": interval.n_rollouts,
    }
