"""Advantages changed after the comparison: bonuses for successes, and a second look at the past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from agentrl.credit.advantage import MeanAbsolute, Relative
from agentrl.credit.compose import Advantage, Composable
from agentrl.credit.ledger import IMPROVEMENT
from agentrl.credit.part import NOTHING, Number, Printed, fixed
from agentrl.credit.shaping import succeeded
from agentrl.trajectory.batch import ENTROPY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.credit.keep import Kept
    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class EarlierTool(Composable, Printed):
    """An advantage plus a bounded bonus for successes that call a tool early: ASPO.

    A + clip(`strength` (p_mean - p) / p_mean, -`bound` |A|, `bound` |A|), where p is the turn (from 1) of a
    success's first call and p_mean the mean over the successes of its group that call one. Source:
    understanding tool-integrated reasoning, arXiv 2508.19201, from its abstract; positions are turns here.
    """

    advantage: Advantage
    strength: Number = 0.5
    bound: Number = 0.5

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,)."""
        own, calling = self.advantage(batch, reward, kept), batch.tool_calls > 0
        place = np.full(batch.num_trajectories, np.inf)
        np.minimum.at(place, batch.trajectory_of_turn[calling], batch.turn_index[calling] + 1.0)
        bonus, counts = np.zeros(batch.num_trajectories), succeeded(batch) & np.isfinite(place)
        for group in np.unique(batch.group[counts]):
            rows = np.flatnonzero((batch.group == group) & counts)
            middle = place[rows].mean()
            bonus[rows] = fixed(self.strength) * (middle - place[rows]) / middle
        limit = fixed(self.bound) * np.abs(own)
        return own + np.clip(bonus[batch.trajectory_of_turn], -limit, limit)


@dataclass(frozen=True, repr=False)
class Novelty(Composable, Printed):
    """An advantage plus a bounded bonus for successes less likely than their group: XRPO.

    A + min(max(`strength` (1 - exp(s - mean s)), 0), `bound` A) with s the mean log-probability as drawn; for
    successes with A > 0 only. Source: XRPO, from its abstract.
    """

    advantage: Advantage
    strength: Number = 1.0
    bound: Number = 1.0

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,)."""
        own, size = self.advantage(batch, reward, kept), batch.num_trajectories
        length = np.bincount(batch.trajectory_of_sample, minlength=size)
        score = np.bincount(batch.trajectory_of_sample, batch.logprob, size) / np.maximum(length, 1)
        members = np.bincount(batch.group)
        middle = np.bincount(batch.group, score) / np.maximum(members, 1)
        rare = np.maximum(fixed(self.strength) * (1 - np.exp(score - middle[batch.group])), 0.0)
        bonus = np.minimum(rare[batch.trajectory_of_turn], fixed(self.bound) * own)
        return np.where(succeeded(batch)[batch.trajectory_of_turn] & (own > 0), own + bonus, own)


@dataclass(frozen=True, repr=False)
class Confident(Composable, Printed):
    """An advantage less `cost` times the trajectory's mean entropy, and 0 above `limit` nats: GTPO.

    Reads `ENTROPY`. Source: winstonsmith1897/GTPO (arXiv 2508.03772); the limit is the paper's, 0.7 in the
    code. Departure: an advantage of 0, within 1e-6, stays 0; in the code a group of equal rewards is
    punished for its entropy alone.
    """

    advantage: Advantage
    limit: Number = 0.6931471805599453  # ln 2
    cost: Number = 0.1

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,)."""
        own, row = self.advantage(batch, reward, kept), batch.trajectory_of_sample
        length = np.maximum(np.bincount(row, minlength=batch.num_trajectories), 1)
        mean = np.bincount(row, batch[ENTROPY], batch.num_trajectories) / length
        entropy = mean[batch.trajectory_of_turn]
        counts = (np.abs(own) >= NOTHING) & (entropy <= fixed(self.limit))
        return np.where(counts, own - fixed(self.cost) * entropy, 0.0)


@dataclass(frozen=True, repr=False)
class Improved(Composable, Printed):
    """An advantage, for replayed trajectories times how much the update on them improved the policy: PIPO.

    The factor is x where x >= 0 and `backward` x where x < 0, with x the column `IMPROVEMENT`: so what helped
    is learnt once more, and what harmed is taken back a little. The advantage is that over its own mean
    absolute value in the group, G A / sum |A|. Source: PIPO (arXiv 2604.00860), equations 7 to 11 as quoted
    by notes on the paper. Departure: the second look at the last batch is part of the step on the next one,
    theirs is a step of its own.
    """

    advantage: Advantage = Relative(scale=MeanAbsolute())  # noqa: RUF009  # frozen
    backward: Number = 0.1

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,). Raises `MissingColumnError` without the ledger's column."""
        rise = batch[IMPROVEMENT].astype(np.float64)
        factor = np.where(rise < 0, fixed(self.backward) * rise, rise)
        factor[np.isnan(rise)] = 1.0
        return np.asarray(self.advantage(batch, reward, kept) * factor[batch.trajectory_of_turn])
