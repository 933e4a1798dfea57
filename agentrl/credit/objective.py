"""Objectives over whole groups and over pairs, as advantages: the slope of the objective at each trajectory.

Such an objective J depends on the scores of all members at once. Its gradient is that of sum_i (dJ/dh_i) h_i
with the slopes held constant, h_i being the trajectory's summed log-ratio. So a part here gives the slope, in
units of `trajectory_mean` (times tokens and trajectories, over groups), and the surrogate is `reinforce`:
the gradient is exact on any micro-batch. Slopes are taken at `CURRENT_LOGPROB`, or as drawn without it; with
several optimizer steps on a batch the run measures that column anew before each.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from agentrl.credit.compose import Composable
from agentrl.credit.part import Number, Printed, fixed
from agentrl.credit.pool import sum_by
from agentrl.credit.shaping import succeeded
from agentrl.trajectory.batch import CURRENT_LOGPROB, LOGPROB_BEFORE_UPDATE, REFERENCE_LOGPROB

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.credit.keep import Kept
    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]
    Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Members:
    """The members of one group that carry loss, (M,) figures.

    Attributes:
        log_ratio: summed log-ratio of the kept tokens; `logprob`: summed current log-probability.
        over_reference: summed log-ratio against the reference model; NaN where it was not measured.
        tokens: number of kept tokens, at least 1; `total`: episode reward; `good`: whether it succeeded.
    """

    log_ratio: Floats
    logprob: Floats
    over_reference: Floats
    tokens: Floats
    total: Floats
    good: Bools


class GroupObjective(Composable):
    """An advantage that is the slope of an objective over groups, which is averaged over groups."""

    reads_current = True
    """The run measures `CURRENT_LOGPROB` before each optimizer step after the first."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the figures that a run measures before credit: none, unless it reads the reference."""
        return ()

    @abstractmethod
    def slope(self, members: Members, /) -> Floats:
        """Return (M,) dJ/dh of one group's objective, which is to be maximised."""

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,), the same at each turn of a trajectory.

        Raises `MissingColumnError` where the objective needs the reference, and it was not measured.
        """
        size, row = batch.num_trajectories, batch.trajectory_of_sample
        keep = kept.loss[batch.turn_of_sample]
        now, before = current_logprob(batch), before_update(batch)
        measured = "reference_logprob" in self.needs or REFERENCE_LOGPROB in batch
        reference = batch[REFERENCE_LOGPROB] if measured else np.full(len(now), np.nan)
        moved, likely, apart = (
            sum_by(row[keep], part[keep], size) for part in (now - before, now, now - reference)
        )
        tokens = np.bincount(row[keep], minlength=size).astype(np.float64)
        total = sum_by(batch.trajectory_of_turn, reward, size)
        counted, good = tokens > 0, succeeded(batch)
        groups, result = np.unique(batch.group[counted]), np.zeros(size)
        for group in groups:
            rows = np.flatnonzero(counted & (batch.group == group))
            members = Members(moved[rows], likely[rows], apart[rows], tokens[rows], total[rows], good[rows])
            result[rows] = self.slope(members) * tokens[rows]
        return np.asarray(result * counted.sum() / max(len(groups), 1))[batch.trajectory_of_turn]


def current_logprob(batch: Batch) -> Floats:
    """(N,) log-probability now: `CURRENT_LOGPROB`, or before the update."""
    return batch[CURRENT_LOGPROB].astype(np.float64) if CURRENT_LOGPROB in batch else before_update(batch)


def before_update(batch: Batch) -> Floats:
    """(N,) log-probability before the update: `LOGPROB_BEFORE_UPDATE`, or as drawn."""
    known = LOGPROB_BEFORE_UPDATE in batch
    return (batch[LOGPROB_BEFORE_UPDATE] if known else batch.logprob).astype(np.float64)


@dataclass(frozen=True)
class RewardsAsLabels(GroupObjective):
    """-log(1 + sum_good exp(-s/tau)) - log(1 + sum_bad exp(s/tau)), s the mean log-ratio: REAL.

    A member's weight is at most 1 / tau. Source: "rewards as labels", as documented by ms-swift.
    """

    tau: Number = 0.5

    def slope(self, members: Members, /) -> Floats:
        """Return (M,)."""
        tau, good = fixed(self.tau), members.good
        sign = np.where(good, 1.0, -1.0)
        power = np.exp(-sign * members.log_ratio / members.tokens / tau)
        rest = np.where(good, power[good].sum(), power[~good].sum())
        return np.asarray(sign * power / (1 + rest) / tau / members.tokens)


@dataclass(frozen=True)
class Discriminate(GroupObjective):
    """mean over good of [s - tau log mean over bad of exp(s/tau)], s the mean log-probability: DisCO.

    Source: Optimization-AI/DisCO core_algos.py, log-likelihood score. Departure: its hinge on the KL is left
    out; add `KlToOld`. A group of one kind gives nothing.
    """

    tau: Number = 10.0

    def slope(self, members: Members, /) -> Floats:
        """Return (M,)."""
        good, score = members.good, members.logprob / members.tokens
        if good.all() or not good.any():
            return np.zeros(len(good))
        power = np.exp((score - score[~good].max()) / fixed(self.tau))
        slope = np.where(good, 1 / good.sum(), -power / power[~good].sum())
        return np.asarray(slope / members.tokens)


@dataclass(frozen=True)
class Regression(GroupObjective):
    """-mean of (s - mean s - A)^2, s the mean log-ratio, A the standard score of the total: Reg-GRPO.

    Source: DeepVideo-R1, from its abstract.
    """

    def slope(self, members: Members, /) -> Floats:
        """Return (M,)."""
        score, total = members.log_ratio / members.tokens, members.total
        if len(total) < 2:
            return np.zeros(len(total))
        wanted = (total - total.mean()) / (total.std(ddof=1) + 1e-6)
        away = score - score.mean() - wanted
        return np.asarray(-2 * (away - away.mean()) / len(total) / members.tokens)


@dataclass(frozen=True)
class Ranked(GroupObjective):
    """The mean over ordered pairs of log sigmoid(beta (h_better - h_worse)): TRPA.

    The policy before the update is the anchor. A better member has the larger total. Source: TRPA, from its
    abstract.
    """

    beta: Number = 0.1

    def slope(self, members: Members, /) -> Floats:
        """Return (M,)."""
        beta, better = fixed(self.beta), members.total[:, None] > members.total[None, :]
        away = members.log_ratio[:, None] - members.log_ratio[None, :]
        pull = np.where(better, beta / (1 + np.exp(np.clip(beta * away, -50, 50))), 0.0)
        return np.asarray((pull.sum(1) - pull.sum(0)) / max(int(better.sum()), 1))


@dataclass(frozen=True)
class Contrast(GroupObjective):
    """The mean over pairs of (R_i - R_j) (log p_i - log p_j), R = total - beta log(p / reference): CoPG.

    R is a constant. Needs the reference's log-probabilities. Source: contrastive policy gradient, arXiv
    2406.19185, from its abstract.
    """

    beta: Number = 0.05

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the figures."""
        return ("reference_logprob",)

    def slope(self, members: Members, /) -> Floats:
        """Return (M,)."""
        figure = members.total - fixed(self.beta) * members.over_reference
        count = len(figure)
        return np.asarray((count * figure - figure.sum()) / max(count * (count - 1) / 2, 1.0))


@dataclass(frozen=True)
class RelativeRegression(GroupObjective):
    """-mean over pairs of ((h_i - h_j) / eta - (R_i - R_j))^2, h the summed log-ratio: REFUEL.

    Source: REFUEL, arXiv 2410.04612, from its abstract. Departure: pairs are members of one group, theirs two
    continuations of one prefix; give the branches of one fork a group to have those.
    """

    eta: Number = 1.0

    def slope(self, members: Members, /) -> Floats:
        """Return (M,)."""
        eta, count = fixed(self.eta), len(members.total)
        figure = members.log_ratio / eta - members.total
        pairs = max(count * (count - 1) / 2, 1.0)
        return np.asarray(-2 / eta * (count * figure - figure.sum()) / pairs)


@dataclass(frozen=True)
class Desirable(GroupObjective):
    """The mean of sigmoid(beta (h - z)) over good and sigmoid(beta (z - h)) over bad members: KTO.

    h is the summed log-ratio against the reference and z its mean over the group, at least 0 and constant.
    Source: iterated KTO as in CONSCIENTIA, from its abstract. Departure: z is that of the group itself.
    """

    beta: Number = 0.1

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the figures."""
        return ("reference_logprob",)

    def slope(self, members: Members, /) -> Floats:
        """Return (M,)."""
        beta, rise = fixed(self.beta), members.over_reference
        sign = np.where(members.good, 1.0, -1.0)
        middle = max(float(rise.mean()), 0.0)
        value = 1 / (1 + np.exp(np.clip(-sign * beta * (rise - middle), -50, 50)))
        return np.asarray(sign * beta * value * (1 - value) / len(rise))


@dataclass(frozen=True, repr=False)
class NegativeAware(Composable, Printed):
    """w log R over successes and w log max((1 - q R) / (1 - q), floor) over failures, token by token: NFT.

    R is the token's ratio, q the group's share of successes and w = sqrt((1 - q) / q), which makes the
    on-policy gradient that of GRPO with the population's deviation. Below `floor` the value is held and the
    slope goes on. Source: bridging supervised learning and RL, arXiv 2505.18116, weights from memory.
    """

    floor: Number = 1.0

    reads_current = True

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,) means of turns."""
        count = np.maximum(np.diff(batch.sample_start), 1)
        return sum_by(batch.turn_of_sample, self.of_tokens(batch, reward, kept), batch.num_turns) / count

    def of_tokens(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:  # the slot
        """Return (N,)."""
        good, members = succeeded(batch), np.maximum(np.bincount(batch.group), 1)
        share = (np.bincount(batch.group, good) / members)[batch.group][batch.trajectory_of_sample]
        mixed = (share > 0) & (share < 1)
        share = np.where(mixed, share, 0.5)
        ratio = np.exp(np.clip(current_logprob(batch) - before_update(batch), -20, 20))
        left = np.maximum((1 - share * ratio) / (1 - share), fixed(self.floor))
        down = -share * ratio / (1 - share) / left
        weight = np.where(mixed, np.sqrt((1 - share) / share), 0.0)
        return np.asarray(weight * np.where(good[batch.trajectory_of_sample], 1.0, down))
