"""Pools: figures in peer groups, and which of them count, as centers and scales read them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from agentrl.trajectory.batch import NO_KEY
from agentrl.trajectory.segments import narrow

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
        group: (S,) peer group, from 0, below `size`; some numbers may have no turn.
        stand_in: (S,) the row that represents each turn in the statistics of its group: itself, or the first
            turn of its trajectory in that group.
        counted: (S,) whether the row itself is in the statistics.
        count: (G,) number of counted rows; `mean`: (S,) their mean in each turn's group.
    """

    value: Floats
    group: Ids
    size: int
    stand_in: Ids
    counted: Bools
    count: Ids = field(init=False)
    mean: Floats = field(init=False)
    _inside: Bools | None = field(init=False)
    _group_inside: Ids = field(init=False)

    def __post_init__(self) -> None:
        inside = None if np.count_nonzero(self.counted) == len(self.counted) else self.counted
        group = self.group if inside is None else self.group[inside]
        count = np.bincount(group, minlength=self.size)
        self.__dict__.update(_inside=inside, _group_inside=group, count=count)
        self.__dict__["mean"] = (self.total(self.value) / np.maximum(count, 1))[self.group]

    def total(self, value: Floats) -> Floats:
        """(G,) sum of (S,) `value` over the counted rows of each group."""
        inside = value if self._inside is None else value[self._inside]
        return sum_by(self._group_inside, inside, self.size)

    def with_value(self, value: Floats) -> Pool:
        """Return the pool of other figures of the same turns."""
        return replace(self, value=value)


def pool_of(
    value: Floats, peers: Ids, trajectory: Ids, baseline: Bools, per: Literal["trajectory", "turn"]
) -> Pool:
    """Collect figures into peer groups.

    Args:
        value: (S,) figures; `peers`: (S,) ids; `trajectory`: (S,) owners.
        baseline: (S,) whether the turn may count. Turns without peers never count.
        per: whether each trajectory counts once in a group, by its first turn there, or each turn counts.
    """
    group, size = narrow(peers)
    rows = np.arange(len(value))
    stand_in, counted = rows, baseline & (peers != NO_KEY)
    if per == "trajectory":
        owners = int(trajectory.max(initial=-1)) + 1
        _, first, inverse = np.unique(group * owners + trajectory, return_index=True, return_inverse=True)
        stand_in = first[inverse]
        counted &= stand_in == rows
    return Pool(value, group, size, stand_in, counted)
