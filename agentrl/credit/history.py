"""Credit among turns that share a history: HGPO's nested groups, and averages over equal steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from agentrl.credit.advantage import Return, Scale, Std, Target, mean
from agentrl.credit.compose import Advantage, Composable
from agentrl.credit.part import NOTHING, Number, Printed, fixed
from agentrl.credit.peers import Peers, same_observation
from agentrl.credit.pool import pool_of
from agentrl.credit.sequence import number_pairs
from agentrl.trajectory.batch import NO_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from agentrl.credit.keep import Kept
    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]
    Ids: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class NestedHistory(Composable, Printed):
    """HGPO: each turn compared with those that share its last 1, 2, ... `history` + 1 anchors.

    A = sum_k w_k a_k / (sum_k w_k + 1e-6) with w_k = (k + 1)^`exponent` over the levels k where the turn has
    peers and differs from them; a_k is relative to the level's peers. Source: HGPO, verl-agent
    `recipe/hgpo`. Departure: figures within 1e-6 of zero are zero, theirs must be exact.

    Attributes:
        base: an advantage that joins as level 0 with weight 1 (theirs: `base_group`), or None.
    """

    target: Target = Return(0.95)  # noqa: RUF009  # frozen
    anchor: Peers = same_observation
    history: int = 2
    exponent: Number = 1.0
    scale: Scale = Std(ddof=0)  # noqa: RUF009  # frozen
    base: Advantage | None = None

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,)."""
        value = self.target(batch, reward)
        total, weight = np.zeros(len(value)), np.zeros(len(value))
        levels = [(1.0, self.base(batch, reward, kept))] if self.base else []
        for depth, peers in enumerate(self._levels(batch), 1):
            figure = _relative(value, peers, batch, kept, self.scale)
            levels.append((float((depth + 1) ** fixed(self.exponent)), figure))
        for own, figure in levels:
            counts = np.abs(figure) >= NOTHING
            total += np.where(counts, own * figure, 0.0)
            weight += np.where(counts, own, 0.0)
        return np.asarray(total / (weight + 1e-6))

    def _levels(self, batch: Batch) -> Iterator[Ids]:
        anchor = self.anchor(batch)
        shared = anchor
        yield shared
        for depth in range(2, self.history + 2):
            earlier = np.concatenate([[NO_KEY], shared])[: len(shared)]
            missing = (batch.turn_index < depth - 1) | (anchor == NO_KEY) | (earlier == NO_KEY)
            shared = np.where(missing, NO_KEY, number_pairs(earlier, anchor))
            yield shared


def _relative(value: Floats, peers: Ids, batch: Batch, kept: Kept, scale: Scale) -> Floats:
    pool = pool_of(value, peers, batch.trajectory_of_turn, kept.baseline, "turn")
    center = mean(pool)
    alone = (pool.count[pool.group] <= 1) | (peers == NO_KEY)
    return np.where(alone, 0.0, (value - center) / scale(pool, center))


@dataclass(frozen=True, repr=False)
class MeanAmong(Composable, Printed):
    """An advantage averaged over turns that are peers; turns without peers keep their own.

    Over equal steps it is SALT's merge of a trajectory graph (arXiv 2510.20022), over shared turns of a tree
    ARPO's hard assignment.
    """

    advantage: Advantage
    peers: Peers

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,)."""
        own, peers = self.advantage(batch, reward, kept), self.peers(batch)
        _, group = np.unique(peers, return_inverse=True)
        merged = np.bincount(group, own) / np.maximum(np.bincount(group), 1)
        return np.where(peers == NO_KEY, own, merged[group] if len(own) else own)
