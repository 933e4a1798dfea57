"""Running statistics of tasks: plain data that is checkpointed, read as a column and updated after credit."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from agentrl.errors import AlgorithmError
from agentrl.trajectory.batch import Column

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float32]

PAST_MEAN = Column("past_mean", "E", "agentrl.credit.ledger.Ledger.annotate")
LEAST_CALLS = Column("least_calls", "E", "agentrl.credit.ledger.Ledger.annotate")
IMPROVEMENT = Column("improvement", "E", "agentrl.credit.ledger.Ledger.annotate")
ROLE_BASELINE = Column("role_baseline", "S", "agentrl.credit.ledger.Ledger.annotate")


WINDOW = 8
"""How many batches `Ledger.means` remembers: PIPO's window (arXiv 2604.00860)."""
LEAST_SPREAD = 1e-2
"""Means that differ less are a plateau: their spread would only blow up noise."""


@dataclass(frozen=True)
class TaskRecord:
    """One task so far: attempts, known successes, the running mean of its episode rewards.

    `least_calls` is the smallest number of tool calls of any success, None before the first.
    """

    attempts: int = 0
    successes: int = 0
    mean_reward: float = 0.0
    least_calls: int | None = None


@dataclass(frozen=True)
class Ledger:
    """Records by task, and running means by role.

    Attributes:
        decay: weight of the past in a task's running mean, at each batch.
        roles: running mean of what each role of each domain earned in a trajectory, by `role_key`;
            `role_decay` is the weight of the past at each trajectory (RAE of SPIRAL, arXiv 2506.24119).
        means: mean episode rewards of the last batches, the oldest first.

    >>> from agentrl.trajectory.batch import Batch
    >>> batch = Batch.from_arrays(
    ...     group=[0, 0], turns_per_trajectory=[1, 1], reward=[0, 1], task=["a", "a"], success=[0, 1]
    ... )
    >>> ledger = Ledger().record(batch)
    >>> ledger.tasks["a"], ledger.pass_rate("a"), ledger.pass_rate("new")
    (TaskRecord(attempts=2, successes=1, mean_reward=0.5, least_calls=0), 0.5, None)
    """

    decay: float = 0.9
    batches: int = 0
    tasks: Mapping[str, TaskRecord] = field(default_factory=dict)
    roles: Mapping[str, float] = field(default_factory=dict)
    role_decay: float = 0.95
    means: tuple[float, ...] = ()

    def record(self, batch: Batch) -> Ledger:
        """Return the ledger after one more batch; this one is unchanged."""
        names, task = np.unique(batch.task, return_inverse=True)
        attempts = np.bincount(task, minlength=len(names))
        successes = np.bincount(task, batch.success == 1, len(names)).astype(int)
        means = np.bincount(task, batch.episode_reward, len(names)) / np.maximum(attempts, 1)
        least = _least_calls(batch, task, len(names))
        updated = {
            str(name): self._after(
                str(name), TaskRecord(int(attempts[row]), int(successes[row]), float(means[row]), least[row])
            )
            for row, name in enumerate(names)
        }
        roles = {**self.roles, **self._roles_after(batch)}
        past = self.means
        if batch.num_trajectories:
            past = (*past, float(batch.episode_reward.mean(dtype=np.float64)))[-WINDOW:]
        return replace(
            self, batches=self.batches + 1, tasks={**self.tasks, **updated}, roles=roles, means=past
        )

    def _after(self, task: str, new: TaskRecord) -> TaskRecord:
        old = self.tasks.get(task)
        if old is None:
            return new
        known = [calls for calls in (old.least_calls, new.least_calls) if calls is not None]
        return TaskRecord(
            old.attempts + new.attempts,
            old.successes + new.successes,
            self.decay * old.mean_reward + (1 - self.decay) * new.mean_reward,
            min(known, default=None),
        )

    def _roles_after(self, batch: Batch) -> dict[str, float]:
        """Move each role's mean towards that of the batch, as far as its trajectories would one by one."""
        keys, pair, _ = role_totals(batch)
        played = np.unique(pair * max(batch.num_trajectories, 1) + batch.trajectory_of_turn)
        count = np.bincount(played // max(batch.num_trajectories, 1), minlength=len(keys))
        mean = np.bincount(pair, batch.reward, len(keys)) / np.maximum(count, 1)
        past = self.role_decay**count
        return {
            key: float(past[i] * self.roles.get(key, 0.0) + (1 - past[i]) * mean[i])
            for i, key in enumerate(keys)
        }

    def record_of(self, task: str) -> TaskRecord:
        """Return what is known of a task; an empty record for a new one."""
        return self.tasks.get(task, TaskRecord())

    def pass_rate(self, task: str) -> float | None:
        """Return the share of attempts that succeeded, or None for a task never tried."""
        old = self.tasks.get(task)
        return old.successes / old.attempts if old and old.attempts else None

    def past_mean(self, batch: Batch) -> Floats:
        """(E,) running mean of each trajectory's task before this batch; 0 for a new task."""
        return np.array(
            [self.tasks.get(str(task), TaskRecord()).mean_reward for task in batch.task], np.float32
        )

    def annotate(self, batch: Batch) -> Batch:
        """Return the batch with `PAST_MEAN`, `LEAST_CALLS`, `ROLE_BASELINE` and `IMPROVEMENT`."""
        records = [self.tasks.get(str(task), TaskRecord()).least_calls for task in batch.task]
        least = np.array([np.nan if calls is None else calls for calls in records], np.float32)
        keys, pair, _ = role_totals(batch)
        mean = np.array([self.roles.get(key, 0.0) for key in keys] or [0.0], np.float32)
        return (
            batch.with_column(PAST_MEAN, self.past_mean(batch))
            .with_column(LEAST_CALLS, least)
            .with_column(ROLE_BASELINE, mean[pair])
            .with_column(IMPROVEMENT, self.improvement(batch))
        )

    def improvement(self, batch: Batch) -> Floats:
        """(E,) NaN for a trajectory of this step, and for a replayed one by how much this step is better.

        That is the mean reward of this step's trajectories minus the mean of `means`, over their population
        deviation; 0 while fewer than two are known or where they differ by less than `LEAST_SPREAD`.
        """
        step = np.array([detail.step for detail in batch.trajectory_details] or [0] * batch.num_trajectories)
        fresh = step == step.max(initial=0)
        past = np.array(self.means)
        rise = 0.0
        if len(past) > 1 and past.std() >= LEAST_SPREAD:
            rise = float((batch.episode_reward[fresh].mean(dtype=np.float64) - past.mean()) / past.std())
        return np.where(fresh, np.nan, rise).astype(np.float32)

    def to_json(self) -> str:
        """Return the ledger as JSON, tasks in order, so equal ledgers give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Ledger:
        """Read what `to_json` wrote. Raises `AlgorithmError` for anything else."""
        try:
            data = json.loads(text)
            tasks = {name: TaskRecord(**record) for name, record in data["tasks"].items()}
            roles = {str(name): float(mean) for name, mean in data.get("roles", {}).items()}
            decay = float(data.get("role_decay", cls.role_decay))
            means = tuple(float(mean) for mean in data.get("means", ()))
            return cls(float(data["decay"]), int(data["batches"]), tasks, roles, decay, means)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AlgorithmError(
                f"this is not a ledger ({error}); give the text that Ledger.to_json wrote."
            ) from error


def role_totals(batch: Batch) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]]:
    """Return the roles of all domains, (S,) which one acts, and (S,) what it earned in the trajectory.

    >>> from agentrl.trajectory.batch import Batch
    >>> batch = Batch.from_arrays(
    ...     group=[0], turns_per_trajectory=[3], reward=[1, 5, 2], role=["x", "o", "x"], domain=["xo"]
    ... )
    >>> keys, role, earned = role_totals(batch)
    >>> keys, role.tolist(), earned.tolist()
    (['xo/o', 'xo/x'], [1, 0, 1], [3.0, 5.0, 3.0])
    """
    names = np.char.add(np.char.add(batch.domain[batch.trajectory_of_turn], "/"), batch.role)
    keys, pair = np.unique(names, return_inverse=True)
    place = pair * max(batch.num_trajectories, 1) + batch.trajectory_of_turn
    earned = np.bincount(place, batch.reward, max(len(keys), 1) * max(batch.num_trajectories, 1))
    return [str(key) for key in keys], pair.astype(np.int64), np.asarray(earned[place], np.float64)


def _least_calls(batch: Batch, task: NDArray[np.intp], tasks: int) -> list[int | None]:
    """Fewest tool calls of a success of each task."""
    calls = np.bincount(batch.trajectory_of_turn, batch.tool_calls, batch.num_trajectories)
    least = np.full(tasks, np.inf)
    won = batch.success == 1
    np.minimum.at(least, task[won], calls[won])
    return [int(figure) if np.isfinite(figure) else None for figure in least]
