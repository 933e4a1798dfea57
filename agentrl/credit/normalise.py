"""More centers, scales and targets for `Relative`: one small rule each."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, log
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from agentrl.credit.advantage import mean, median
from agentrl.credit.compose import Advantage, Composable
from agentrl.credit.ledger import ROLE_BASELINE
from agentrl.credit.part import Number, Printed, fixed
from agentrl.credit.pool import Pool, sum_by
from agentrl.credit.sequence import last_turns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.credit.keep import Kept
    from agentrl.credit.peers import Ids, Peers
    from agentrl.credit.reward import Reward
    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]


# -- peers -------------------------------------------------------------------------------------------------


def same_role(batch: Batch, /) -> Ids:
    """Turns that the same role took within the same group."""
    return _numbered(batch.group_of_turn, batch)


def same_role_and_turn(batch: Batch, /) -> Ids:
    """Turns that the same role took at the same position, over the whole batch."""
    return _numbered(batch.turn_index, batch)


def _numbered(first: Ids, batch: Batch) -> Ids:
    roles, role = np.unique(batch.role, return_inverse=True)
    return first * max(len(roles), 1) + role


# -- targets -----------------------------------------------------------------------------------------------


def last_reward(batch: Batch, reward: Floats, /) -> Floats:
    """The reward of the trajectory's last turn, at each of its turns: the outcome without the way there."""
    result = np.zeros(batch.num_trajectories)
    ends = last_turns(batch)
    result[batch.trajectory_of_turn[ends]] = reward[ends]
    return result[batch.trajectory_of_turn]


def reward_before_last(batch: Batch, reward: Floats, /) -> Floats:
    """The turn's own reward, and 0 at the last turn of a trajectory, whose reward is the outcome."""
    result = reward.copy()
    result[last_turns(batch)] = 0.0
    return result


def first_and_last_reward(batch: Batch, reward: Floats, /) -> Floats:
    """The rewards of the trajectory's first and last turn added up, at each turn; of one turn, its reward."""
    result, first = last_reward(batch, reward), batch.turn_index == 0
    early = np.zeros(batch.num_trajectories)
    early[batch.trajectory_of_turn[first]] = reward_before_last(batch, reward)[first]
    return result + early[batch.trajectory_of_turn]


def over_role_baseline(batch: Batch, reward: Floats, /) -> Floats:
    """What the turn's role earned in the trajectory, minus the ledger's running mean of that role.

    The term of RAE, role-conditioned advantage estimation of SPIRAL (arXiv 2506.24119).
    """
    earned = batch.trajectory_of_turn * (int(batch.num_turns) + 1)
    _, pair = np.unique(earned + np.unique(batch.role, return_inverse=True)[1], return_inverse=True)
    total = sum_by(pair, reward, int(pair.max(initial=-1)) + 1)
    return np.asarray(total[pair] - batch[ROLE_BASELINE])


@dataclass(frozen=True, repr=False)
class Total(Printed):
    """The trajectory's total of one reward part, whatever the reward slot holds."""

    reward: Reward

    def __call__(self, batch: Batch, reward: Floats, /) -> Floats:  # the slot's signature
        """Return (S,)."""
        own = sum_by(batch.trajectory_of_turn, self.reward(batch), batch.num_trajectories)
        return own[batch.trajectory_of_turn]


# -- centers and scales ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MedianAbsolute:
    """The median absolute deviation of the peers from the center, at least `floor`, plus `eps`.

    With binary rewards and an odd group the deviation is always 0, so a floor is needed.
    """

    floor: float = 0.25
    eps: float = 1e-6

    def __call__(self, pool: Pool, center: Floats, /) -> Floats:
        """Return (S,)."""
        away = pool.with_value(np.abs(pool.value - center))
        return np.maximum(median(away), self.floor) + self.eps


@dataclass(frozen=True)
class VirtualMean:
    """The mean of the peers and of `count` imagined ones that earned `best`: NGRPO's center."""

    best: float = 1.0
    count: int = 1

    def __call__(self, pool: Pool, /) -> Floats:
        """Return (S,)."""
        total = pool.total(pool.value) + self.count * self.best
        return (total / (pool.count + self.count))[pool.group]


@dataclass(frozen=True)
class VirtualStd:
    """The unbiased deviation of the peers and `count` imagined ones that earned `best`, plus `eps`."""

    best: float = 1.0
    count: int = 1
    eps: float = 1e-6

    def __call__(self, pool: Pool, center: Floats, /) -> Floats:
        """Return (S,)."""
        middle = VirtualMean(self.best, self.count)(pool)
        square = pool.total((pool.value - middle) ** 2)[pool.group] + self.count * (self.best - middle) ** 2
        freedom = np.maximum(pool.count + self.count - 1, 1)[pool.group]
        return np.asarray(np.sqrt(square / freedom) + self.eps)


def mean_itself(pool: Pool, center: Floats, /) -> Floats:  # noqa: ARG001  # the slot's signature
    """The mean of the peers, and infinity where it is not positive: MaxRL's scale."""
    average = mean(pool)
    return np.where(average > 0, average, np.inf)


@dataclass(frozen=True)
class BetaDensity:
    """The Beta density at each group's mean, fitted to the group means of the batch: BNPO's scale.

    With moments (a, b) of the means, alpha = max(1, 1 + a / 3) and beta likewise; 1 over the density is held
    below `limit`. Rewards are taken as shares in [0, 1] and means outside are cut. Means that do not vary
    give density 1.
    """

    limit: float = 1e6

    def __call__(self, pool: Pool, center: Floats, /) -> Floats:  # the slot's signature
        """Return (S,)."""
        count = pool.count
        share = np.clip(pool.total(pool.value) / np.maximum(count, 1), 0.0, 1.0)
        alpha, beta = _fitted(share[count > 0])
        density = np.array([beta_density(float(p), alpha, beta) for p in share])
        return np.asarray(np.maximum(density, 1 / self.limit)[pool.group])


def beta_density(share: float, alpha: float, beta: float) -> float:
    """Return the density of Beta(alpha, beta), both at least 1.

    >>> beta_density(0.3, 1.0, 1.0)
    1.0
    """
    if (share <= 0 and alpha > 1) or (share >= 1 and beta > 1):
        return 0.0
    front = lgamma(alpha + beta) - lgamma(alpha) - lgamma(beta)
    low = 0.0 if alpha == 1 else (alpha - 1) * log(share)
    high = 0.0 if beta == 1 else (beta - 1) * log(1 - share)
    return exp(front + low + high)


def _fitted(share: Floats) -> tuple[float, float]:
    middle, spread = (float(share.mean()), float(share.var())) if len(share) else (0.5, 0.0)
    if spread < 1e-12:  # rounding of equal means
        return 1.0, 1.0
    both = middle * (1 - middle) / spread - 1
    return max(1.0, 1 + middle * both / 3), max(1.0, 1 + (1 - middle) * both / 3)


# -- wrappers ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class FirstTurns(Composable, Printed):
    """An advantage at the first `turns` turns of each trajectory only."""

    advantage: Advantage
    turns: int = 1

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,)."""
        return np.where(batch.turn_index < self.turns, self.advantage(batch, reward, kept), 0.0)


@dataclass(frozen=True, repr=False)
class OneTurn(Composable, Printed):
    """An advantage, and another one for the trajectories of a single turn."""

    advantage: Advantage
    single: Advantage

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,)."""
        single = batch.turns_per_trajectory[batch.trajectory_of_turn] == 1
        return np.where(single, self.single(batch, reward, kept), self.advantage(batch, reward, kept))


@dataclass(frozen=True, repr=False)
class HarderFirst(Composable, Printed):
    """An advantage times a weight of its group: softmax of minus the mean total over `temperature`.

    Weights average 1 over the groups of the batch. Source: DGPO of MathForge, from its abstract.
    """

    advantage: Advantage
    peers: Peers
    temperature: Number = 2.0

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,)."""
        if not batch.num_turns:
            return np.zeros(0)
        total = sum_by(batch.trajectory_of_turn, reward, batch.num_trajectories)
        _, group = np.unique(self.peers(batch), return_inverse=True)
        first = batch.turn_index == 0
        members = np.maximum(np.bincount(group[first], minlength=int(group.max()) + 1), 1)
        average = np.bincount(group[first], total[batch.trajectory_of_turn][first], len(members)) / members
        weight = np.exp(-(average - average.min()) / fixed(self.temperature))
        return np.asarray(self.advantage(batch, reward, kept) * (weight / weight.mean())[group])
