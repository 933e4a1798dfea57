"""Filters that choose among the members of a group: which ones are worth a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias
from zlib import crc32

import numpy as np

from agentrl.credit.keep import Composable, Kept
from agentrl.credit.shaping import succeeded
from agentrl.errors import AlgorithmError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]
    Ids: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class ResampleOnCorrect(Composable):
    """Keep `share` of each group: failures at random, successes rather those with clean tool use.

    A success is drawn with weight 1 / (share of failed calls + share of refused turns + 0.1). The draw is
    keyed by (seed, task, member, policy version), so it depends on no order. Sample 1 / `share` times the
    members you want. Source: GRPO-RoC, rStar2-Agent, arXiv 2508.20722, from its abstract.
    """

    share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        _check_share(self.share)

    def __call__(self, batch: Batch, reward: Floats, /) -> Kept:
        """Return what is left; the rest stands in no baseline either."""
        kept, right, weight = np.zeros(batch.num_trajectories, np.bool_), succeeded(batch), _cleanness(batch)
        waiting = -np.log(_noise(batch, self.seed)) / np.where(right, weight, 1.0)
        for rows in _groups(batch):
            wanted = int(np.ceil(self.share * len(rows)))
            good, bad = rows[right[rows]], rows[~right[rows]]
            from_good = min(int(np.ceil(self.share * len(good))), wanted)
            from_good = max(from_good, wanted - len(bad))
            kept[good[np.argsort(waiting[good], kind="stable")][:from_good]] = True
            kept[bad[np.argsort(waiting[bad], kind="stable")][: wanted - from_good]] = True
        return Kept(kept[batch.trajectory_of_turn], kept)


@dataclass(frozen=True)
class MostSpread(Composable):
    """Keep the `share` of each group whose totals vary most: some of the best and some of the worst.

    Of equal totals those with the smaller member number are taken. Source: D3S, from its abstract; the
    subset of largest variance is always a top and a bottom part (PODS, arXiv 2504.13818).
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        _check_share(self.share)

    def __call__(self, batch: Batch, reward: Floats, /) -> Kept:
        """Return what is left; the rest stands in no baseline either."""
        total = np.bincount(batch.trajectory_of_turn, reward, batch.num_trajectories)
        kept = np.zeros(batch.num_trajectories, np.bool_)
        for rows in _groups(batch):
            ranked = rows[np.lexsort((batch.member[rows], total[rows]))]
            size = max(int(np.ceil(self.share * len(rows))), min(2, len(rows)))
            cuts = [
                np.concatenate([ranked[:low], ranked[len(ranked) - (size - low) :]]) for low in range(size)
            ]
            spread = np.round([total[cut].var() for cut in cuts], 9)
            kept[cuts[int(spread.argmax())]] = True
        return Kept(kept[batch.trajectory_of_turn], kept)


@dataclass(frozen=True)
class PassRateBetween(Composable):
    """Keep groups of which a share from `low` to `high` succeeded: not too hard, not too easy.

    Sources: online difficulty filtering (arXiv 2504.03380); the accuracy filter of SimpleTIR (0.1 to 0.9).
    """

    low: float = 0.2
    high: float = 0.8

    def __call__(self, batch: Batch, reward: Floats, /) -> Kept:
        """Return the turns and trajectories of such groups."""
        right, kept = succeeded(batch), np.zeros(batch.num_trajectories, np.bool_)
        for rows in _groups(batch):
            kept[rows] = self.low <= right[rows].mean() <= self.high
        return Kept(kept[batch.trajectory_of_turn], kept)


def own_turns(batch: Batch, reward: Floats, /) -> Kept:  # noqa: ARG001  # the slot's signature
    """Leave out the turns that a branch only inherited from its parent; all stand in baselines."""
    inherited = batch.turn_index < np.where(batch.parent >= 0, batch.branch_turn, 0)[batch.trajectory_of_turn]
    return Kept(~inherited, np.ones(batch.num_trajectories, np.bool_))


def _groups(batch: Batch) -> Iterator[Ids]:
    for group in np.unique(batch.group):
        yield np.flatnonzero(batch.group == group)


def _cleanness(batch: Batch) -> Floats:
    owner, size = batch.trajectory_of_turn, batch.num_trajectories
    calls, errors = np.bincount(owner, batch.tool_calls, size), np.bincount(owner, batch.tool_errors, size)
    refused = np.bincount(owner, ~batch.valid, size) / np.maximum(batch.turns_per_trajectory, 1)
    return np.asarray(1 / (errors / np.maximum(calls, 1) + refused + 0.1))


def _noise(batch: Batch, seed: int) -> Floats:
    """(E,) uniform in (0, 1), by task, member and version of the policy."""
    version = np.zeros(batch.num_trajectories, np.int64)
    some = batch.turns_per_trajectory > 0
    version[some] = batch.policy_version[batch.turn_start[:-1][some]]
    keys = zip(batch.task.tolist(), batch.member.tolist(), version.tolist(), strict=True)
    drawn = [
        np.random.default_rng([seed, crc32(task.encode()), member, v]).random() for task, member, v in keys
    ]
    return np.maximum(np.array(drawn, np.float64), 1e-12)


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise AlgorithmError(f"the share to keep must lie above 0 and up to 1; got {share}.")
