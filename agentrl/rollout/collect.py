"""World meets policy: collect trajectories, one coroutine each, without lock-step."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agentrl.errors import RolloutError
from agentrl.policy.base import ClosingPolicy
from agentrl.rollout.branch import Played, gathered, grow
from agentrl.rollout.deadline import run, within
from agentrl.rollout.episode import Episode
from agentrl.rollout.stage import Stage
from agentrl.trajectory import Invalid, InvalidReason, Trajectory
from agentrl.world.closing import close_world

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentrl.rollout.assignment import Assignment
    from agentrl.rollout.branch import Origin
    from agentrl.rollout.episode import Play
    from agentrl.rollout.stage import AnyEnv

CLOSING_SECONDS = 10.0
"""How long a policy may take to close its connections at the end of a collection."""

RETRIED = frozenset(
    {
        InvalidReason.WALL_CLOCK,
        InvalidReason.ENVIRONMENT_FAULT,
        InvalidReason.POLICY_ERROR,
        InvalidReason.WORKER_DIED,
    }
)


@dataclass
class Stock:
    """Environments that ended well and may be reset for the next trajectory."""

    make: Callable[[], AnyEnv]
    idle: list[AnyEnv] = field(default_factory=list)

    def take(self) -> AnyEnv | None:
        """Return a used environment, or None when a fresh one must be made."""
        return self.idle.pop() if self.idle else None

    def put_back(self, env: AnyEnv | None) -> None:
        """Keep an environment for reuse."""
        if env is not None:
            self.idle.append(env)

    def look(self) -> AnyEnv:
        """Return an environment that stays in the stock, to read what all of them have in common."""
        env = self.take() or self.make()
        self.put_back(env)
        return env

    def close(self) -> None:
        """Close every idle environment."""
        while self.idle:
            close_world(self.idle.pop())


async def collect_async(
    stock: Stock,
    play: Play,
    assignments: Sequence[Assignment],
    *,
    concurrency: int = 64,
    retries: int = 1,
    finished: Callable[[Trajectory | Invalid], None] | None = None,
) -> list[Trajectory | Invalid]:
    """Play every assignment; results stand in the order of the assignments.

    An exception in one environment never touches another trajectory: it ends as `Invalid`, after one replay
    of the same actions in a fresh environment and `retries` new attempts where infrastructure failed.
    With a brancher the members of a group grow in waves; a group in which one fails is not grown further, and
    its other members are missing.

    Args:
        concurrency: trajectories in flight; a trajectory that ends makes room for the next one at once.
        finished: called with each result as it comes, for progress.
    """
    gate = asyncio.Semaphore(concurrency)

    async def one(assignment: Assignment, origin: Origin | None = None) -> Played:
        async with gate:
            played = await _attempts(stock, play, assignment, retries, origin)
            if finished is not None:
                finished(played.result)
            return played

    brancher = play.brancher
    try:
        if brancher is None:
            return [played.result for played in await gathered(map(one, assignments))]
        grown = await gathered(grow(group, brancher, one) for group in _by_group(assignments))
        return [result for group in grown for result in group]
    finally:
        if isinstance(play.policy, ClosingPolicy):
            await within(play.policy.aclose(), CLOSING_SECONDS)


def collect(
    stock: Stock,
    play: Play,
    assignments: Sequence[Assignment],
    *,
    concurrency: int = 64,
    retries: int = 1,
    finished: Callable[[Trajectory | Invalid], None] | None = None,
) -> list[Trajectory | Invalid]:
    """Do as `collect_async`, from code that runs no event loop."""
    work = collect_async(
        stock, play, assignments, concurrency=concurrency, retries=retries, finished=finished
    )
    return run(work)


def _by_group(assignments: Sequence[Assignment]) -> list[list[Assignment]]:
    groups: dict[tuple[int, str], list[Assignment]] = {}
    for assignment in assignments:
        groups.setdefault((assignment.step, assignment.group), []).append(assignment)
    return list(groups.values())


async def _attempts(
    stock: Stock, play: Play, assignment: Assignment, retries: int, origin: Origin | None
) -> Played:
    played = await _once(stock, play, assignment, origin)
    for attempt in range(1, retries + 1):
        if isinstance(played.result, Trajectory) or played.result.reason not in RETRIED:
            break
        played = await _once(stock, play, replace(assignment, attempt=attempt), origin)
    return played


async def _once(stock: Stock, play: Play, assignment: Assignment, origin: Origin | None) -> Played:
    stage = Stage(
        make=stock.make,
        assignment=assignment,
        protocol=play.protocol,
        seconds=play.limits.step_seconds,
        terms=play.terms,
        env=stock.take(),
    )
    try:
        result = await Episode(play, stage, origin).run()
        if isinstance(result, Trajectory):
            stock.put_back(stage.retire())
    finally:
        await stage.close()
    return Played(result, stage.course)


@dataclass(frozen=True, slots=True)
class Harvest:
    """What a collection gave.

    Attributes:
        trajectories: members of complete groups only; `invalid`: every rollout that failed.
        dropped: valid trajectories that were left out because a member of their group failed.
    """

    trajectories: tuple[Trajectory, ...]
    invalid: tuple[Invalid, ...]
    dropped: int

    @property
    def invalid_share(self) -> float:
        """Failed rollouts over all rollouts."""
        total = len(self.trajectories) + len(self.invalid) + self.dropped
        return len(self.invalid) / total if total else 0.0


def complete_groups(results: Sequence[Trajectory | Invalid]) -> Harvest:
    """Drop every group with a failed member: leaving out single failures would bias its baseline."""
    failed = tuple(result for result in results if isinstance(result, Invalid))
    broken = {(item.step, item.group) for item in failed}
    valid = [result for result in results if isinstance(result, Trajectory)]
    kept = tuple(item for item in valid if (item.step, item.group) not in broken)
    return Harvest(kept, failed, len(valid) - len(kept))


def check_invalid_share(harvest: Harvest, most: float) -> None:
    """Raise `RolloutError` with the commonest failure when more than `most` of the rollouts failed."""
    if harvest.invalid_share <= most:
        return
    (reason, detail), count = Counter((item.reason, item.detail) for item in harvest.invalid).most_common(1)[
        0
    ]
    raise RolloutError(
        f"{harvest.invalid_share:.0%} of the rollouts failed, more than the {most:.0%} allowed by "
        f"rl.most_invalid. The commonest failure ({count}x {reason.value}): {detail}. "
        "Repair the environment or policy, or raise rl.most_invalid; progress so far is kept and resumable."
    )
