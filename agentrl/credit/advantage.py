"""Advantage parts: credit for *what*, against *whom*, minus *what*, over *what*, counting *which rows*.

`Relative` is the one group-relative rule; papers differ in what fills its slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np

from agentrl.credit.compose import Advantage, Composable, leaves
from agentrl.credit.ledger import PAST_MEAN
from agentrl.credit.part import Number, Printed, fixed, per_turn
from agentrl.credit.peers import Peers, everyone, same_task
from agentrl.credit.pool import Pool, pool_of, sum_by
from agentrl.credit.sequence import accumulate_backward

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.credit.keep import Kept
    from agentrl.credit.reward import Reward
    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]


# -- slots -------------------------------------------------------------------------------------------------


class Target(Protocol):
    """Credit for what: (S,) figure of each turn, from the (S,) reward."""

    def __call__(self, batch: Batch, reward: Floats, /) -> Floats:
        """Return (S,)."""
        ...


class Center(Protocol):
    """Minus what: (S,) baseline of each turn."""

    def __call__(self, pool: Pool, /) -> Floats:
        """Return (S,)."""
        ...


class Scale(Protocol):
    """Over what: (S,) divisor of each turn, from the (S,) baseline; infinity makes the advantage 0."""

    def __call__(self, pool: Pool, center: Floats, /) -> Floats:
        """Return (S,)."""
        ...


# -- targets -----------------------------------------------------------------------------------------------


def turn_reward(batch: Batch, reward: Floats, /) -> Floats:  # noqa: ARG001  # the slot's signature
    """Each turn's own reward."""
    return reward


def episode_total(batch: Batch, reward: Floats, /) -> Floats:
    """The undiscounted total of the trajectory, the same at each of its turns."""
    return sum_by(batch.trajectory_of_turn, reward, batch.num_trajectories)[batch.trajectory_of_turn]


def over_past_mean(batch: Batch, reward: Floats, /) -> Floats:
    """The trajectory's total minus the running mean of its task, read from the ledger's column."""
    return episode_total(batch, reward) - batch[PAST_MEAN][batch.trajectory_of_turn]


@dataclass(frozen=True)
class Return:
    """The discounted sum of rewards from each turn on: R_t = r_t + gamma R_{t+1}.

    >>> from agentrl.trajectory.batch import Batch
    >>> batch = Batch.from_arrays(group=[0, 0], turns_per_trajectory=[3, 1], reward=[0, 0, 8, 1])
    >>> Return(0.5)(batch, batch.reward.astype(float)).tolist()
    [2.0, 4.0, 8.0, 1.0]
    """

    gamma: Number = 1.0

    def __call__(self, batch: Batch, reward: Floats, /) -> Floats:
        """Return (S,)."""
        return accumulate_backward(reward, fixed(self.gamma), batch.turn_start)


@dataclass(frozen=True, repr=False)
class PlusRow(Printed):
    """A target plus a reward that counts at its own turn only and flows nowhere.

    With `InvalidPenalty` this is verl-agent's penalty: the refused turn's figure falls, its trajectory's does
    not.
    """

    target: Target
    row: Reward

    def __call__(self, batch: Batch, reward: Floats, /) -> Floats:
        """Return (S,)."""
        return self.target(batch, reward) + self.row(batch)


# -- centers -----------------------------------------------------------------------------------------------


def nothing(pool: Pool, /) -> Floats:
    """No baseline."""
    return np.zeros_like(pool.value)


def mean(pool: Pool, /) -> Floats:
    """The mean of the peers, oneself included."""
    return pool.mean


def others_mean(pool: Pool, /) -> Floats:
    """The mean of the *other* peers: the leave-one-out baseline of RLOO (arXiv 2402.14740)."""
    inside = pool.represented()
    total = pool.total(pool.value)[pool.group] - np.where(inside, pool.value[pool.stand_in], 0.0)
    return total / np.maximum(pool.count[pool.group] - inside, 1)


def median(pool: Pool, /) -> Floats:
    """The median of the peers; with binary rewards and an odd group that is the majority's own value."""
    group, value = pool.group[pool.counted], pool.value[pool.counted]
    order = np.lexsort((value, group))
    count = pool.count.astype(np.int64)
    start = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int64)
    ranked = np.append(value[order], 0.0)
    low, high = start + np.maximum(count - 1, 0) // 2, start + count // 2
    return np.where(count > 0, (ranked[low] + ranked[np.minimum(high, len(value))]) / 2, 0.0)[pool.group]


# -- scales ------------------------------------------------------------------------------------------------


def one(pool: Pool, center: Floats, /) -> Floats:  # noqa: ARG001  # the slot's signature
    """No division."""
    return np.ones_like(center)


@dataclass(frozen=True)
class Std:
    """The standard deviation of the peers about their mean, plus `eps`.

    A group whose deviation is below `min_std` gets advantage 0: without a floor, a group that differs only by
    small penalties has them blown up to full size.
    """

    ddof: int = 1
    eps: float = 1e-6
    min_std: float = 0.0

    def __call__(self, pool: Pool, center: Floats, /) -> Floats:
        """Return (S,)."""
        away = pool.value - pool.mean
        square = pool.total(away * away)
        deviation = np.sqrt(square / np.maximum(pool.count - self.ddof, 1))
        scale: Floats = deviation + self.eps
        if self.min_std:
            scale[deviation < self.min_std] = np.inf
        return scale[pool.group]


@dataclass(frozen=True)
class MeanAbsolute:
    """The mean absolute deviation of the peers from the center, plus `eps`; 0 where it is below `floor`."""

    eps: float = 1e-6
    floor: float = 0.0

    def __call__(self, pool: Pool, center: Floats, /) -> Floats:
        """Return (S,)."""
        deviation = (pool.total(np.abs(pool.value - center)) / np.maximum(pool.count, 1))[pool.group]
        return np.where(deviation < self.floor, np.inf, deviation + self.eps)


@dataclass(frozen=True, repr=False)
class AcrossBatch(Printed):
    """A scale over the whole batch instead of the peers: one divisor for all groups (arXiv 2508.08221)."""

    scale: Scale = Std()

    def __call__(self, pool: Pool, center: Floats, /) -> Floats:
        """Return (S,)."""
        whole = Pool(pool.value, np.zeros_like(pool.group), 1, pool.stand_in, pool.counted)
        return self.scale(whole, center)


# -- advantages --------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Relative(Composable, Printed):
    """How much better a turn did than its peers: (target - center) / scale.

    Attributes:
        target: credit for what; `peers`: against whom; `center`: minus what; `scale`: over what.
        per: whether statistics count each trajectory once in a peer group (by its first turn there) or each
            turn. verl-agent counts turns even for episode totals, so long episodes weigh more.
        lone: what a turn without counted peers gets: "zero", or "raw" for its undivided target.

    >>> from agentrl.credit.keep import keep_all
    >>> from agentrl.trajectory.batch import Batch
    >>> batch = Batch.from_arrays(group=[0, 0, 1], turns_per_trajectory=[2, 1, 1], reward=[0, 1, 0, 5])
    >>> reward = batch.reward.astype(float)
    >>> Relative(scale=one)(batch, reward, keep_all(batch, reward)).tolist()
    [0.5, 0.5, -0.5, 0.0]
    """

    target: Target = episode_total
    peers: Peers = same_task
    center: Center = mean
    scale: Scale = Std()
    per: Literal["trajectory", "turn"] = "trajectory"
    lone: Literal["zero", "raw"] = "zero"

    @property
    def label(self) -> str:
        """The name of its part in a sum: "step" where single turns are compared, else "episode"."""
        return "episode" if self.peers in (same_task, everyone) else "step"

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,). A turn outside the baseline is still compared with those inside."""
        turns = batch.num_turns
        value = per_turn(self.target(batch, reward), self.target, turns)
        peers = per_turn(self.peers(batch), self.peers, turns)
        pool = pool_of(value, peers, batch.trajectory_of_turn, kept.baseline, self.per)
        center = per_turn(self.center(pool), self.center, turns)
        advantage = (value - center) / per_turn(self.scale(pool, center), self.scale, turns)
        alone = pool.count <= 1
        if np.count_nonzero(alone):
            np.copyto(advantage, value if self.lone == "raw" else 0.0, where=alone[pool.group])
        return advantage


def relatives(advantage: Advantage) -> tuple[Relative, ...]:
    """Return the group-relative rules inside an advantage, in order."""
    return tuple(leaf for leaf in leaves(advantage) if isinstance(leaf, Relative))


def step_peers(advantage: Advantage) -> Peers | None:
    """Return against whom the first part that compares single turns compares them, or None without one.

    >>> from agentrl.credit.peers import same_state
    >>> step_peers(Relative() + 0.5 * Relative(peers=same_state)) is same_state
    True
    """
    return next((part.peers for part in relatives(advantage) if part.label == "step"), None)
