"""Pools: figures in peer groups, and which of them count, as centers and scales read them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from agentrl.trajectory.batch import NO_KEY
from agentrl.trajectory.segments import dense

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.credit.peers import Ids

    Floats: TypeAlias = NDArray[np.float64]
    Bools: TypeAlias = NDArray[np.bool_]


def sum_by(index: NDArray[np.integer], value: Floats, size: int) -> Floats:
    """Sum `value` by `index` in [0, size)."""
    return np.bincount(index, value, size).astype(np.float64, copy=False)


@dataclass(frozen=True, eq=False)
class Pool:
    """Figures to compare, and which of them count in the statistics.

    Attributes:
        value: (S,) figure of each turn.
        group: (S,) peer group, from 0; `size` groups.
        stand_in: (S,) the row that represents each turn in the statistics of its group: itself, or the first
            turn of its trajectory in that group.
        counted: (S,) whether the row itself is in the statistics.
    """

    value: Floats
    group: Ids
    size: int
    stand_in: Ids
    counted: Bools

    def total(self, value: Floats) -> Floats:
        """(G,) sum of (S,) `value` over the counted rows of each group."""
        return sum_by(self._counted_group, value if self._all_count else value[self.counted], self.size)

    def count(self) -> Floats:
        """(G,) number of counted rows."""
        return self._count

    @functools.cached_property
    def mean(self) -> Floats:
        """(S,) mean of the counted rows of each turn's group."""
        return (self.total(self.value) / np.maximum(self._count, 1))[self.group]

    @functools.cached_property
    def _all_count(self) -> bool:
        return bool(self.counted.all())

    @functools.cached_property
    def _counted_group(self) -> Ids:
        return self.group if self._all_count else self.group[self.counted]

    @functools.cached_property
    def _count(self) -> Floats:
        return np.bincount(self._counted_group, minlength=self.size).astype(np.float64)


def pool_of(
    value: Floats, peers: Ids, trajectory: Ids, baseline: Bools, per: Literal["trajectory", "turn"]
) -> Pool:
    """Collect figures into peer groups.

    Args:
        value: (S,) figures; `peers`: (S,) ids; `trajectory`: (S,) owners.
        baseline: (S,) whether the turn may count. Turns without peers never count.
        per: whether each trajectory counts once in a group, by its first turn there, or each turn counts.
    """
    group, size = dense(peers)
    rows = np.arange(len(value))
    stand_in, counted = rows, baseline & (peers != NO_KEY)
    if per == "trajectory":
        owners = int(trajectory.max(initial=-1)) + 1
        _, first, inverse = np.unique(group * owners + trajectory, return_index=True, return_inverse=True)
        stand_in = first[inverse]
        counted &= stand_in == rows
    return Pool(value, group, size, stand_in, counted)
