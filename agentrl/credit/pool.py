"""Pools: figures in peer groups, and which of them count, as centers and scales read them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from agentrl.credit.part import NOTHING
from agentrl.trajectory.batch import NO_KEY
from agentrl.trajectory.segments import narrow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.credit.peers import Ids

    Floats: TypeAlias = NDArray[np.float64]
    Bools: TypeAlias = NDArray[np.bool_]


EVERY_ROW = slice(None)
"""An index of rows that leaves none out and moves none: cheaper than the array that says the same."""


def sum_by(index: NDArray[np.integer], value: Floats, size: int) -> Floats:
    """Sum `value` by `index` in [0, size)."""
    return np.bincount(index, value, size).astype(np.float64, copy=False)


def signs(value: Floats) -> Floats:
    """-1, 0 or 1; figures within 1e-6 of zero are 0, so that no rounding decides.

    >>> signs(np.array([0.5, -2.8e-17, -0.5])).tolist()
    [1.0, 0.0, -1.0]
    """
    return np.where(np.abs(value) < NOTHING, 0.0, np.sign(value))


@dataclass(frozen=True, eq=False)
class Pool:
    """Figures to compare, and which of them count in the statistics.

    Attributes:
        value: (S,) figure of each turn.
        group: (S,) peer group, from 0, below `size`; some numbers may have no turn.
        stand_in: (S,) the row that represents each turn in the statistics of its group: the first turn of its
            trajectory there; or `EVERY_ROW`, each itself.
        counted: (S,) whether the row itself is in the statistics, or `EVERY_ROW`.
        count: (G,) number of counted rows; `mean`: (S,) their mean in each turn's group.
    """

    value: Floats
    group: Ids
    size: int
    stand_in: Ids | slice
    counted: Bools | slice
    count: Ids = field(init=False)
    mean: Floats = field(init=False)
    _group_inside: Ids = field(init=False)

    def __post_init__(self) -> None:
        group = self.group[self.counted]
        count = np.bincount(group, minlength=self.size)
        self.__dict__.update(_group_inside=group, count=count)
        self.__dict__["mean"] = (self.total(self.value) / np.maximum(count, 1))[self.group]

    def total(self, value: Floats) -> Floats:
        """(G,) sum of (S,) `value` over the counted rows of each group."""
        return sum_by(self._group_inside, value[self.counted], self.size)

    def represented(self) -> Bools:
        """(S,) whether the row that represents the turn is in the statistics."""
        inside = np.zeros(len(self.value), np.bool_)
        inside[self.counted] = True
        return inside[self.stand_in]

    def with_value(self, value: Floats) -> Pool:
        """Return the pool of other figures of the same turns."""
        return replace(self, value=value)


def pool_of(
    value: Floats, peers: Ids, trajectory: Ids, baseline: Bools, per: Literal["trajectory", "turn"]
) -> Pool:
    """Collect figures into peer groups.

    Args:
        value: (S,) figures; `peers`: (S,) ids; `trajectory`: (S,) owners.
        baseline: (E,) whether the trajectory's turns may count. Turns without peers never count.
        per: whether each trajectory counts once in a group, by its first turn there, or each turn counts.
    """
    group, size, lowest = narrow(peers)
    all_count = lowest > NO_KEY and np.count_nonzero(baseline) == len(baseline)
    counted = EVERY_ROW if all_count else (peers != NO_KEY) & baseline[trajectory]
    if per == "turn":
        return Pool(value, group, size, EVERY_ROW, counted)
    owners = int(trajectory.max(initial=-1)) + 1
    _, first, inverse = np.unique(group * owners + trajectory, return_index=True, return_inverse=True)
    stand_in = first[inverse]
    first_there = stand_in == np.arange(len(value))
    return Pool(value, group, size, stand_in, first_there if all_count else first_there & counted)
