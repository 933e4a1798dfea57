"""What shards are asked to do: small picklable values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from agentrl.learn.algorithm import Algorithm, Credit
    from agentrl.learn.belief import Answers
    from agentrl.learn.forward import Index
    from agentrl.learn.gradient import PolicyGradient, SupervisedGradient
    from agentrl.learn.probes import Measured
    from agentrl.learn.supervised import Example
    from agentrl.learn.value import ValueGradient, ValueInputs, Values
    from agentrl.run.crew import Crew
    from agentrl.run.shard import Shard, Task
    from agentrl.trajectory import Invalid, Trajectory
    from agentrl.trajectory.batch import Batch


@dataclass(frozen=True)
class Collect:
    """Play a share of a collection."""

    task: Task

    def __call__(self, shard: Shard) -> list[Trajectory | Invalid]:
        """Return what happened."""
        return shard.collect(self.task)


@dataclass(frozen=True, eq=False)
class PolicyShare:
    """Differentiate the loss of some streams, in a minibatch (E,) of the trajectories where one is given."""

    algorithm: Algorithm
    batch: Batch
    credit: Credit
    streams: Index
    micro_tokens: int
    temperature: float
    minibatch: NDArray[np.bool_] | None = None

    def __call__(self, shard: Shard) -> PolicyGradient:
        """Return the gradient."""
        return shard.policy_gradient(
            self.algorithm, self.batch, self.credit, self.streams, self.micro_tokens, self.temperature,
            self.minibatch,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Measure:
    """Measure some streams under the current weights, or under those of the checkpoint `reference`."""

    batch: Batch
    streams: Index
    micro_tokens: int
    temperature: float
    reference: Path | None = None
    answers: Answers = ()
    vocabulary: bool = False

    def __call__(self, shard: Shard) -> Measured:
        """Return what the model says."""
        return shard.measure(
            self.batch, self.streams, self.micro_tokens, self.temperature, self.reference, self.answers,
            vocabulary=self.vocabulary,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class MeasureValues:
    """Measure what a critic of the given (P,) weights says of some streams."""

    batch: Batch
    streams: Index
    critic: torch.Tensor
    micro_tokens: int

    def __call__(self, shard: Shard) -> Values:
        """Return the values."""
        from agentrl.learn.value import measure_values

        return measure_values(
            self.batch, shard.critic(self.critic), self.streams, micro_tokens=self.micro_tokens
        )


@dataclass(frozen=True, eq=False)
class ValueShare:
    """Differentiate the loss of a critic of the given (P,) weights on some streams."""

    batch: Batch
    inputs: ValueInputs
    streams: Index
    critic: torch.Tensor
    micro_tokens: int

    def __call__(self, shard: Shard) -> ValueGradient:
        """Return the gradient."""
        from agentrl.learn.value import value_gradient

        return value_gradient(
            shard.critic(self.critic), self.batch, self.inputs, self.streams, micro_tokens=self.micro_tokens
        )


@dataclass(frozen=True, eq=False)
class SupervisedShare:
    """Differentiate the loss of some demonstrations."""

    examples: tuple[Example, ...]
    total_weight: float
    micro_tokens: int

    def __call__(self, shard: Shard) -> SupervisedGradient:
        """Return the gradient."""
        return shard.supervised_gradient(self.examples, self.total_weight, self.micro_tokens)


def collect_on(crew: Crew, task: Task, weights: torch.Tensor | None) -> list[Trajectory | Invalid]:
    """Play a collection on every shard; results stand in the order of the assignments.

    With a brancher a group stays on one shard, and members that were not begun are missing.
    """
    if task.brancher is not None:
        return _grow_on(crew, task, weights)
    shares = [task.assignments[number :: crew.shards] for number in range(crew.shards)]
    jobs = [Collect(replace(task, assignments=tuple(share))) for share in shares]
    results = crew.run(jobs, weights)
    merged: list[Trajectory | Invalid | None] = [None] * len(task.assignments)
    for number, result in enumerate(results):
        merged[number :: crew.shards] = result
    return [item for item in merged if item is not None]


def _grow_on(crew: Crew, task: Task, weights: torch.Tensor | None) -> list[Trajectory | Invalid]:
    order = list(dict.fromkeys(assignment.group for assignment in task.assignments))
    shard_of = {group: number % crew.shards for number, group in enumerate(order)}
    shares = [
        tuple(item for item in task.assignments if shard_of[item.group] == number)
        for number in range(crew.shards)
    ]
    played = crew.run([Collect(replace(task, assignments=share)) for share in shares], weights)
    place = {group: number for number, group in enumerate(order)}
    return sorted((item for share in played for item in share), key=lambda item: place[item.group])


def supervised_on(
    crew: Crew, examples: Sequence[Example], weights: torch.Tensor | None, micro_tokens: int
) -> list[SupervisedGradient]:
    """Differentiate demonstrations on every shard; the gradients add up."""
    from agentrl.learn.supervised import total_weight

    weight = total_weight(examples)
    shares = [tuple(examples[number :: crew.shards]) for number in range(crew.shards)]
    return crew.run([SupervisedShare(share, weight, micro_tokens) for share in shares], weights)


def policy_on(crew: Crew, share: PolicyShare, weights: torch.Tensor | None) -> list[PolicyGradient]:
    """Differentiate the streams of `share` on every shard; the gradients add up."""
    light = replace(share, batch=_light(share.batch), credit=replace(share.credit, parts={}))
    cuts = _cut(crew, share.batch, share.streams)
    return crew.run([replace(light, streams=cut) for cut in cuts], weights)


def measure_on(crew: Crew, wanted: Measure, weights: torch.Tensor | None) -> Measured:
    """Measure the streams of `wanted` on every shard, in the order of the batch's sampled tokens."""
    from agentrl.learn.probes import merged

    light = replace(wanted, batch=_light(wanted.batch))
    cuts = _cut(crew, wanted.batch, wanted.streams)
    return merged(wanted.batch, crew.run([replace(light, streams=cut) for cut in cuts], weights))


def measure_values_on(crew: Crew, wanted: MeasureValues) -> NDArray[np.float32]:
    """(N,) values, measured on every shard."""
    from agentrl.learn.value import merged_values

    light = replace(wanted, batch=_light(wanted.batch))
    cuts = _cut(crew, wanted.batch, wanted.streams)
    return merged_values(wanted.batch, crew.run([replace(light, streams=cut) for cut in cuts]))


def values_on(crew: Crew, share: ValueShare) -> list[ValueGradient]:
    """Differentiate a critic's loss on every shard; the gradients add up."""
    light = replace(share, batch=_light(share.batch))
    cuts = _cut(crew, share.batch, share.streams)
    return crew.run([replace(light, streams=cut) for cut in cuts])


def _light(batch: Batch) -> Batch:
    """The batch without its texts."""
    return replace(batch, turn_details=(), trajectory_details=())


def _cut(crew: Crew, batch: Batch, streams: Index) -> list[Index]:
    """Deal streams to the shards: equal work, and streams that begin alike together."""
    import numpy as np

    from agentrl.learn.forward import Streams
    from agentrl.learn.tree import deal

    shares = deal(Streams.of(batch).sequences(streams)[0], crew.shards)
    return [streams[np.array(share, np.int64)] for share in shares]
