"""What shards are asked to do: small picklable values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from agentrl.learn.algorithm import Algorithm, Credit
    from agentrl.learn.forward import Index
    from agentrl.learn.gradient import PolicyGradient, SupervisedGradient
    from agentrl.learn.supervised import Example
    from agentrl.run.crew import Crew
    from agentrl.run.shard import Shard, Task
    from agentrl.trajectory import Invalid, Trajectory
    from agentrl.trajectory.batch import Batch


@dataclass(frozen=True)
class Collect:
    """Play a share of a collection."""

    task: Task

    def __call__(self, shard: Shard) -> list[Trajectory | Invalid]:
        return shard.collect(self.task)


@dataclass(frozen=True, eq=False)
class PolicyShare:
    """Differentiate the loss of some streams."""

    algorithm: Algorithm
    batch: Batch
    credit: Credit
    streams: Index
    micro_tokens: int
    temperature: float

    def __call__(self, shard: Shard) -> PolicyGradient:
        return shard.policy_gradient(
            self.algorithm, self.batch, self.credit, self.streams, self.micro_tokens, self.temperature
        )


@dataclass(frozen=True, eq=False)
class SupervisedShare:
    """Differentiate the loss of some demonstrations."""

    examples: tuple[Example, ...]
    total_weight: float
    micro_tokens: int

    def __call__(self, shard: Shard) -> SupervisedGradient:
        return shard.supervised_gradient(self.examples, self.total_weight, self.micro_tokens)


def collect_on(crew: Crew, task: Task, weights: torch.Tensor | None) -> list[Trajectory | Invalid]:
    """Play a collection on every shard; results stand in the order of the assignments."""
    shares = [task.assignments[number :: crew.shards] for number in range(crew.shards)]
    jobs = [Collect(replace(task, assignments=tuple(share))) for share in shares]
    results = crew.run(jobs, weights)
    merged: list[Trajectory | Invalid | None] = [None] * len(task.assignments)
    for number, result in enumerate(results):
        merged[number :: crew.shards] = result
    return [item for item in merged if item is not None]


def supervised_on(
    crew: Crew, examples: Sequence[Example], weights: torch.Tensor, micro_tokens: int
) -> list[SupervisedGradient]:
    """Differentiate demonstrations on every shard; the gradients add up."""
    from agentrl.learn.supervised import total_weight

    weight = total_weight(examples)
    shares = [tuple(examples[number :: crew.shards]) for number in range(crew.shards)]
    return crew.run([SupervisedShare(share, weight, micro_tokens) for share in shares], weights)


def policy_on(
    crew: Crew, algorithm: Algorithm, batch: Batch, credit: Credit, streams: Index, weights: torch.Tensor,
    micro_tokens: int, temperature: float,
) -> list[PolicyGradient]:  # fmt: skip
    """Differentiate a batch on every shard; the gradients add up."""
    import numpy as np

    lengths = np.diff(batch.token_start[batch.stream_turn_start])[streams]
    order = streams[np.argsort(-lengths, kind="stable")]
    light = replace(batch, turn_details=(), trajectory_details=())
    shares = [order[number :: crew.shards] for number in range(crew.shards)]
    return crew.run(
        [PolicyShare(algorithm, light, credit, share, micro_tokens, temperature) for share in shares], weights
    )
