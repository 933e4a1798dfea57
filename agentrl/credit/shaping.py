"""Rewards that read the group or the way there: fewer calls, earlier answers, unlikely or short successes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from agentrl.credit.ledger import LEAST_CALLS
from agentrl.credit.part import Number, Printed, fixed
from agentrl.credit.reward import Composable
from agentrl.credit.sequence import action_ids, last_turns, number_pairs
from agentrl.trajectory.batch import SPAN, segment_sum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]
    Bools: TypeAlias = NDArray[np.bool_]


def succeeded(batch: Batch) -> Bools:
    """(E,) whether the trajectory succeeded; where the world does not say, whether its total is positive."""
    return np.where(batch.success >= 0, batch.success == 1, batch.episode_reward > 0)


@dataclass(frozen=True)
class Productive(Composable):
    """The environment's reward times how sparing the calls were, and 0 for a failure: OTC.

    With m calls and n the fewest of any success of the task, f = 2mn / (m + n), the factor is
    sin(f pi / 2n); with n = 0 it is cos(m pi / (2m + `most`)). Source: OTC, arXiv 2504.14870. n reaches into
    the past where the batch holds `LEAST_CALLS`, which the ledger annotates.

    Attributes:
        most: c, the scale of calls when none was needed; `weight`: alpha, over all.
    """

    most: Number = 8.0
    weight: Number = 1.0

    def __call__(self, batch: Batch, /) -> Floats:
        """Return (S,)."""
        calls = segment_sum(batch.tool_calls.astype(np.float32), batch.turn_start).astype(np.float64)
        right = succeeded(batch)
        least = np.full(int(batch.group.max(initial=-1)) + 1, np.inf)
        np.minimum.at(least, batch.group[right], calls[right])
        fewest = least[batch.group]
        if LEAST_CALLS in batch:
            fewest = np.fmin(fewest, batch[LEAST_CALLS])
        factor = np.where(right, self._factor(calls, np.where(right, fewest, 0.0)), 0.0)
        return fixed(self.weight) * factor[batch.trajectory_of_turn] * batch.reward

    def _factor(self, calls: Floats, fewest: Floats) -> Floats:
        needed = np.maximum(fewest, 1.0)
        middle = 2 * calls * needed / (calls + needed)
        free = np.cos(calls * np.pi / (2 * calls + fixed(self.most)))
        return np.where(fewest > 0, np.sin(middle * np.pi / (2 * needed)), free)


@dataclass(frozen=True)
class SoonAndFresh(Composable):
    """The environment's reward times `gamma` per turn before it, less a cost of repeated actions: UFO.

    At the last turn stands -`repetition` (1 - distinct actions / turns). Source: "a simple try again",
    arXiv 2507.14295, from its abstract.
    """

    gamma: Number = 0.5
    repetition: Number = 0.1

    def __call__(self, batch: Batch, /) -> Floats:
        """Return (S,)."""
        discount = np.power(fixed(self.gamma), batch.turn_index, dtype=np.float64)
        result = np.asarray(discount * batch.reward, np.float64)
        owner = batch.trajectory_of_turn
        _, first = np.unique(number_pairs(owner, action_ids(batch)), return_index=True)
        distinct = np.bincount(owner[first], minlength=batch.num_trajectories)
        share = distinct / np.maximum(batch.turns_per_trajectory, 1)
        ends = last_turns(batch)
        result[ends] -= fixed(self.repetition) * (1 - share[owner[ends]])
        return result


@dataclass(frozen=True)
class Unlikely(Composable):
    """The environment's reward times 1 - `beta` (G - rank) / G: the likeliest of G members loses most.

    Rank 1 has the largest log-probability as drawn, summed over the trajectory; equal ones share the better
    rank. Source: "rewarding the unlikely", arXiv 2506.02355.
    """

    beta: Number = 0.25

    def __call__(self, batch: Batch, /) -> Floats:
        """Return (S,)."""
        likelihood = np.bincount(batch.trajectory_of_sample, batch.logprob, batch.num_trajectories)
        factor = np.ones(batch.num_trajectories)
        for group in np.unique(batch.group):
            rows = np.flatnonzero(batch.group == group)
            rank = 1 + (likelihood[rows][None, :] > likelihood[rows][:, None]).sum(1)
            factor[rows] = 1 - fixed(self.beta) * (len(rows) - rank) / len(rows)
        return factor[batch.trajectory_of_turn] * batch.reward


@dataclass(frozen=True)
class BriefWhenEasy(Composable):
    """In the `share` of groups that succeed most, successes cost their length; elsewhere none: GRPO-lambda.

    A success there earns 1 - `cost` sigmoid((length - mean) / deviation) of the reward, over the sampled
    tokens of the group's successes. Source: stable RL for efficient reasoning, from its abstract.
    """

    share: float = 0.2
    cost: Number = 0.2

    def __call__(self, batch: Batch, /) -> Floats:
        """Return (S,)."""
        right, groups = succeeded(batch), np.unique(batch.group)
        rate = np.array([right[batch.group == group].mean() for group in groups])
        factor = np.ones(batch.num_trajectories)
        if not len(groups):
            return np.zeros(0)
        least = np.sort(rate)[-max(1, round(self.share * len(groups)))]
        length = np.bincount(batch.trajectory_of_sample, minlength=batch.num_trajectories)
        for group in groups[(rate >= least) & (rate > 0)]:
            rows = np.flatnonzero((batch.group == group) & right)
            away = (length[rows] - length[rows].mean()) / (length[rows].std() + 1e-6)
            factor[rows] = 1 - fixed(self.cost) / (1 + np.exp(-away))
        return factor[batch.trajectory_of_turn] * batch.reward


class Format(Protocol):
    """A format slot: (E,) ids, equal where trajectories answered in the same way."""

    def __call__(self, batch: Batch, /) -> NDArray[np.int64]:
        """Return (E,)."""
        ...


def thinks_or_calls(batch: Batch, /) -> NDArray[np.int64]:
    """(E,) 0 to 3: whether a trajectory holds marked reasoning (2), and whether it called a tool (1)."""
    thinks = batch.in_span("think") if SPAN in batch else np.zeros(batch.num_sampled, np.bool_)
    thought = np.bincount(batch.trajectory_of_sample, thinks, batch.num_trajectories) > 0
    called = np.bincount(batch.trajectory_of_turn, batch.tool_calls, batch.num_trajectories) > 0
    return 2 * thought.astype(np.int64) + called


@dataclass(frozen=True, repr=False)
class RareFormat(Composable, Printed):
    """The environment's reward times 1 + `strength` (G / F - 1), where F of G members share the format.

    Ada-GRPO's factor is (G / F) (F / G + (1 - F / G) (1 + cos(pi t)) / 2) at share t of training, which is
    this one with `strength` falling from 1 to 0 along half a cosine: `Cosine(1.0, 0.0)`. Source: adaptive
    reasoning model, arXiv 2505.20258. Departure: formats are how an agent worked, theirs are marked by tags.
    """

    format: Format = thinks_or_calls
    strength: Number = 1.0

    def __call__(self, batch: Batch, /) -> Floats:
        """Return (S,)."""
        alike = number_pairs(batch.group.astype(np.int64), self.format(batch))
        same, members = np.bincount(alike)[alike], np.bincount(batch.group)[batch.group]
        factor = 1 + fixed(self.strength) * (members / same - 1)
        return factor[batch.trajectory_of_turn] * batch.reward
