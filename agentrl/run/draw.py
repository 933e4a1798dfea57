"""What a step rolls out: the plan's tasks, groups, trees, refills and replays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from agentrl.plan import MOST_SHUFFLED, Supply, groups_of
from agentrl.rollout import Harvest, assign_groups, check_invalid_share, complete_groups
from agentrl.run.jobs import collect_on
from agentrl.run.shard import Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from agentrl.plan import Group, Plan
    from agentrl.run.bench import Bench
    from agentrl.run.settings import TrainSettings
    from agentrl.trajectory import Trajectory
    from agentrl.trajectory.batch import Batch


@dataclass(frozen=True)
class Draw:
    """The rollouts of a step.

    Attributes:
        groups: fresh ones that the step learns from; `replayed`: earlier ones that it learns from again.
        harvest: all that was played, also what dynamic sampling set aside; `rounds`: of collecting.
    """

    groups: tuple[Group, ...]
    replayed: tuple[Group, ...]
    harvest: Harvest
    rounds: int

    @property
    def trajectories(self) -> list[Trajectory]:
        """What the step learns from, fresh trajectories first."""
        return [item for group in (*self.groups, *self.replayed) for item in group]

    @property
    def set_aside(self) -> tuple[Trajectory, ...]:
        """What was played and is not learnt from."""
        chosen = {item.id for group in self.groups for item in group}
        return tuple(item for item in self.harvest.trajectories if item.id not in chosen)

    @property
    def sampled_tokens(self) -> int:
        """Tokens that the policy drew for the step; what a branch inherits was drawn by its parent."""
        own = (turn for item in self.harvest.trajectories for turn in item.turns[item.branch_turn or 0 :])
        return sum(len(turn.tokens) for turn in own if turn.tokens is not None)

    def fresh(self, batch: Batch) -> Batch:
        """Return the part of the packed trajectories that this step has played."""
        return batch.select(range(sum(map(len, self.groups)))) if self.replayed else batch

    def figures(self, batch: Batch) -> dict[str, float]:
        """Return what plans did: trees, hints, rewritten histories, rounds, replays."""
        turns, count = max(batch.num_turns, 1), max(batch.num_trajectories, 1)
        inherited = np.minimum(np.maximum(batch.branch_turn, 0), batch.turns_per_trajectory)
        figures = {
            "branched_share": float((batch.parent >= 0).sum()) / count,
            "shared_turn_share": float(inherited.sum()) / turns,
            "hinted_share": float((batch.hint_level > 0).sum()) / count,
            "fresh_stream_share": float(batch.fresh.sum()) / turns,
            "rounds": float(self.rounds - 1),
            "replayed_groups": float(len(self.replayed)),
        }
        return {name: figure for name, figure in figures.items() if figure}


def draw(bench: Bench, plan: Plan, step: int, *, weights: torch.Tensor | None) -> Draw:
    """Roll out the groups of a step as its plan says, and update what plans remember."""
    settings, refill = bench.settings.rl, plan.refill
    telling: list[Group] = []
    spare: list[Group] = []
    harvests: list[Harvest] = []
    taken: set[int] = set()
    while len(telling) < settings.tasks and len(harvests) <= (refill.rounds if refill else 0):
        indices = _tasks(bench, plan, step, len(harvests), settings.tasks - len(telling), taken)
        harvests.append(_play(bench, plan, step, indices, weights))
        for group in groups_of(harvests[-1].trajectories):
            (telling if refill is None or refill.telling(group) else spare).append(group)
    harvest = Harvest(
        tuple(item for one in harvests for item in one.trajectories),
        tuple(item for one in harvests for item in one.invalid),
        sum(one.dropped for one in harvests),
    )
    check_invalid_share(harvest, settings.most_invalid)
    groups = (*telling, *spare)[: settings.tasks] if refill else tuple(telling)
    return Draw(groups, _replay(bench, plan, step, groups), harvest, len(harvests))


def _tasks(bench: Bench, plan: Plan, step: int, number: int, count: int, taken: set[int]) -> list[int]:
    """The tasks of a round; later rounds leave out what the step has taken already."""
    indices = [
        index
        for index in plan.sampler(_supply(bench, step, number), count)
        if not number or index not in taken
    ]
    bench.state = replace(bench.state, dealt=bench.state.dealt + count)
    taken.update(indices)
    return indices


def check_plan(bench: Bench, plan: Plan) -> None:
    """Ask the plan for its first step, which plays nothing. Raises `AlgorithmError` where it has none."""
    settings = bench.settings
    indices = plan.sampler(_supply(bench, 0, 0), settings.rl.tasks)
    names = [f"{settings.environment.split}/{index}" for index in indices]
    plan.allocator([bench.state.ledger.record_of(name) for name in names], settings.rl.members)


def _supply(bench: Bench, step: int, number: int) -> Supply:
    settings = bench.settings
    size = bench.crew.num_tasks(settings.environment.split)
    return Supply(
        split=settings.environment.split,
        size=size,
        first=first_task(settings, size),
        dealt=bench.state.dealt,
        seed=settings.seed,
        step=step,
        round=number,
        ledger=bench.state.ledger,
    )


def first_task(settings: TrainSettings, size: int | None) -> int:
    """Where a seed begins in a split; what would lie beyond the end of a large one is folded back into it."""
    first, apart = settings.rl.first_task, settings.seed * 100_003
    return first + (apart if size is None or size <= MOST_SHUFFLED else apart % max(size - first, 1))


def _play(
    bench: Bench, plan: Plan, step: int, indices: Sequence[int], weights: torch.Tensor | None
) -> Harvest:
    settings, split = bench.settings, bench.settings.environment.split
    records = [bench.state.ledger.record_of(f"{split}/{index}") for index in indices]
    assignments = assign_groups(
        split,
        indices,
        members=plan.allocator(records, settings.rl.members),
        seed=settings.seed,
        step=step,
        hints=None if plan.hint is None else [plan.hint(record) for record in records],
    )
    turns = plan.most_turns(settings.limits.turns)
    task = Task(
        tuple(assignments), "model", settings.rl.temperature, settings.rl.top_p, turns, plan.brancher,
        plan.repeats,
    )  # fmt: skip
    results = collect_on(bench.crew, task, weights)
    bench.keep(results)
    return complete_groups(results)


def _replay(bench: Bench, plan: Plan, step: int, groups: Sequence[Group]) -> tuple[Group, ...]:
    if plan.replay is None:
        return ()
    rng = np.random.default_rng([bench.settings.seed, 7, step])
    shelf = plan.replay.keep(bench.shelf, (), step)
    drawn = plan.replay.draw(shelf, rng)
    bench.shelf = plan.replay.keep(shelf, groups, step)
    # A task may be met again: its earlier group stays a group of its own.
    return tuple(tuple(replace(item, group=f"{item.group}@{item.step}") for item in group) for group in drawn)
