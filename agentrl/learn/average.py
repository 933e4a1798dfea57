"""Averages: how the terms of single tokens become one number.

A part gives (N,) weights over the *whole* batch, 0 where a token carries no loss; the loss is the weighted
sum. So the sum over micro-batches, or over ranks that hold shares of one batch, is the full-batch loss
exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np

from agentrl.credit.pool import signs
from agentrl.errors import AlgorithmError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]
    Bools: TypeAlias = NDArray[np.bool_]


class Average(Protocol):
    """An average slot: (N,) weights, given which sampled tokens carry loss."""

    def __call__(self, batch: Batch, keep: Bools, /) -> Floats:
        """Return (N,)."""
        ...


@runtime_checkable
class CreditAverage(Protocol):
    """An average slot that also reads the (N,) advantage."""

    def of_credit(self, batch: Batch, keep: Bools, advantage: Floats, /) -> Floats:
        """Return (N,)."""
        ...


def token_mean(batch: Batch, keep: Bools, /) -> Floats:  # noqa: ARG001  # the slot's signature
    """Every token weighs the same (DAPO, arXiv 2503.14476 eq. 8)."""
    return keep / max(int(keep.sum()), 1)


def turn_mean(batch: Batch, keep: Bools, /) -> Floats:
    """Every turn weighs the same, whatever its length."""
    return _equal_units(batch.turn_of_sample, keep)


def trajectory_mean(batch: Batch, keep: Bools, /) -> Floats:
    """Every trajectory weighs the same (GRPO, arXiv 2402.03300 eq. 3: mean over sequences of token means)."""
    return _equal_units(batch.trajectory_of_sample, keep)


def trajectory_turn_mean(batch: Batch, keep: Bools, /) -> Floats:
    """Every trajectory weighs the same, every turn within it, and every token within that (Flow-GRPO)."""
    turn, row = batch.turn_of_sample, batch.trajectory_of_sample
    length = np.bincount(turn[keep], minlength=batch.num_turns)
    turns = np.bincount(batch.trajectory_of_turn[length > 0], minlength=batch.num_trajectories)
    weight = np.zeros(len(keep))
    trajectories = max(int(np.count_nonzero(turns)), 1)
    weight[keep] = 1 / (length[turn[keep]] * turns[row[keep]] * trajectories)
    return weight


def group_mean(batch: Batch, keep: Bools, /) -> Floats:
    """Every group weighs the same, and every token within it."""
    return _equal_units(batch.group[batch.trajectory_of_sample], keep)


def task_mean(batch: Batch, keep: Bools, /) -> Floats:
    """Every group weighs the same, every trajectory within it, and every token within that."""
    row = batch.trajectory_of_sample
    length = np.bincount(row[keep], minlength=batch.num_trajectories)
    members = np.bincount(batch.group[length > 0], minlength=int(batch.group.max(initial=-1)) + 1)
    weight = np.zeros(len(keep))
    groups = max(int(np.count_nonzero(members)), 1)
    weight[keep] = 1 / (length[row[keep]] * members[batch.group[row[keep]]] * groups)
    return weight


def trajectory_sum(batch: Batch, keep: Bools, /) -> Floats:
    """The mean over each trajectory's tokens, summed over trajectories: DCPO's only-token-mean."""
    length = np.bincount(batch.trajectory_of_sample[keep], minlength=batch.num_trajectories)
    return keep / np.maximum(length, 1)[batch.trajectory_of_sample]


@dataclass(frozen=True)
class Balanced:
    """Per group, the token means of positive and of negative advantages, by their shares of trajectories.

    (n+ / n) mean over positive tokens + (n- / n) mean over negative ones, averaged over groups; so long
    failures do not outweigh short successes. A trajectory of both signs counts to each by its share of
    tokens. Source: balanced aggregation, from its abstract.
    """

    def of_credit(self, batch: Batch, keep: Bools, advantage: Floats, /) -> Floats:
        """Return (N,)."""
        row = batch.trajectory_of_sample
        group, sign = batch.group[row].astype(np.int64), signs(advantage).astype(np.int64) + 1
        length = np.bincount(row[keep], minlength=batch.num_trajectories)
        share = keep / np.maximum(length, 1)[row]
        pool = group * 3 + sign
        size = 3 * (int(batch.group.max(initial=-1)) + 1)
        tokens, parts = np.bincount(pool[keep], minlength=size), np.bincount(pool, share, size)
        members = np.bincount(group, share, size // 3)
        groups = max(int(np.count_nonzero(members)), 1)
        weight = parts[pool] / np.maximum(tokens[pool] * members[group] * groups, 1e-12)
        return np.where(keep, weight, 0.0)


@dataclass(frozen=True)
class FixedLength:
    """The sum over each trajectory divided by a constant length, averaged over trajectories.

    No token weighs less because its trajectory is long. Source: Dr. GRPO, arXiv 2503.20783.
    """

    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise AlgorithmError(f"FixedLength needs a positive number of tokens; got {self.length}.")

    def __call__(self, batch: Batch, keep: Bools, /) -> Floats:
        """Return (N,). Trajectories without a kept token are not counted."""
        trajectories = len(np.unique(batch.trajectory_of_sample[keep]))
        return keep / (self.length * max(trajectories, 1))


def _equal_units(unit: NDArray[np.integer], keep: Bools) -> Floats:
    size = np.bincount(unit[keep])
    weight = np.zeros(len(keep))
    weight[keep] = 1 / (size[unit[keep]] * max(np.count_nonzero(size), 1))
    return weight
