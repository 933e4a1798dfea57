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


@dataclass(frozen=True)
class TaskRecord:
    """One task so far: attempts, known successes, and the running mean of its episode rewards."""

    attempts: int = 0
    successes: int = 0
    mean_reward: float = 0.0


@dataclass(frozen=True)
class Ledger:
    """Records by task. `decay` is the weight of the past in each task's running mean.

    >>> from agentrl.trajectory.batch import Batch
    >>> batch = Batch.from_arrays(
    ...     group=[0, 0], turns_per_trajectory=[1, 1], reward=[0, 1], task=["a", "a"], success=[0, 1]
    ... )
    >>> ledger = Ledger().record(batch)
    >>> ledger.tasks["a"], ledger.pass_rate("a"), ledger.pass_rate("new")
    (TaskRecord(attempts=2, successes=1, mean_reward=0.5), 0.5, None)
    """

    decay: float = 0.9
    batches: int = 0
    tasks: Mapping[str, TaskRecord] = field(default_factory=dict)

    def record(self, batch: Batch) -> Ledger:
        """Return the ledger after one more batch; this one is unchanged."""
        names, task = np.unique(batch.task, return_inverse=True)
        attempts = np.bincount(task, minlength=len(names))
        successes = np.bincount(task, batch.success == 1, len(names)).astype(int)
        means = np.bincount(task, batch.episode_reward, len(names)) / np.maximum(attempts, 1)
        updated = {
            str(name): self._after(str(name), int(attempts[row]), int(successes[row]), float(means[row]))
            for row, name in enumerate(names)
        }
        return replace(self, batches=self.batches + 1, tasks={**self.tasks, **updated})

    def _after(self, task: str, attempts: int, successes: int, mean: float) -> TaskRecord:
        old = self.tasks.get(task)
        if old is None:
            return TaskRecord(attempts, successes, mean)
        running = self.decay * old.mean_reward + (1 - self.decay) * mean
        return TaskRecord(old.attempts + attempts, old.successes + successes, running)

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
        """Return the batch with the column `PAST_MEAN`, which credit parts read."""
        return batch.with_column(PAST_MEAN, self.past_mean(batch))

    def to_json(self) -> str:
        """Return the ledger as JSON, tasks in order, so equal ledgers give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Ledger:
        """Read what `to_json` wrote. Raises `AlgorithmError` for anything else."""
        try:
            data = json.loads(text)
            tasks = {name: TaskRecord(**record) for name, record in data["tasks"].items()}
            return cls(float(data["decay"]), int(data["batches"]), tasks)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AlgorithmError(
                f"this is not a ledger ({error}); give the text that Ledger.to_json wrote."
            ) from error
