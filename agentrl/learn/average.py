"""Averages: how the terms of single tokens become one number.

A part gives (N,) weights over the *whole* batch, 0 where a token carries no loss; the loss is the weighted
sum. So the sum over micro-batches, or over ranks that hold shares of one batch, is the full-batch loss
exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

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


def token_mean(batch: Batch, keep: Bools, /) -> Floats:  # noqa: ARG001  # the slot's signature
    """Every token weighs the same (DAPO, arXiv 2503.14476 eq. 8)."""
    return keep / max(int(keep.sum()), 1)


def turn_mean(batch: Batch, keep: Bools, /) -> Floats:
    """Every turn weighs the same, whatever its length."""
    return _equal_units(batch.turn_of_sample, keep)


def trajectory_mean(batch: Batch, keep: Bools, /) -> Floats:
    """Every trajectory weighs the same (GRPO, arXiv 2402.03300 eq. 3: mean over sequences of token means)."""
    return _equal_units(batch.trajectory_of_sample, keep)


def group_mean(batch: Batch, keep: Bools, /) -> Floats:
    """Every group weighs the same, and every token within it."""
    return _equal_units(batch.group[batch.trajectory_of_sample], keep)


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
