"""Token weights: how much each sampled token counts in the surrogate, from columns of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

import numpy as np

from agentrl.credit.advantage import Relative
from agentrl.credit.part import Number, fixed
from agentrl.credit.pool import signs
from agentrl.credit.sequence import number_pairs
from agentrl.credit.tree import copied_sample, copied_turn
from agentrl.trajectory.batch import ENTROPY, LOGPROB_BEFORE_UPDATE, SPAN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.credit.compose import Advantage
    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]
    Bools: TypeAlias = NDArray[np.bool_]
    Ids: TypeAlias = NDArray[np.int64]


class TokenWeight(Protocol):
    """A token weight slot: (N,) factors on the surrogate; penalties are not touched."""

    def __call__(self, batch: Batch, /) -> Floats:
        """Return (N,)."""
        ...


@runtime_checkable
class CreditWeight(Protocol):
    """A token weight slot that also reads which tokens carry loss and the (N,) advantage."""

    def of_credit(self, batch: Batch, keep: Bools, advantage: Floats, /) -> Floats:
        """Return (N,)."""
        ...


@runtime_checkable
class Compares(Protocol):
    """A credit weight that reads an advantage of its own, whatever the algorithm makes of its advantage."""

    @property
    def advantage(self) -> Advantage:
        """What `of_credit` is given, per token."""
        ...


def equal_weight(batch: Batch, /) -> Floats:
    """Every token counts 1."""
    return np.ones(batch.num_sampled)


@dataclass(frozen=True)
class TruncatedImportance:
    """min(p_learner / p_sampler, cap): corrects tokens that another engine or an older policy drew.

    Needs the column `LOGPROB_BEFORE_UPDATE`, the learner's own log-probability of what was drawn; the loss
    then takes its ratio against that column. Source: truncated importance sampling as in verl and TRL.
    """

    cap: Number = 2.0

    def __call__(self, batch: Batch, /) -> Floats:
        """Return (N,)."""
        gap = batch[LOGPROB_BEFORE_UPDATE].astype(np.float64) - batch.logprob
        return np.exp(np.minimum(gap, np.log(fixed(self.cap))))


@dataclass(frozen=True)
class TopEntropy:
    """1 for the `share` of kept tokens with the highest entropy, 0 for the rest (arXiv 2506.01939).

    Reads `ENTROPY`. Averages still count all kept tokens.
    """

    share: Number = 0.2

    def of_credit(self, batch: Batch, keep: Bools, advantage: Floats, /) -> Floats:  # the slot
        """Return (N,)."""
        entropy = batch[ENTROPY]
        if not keep.any():
            return np.zeros(batch.num_sampled)
        return (entropy >= np.quantile(entropy[keep], 1 - fixed(self.share))).astype(np.float64)


@dataclass(frozen=True)
class EntropyChange:
    """Less weight, down to `low`, where an update would move the entropy most: STEER.

    The change is |A (1 - p) (log p + H)|, mapped over the kept tokens of the batch onto [`high`, `low`]. The
    probability is the one before the update, as in the first step of the authors' code (zz-haooo/STEER).
    """

    low: Number = 0.8
    high: Number = 1.0

    def of_credit(self, batch: Batch, keep: Bools, advantage: Floats, /) -> Floats:
        """Return (N,)."""
        logprob = (batch[LOGPROB_BEFORE_UPDATE] if LOGPROB_BEFORE_UPDATE in batch else batch.logprob).astype(  # noqa: SIM401  # no dict
            np.float64
        )
        change = np.abs(advantage * (1 - np.exp(logprob)) * (logprob + batch[ENTROPY]))
        some = change[keep] if keep.any() else np.zeros(1)
        place = (change - some.min()) / max(float(some.max() - some.min()), 1e-12)
        return np.asarray(fixed(self.high) + (fixed(self.low) - fixed(self.high)) * np.clip(place, 0, 1))


@dataclass(frozen=True)
class PlanTokens:
    """1 + `strength` sign(A) on the tokens of one role, 1 elsewhere: A + strength |A|, HICRA.

    Planning tokens are a span here; the paper finds them by strategic phrases.
    """

    role: str = "think"
    strength: Number = 0.2

    def of_credit(self, batch: Batch, keep: Bools, advantage: Floats, /) -> Floats:  # the slot
        """Return (N,). Raises `MissingColumnError` where the batch has no spans."""
        _ = batch[SPAN]
        return 1 + fixed(self.strength) * np.sign(advantage) * batch.in_span(self.role)


@dataclass(frozen=True)
class EntropyAdvantage:
    """1 + `strength` z, z the entropy's standard score over the kept tokens: AEPO's entropy-aware advantage.

    Reads `ENTROPY`. Weights are at least 0.
    """

    strength: Number = 0.3

    def of_credit(self, batch: Batch, keep: Bools, advantage: Floats, /) -> Floats:  # the slot
        """Return (N,)."""
        entropy = batch[ENTROPY].astype(np.float64)
        some = entropy[keep] if keep.any() else np.zeros(1)
        place = (entropy - some.mean()) / (some.std() + 1e-6)
        return np.asarray(np.maximum(1 + fixed(self.strength) * place, 0.0))


@dataclass(frozen=True)
class Improbable:
    """1 for tokens whose probability before the update is at most `limit`, else 0: SPO's probability mask.

    Where a segment's value changed, the tokens that were certain anyway cannot be the reason. Averages still
    count all kept tokens. Source: AIFrameResearch/SPO, chain.
    """

    limit: Number = 0.9

    def __call__(self, batch: Batch, /) -> Floats:
        """Return (N,)."""
        known = LOGPROB_BEFORE_UPDATE in batch
        logprob = batch[LOGPROB_BEFORE_UPDATE] if known else batch.logprob
        return (np.exp(logprob.astype(np.float64)) <= fixed(self.limit)).astype(np.float64)


@dataclass(frozen=True)
class ConflictTokens:
    """`strength` for successes and 0 for failures on tokens that both share at one place of a group: GTPO.

    A token is in conflict where members with A > 0 and with A < 0 drew the same one at the same position, and
    so they did at every position before it; the same is counted from the end. A token in both runs is
    weighed twice. The signs are those of `advantage`, before entropy costs or cuts it, so a success that is
    itself left out still protects what it shares. Source: winstonsmith1897/GTPO (arXiv 2508.03772), which
    builds the mask first and shapes afterwards. Departures: positions count the sampled
    tokens of a trajectory, theirs those of one answer; their code also divides what a completion adds to the
    loss by the number of its tokens in conflict.
    """

    strength: Number = 2.0
    advantage: Advantage = Relative()  # noqa: RUF009  # frozen

    def of_credit(self, batch: Batch, keep: Bools, advantage: Floats, /) -> Floats:
        """Return (N,)."""
        sign, row = np.where(keep, signs(advantage), 0.0), batch.trajectory_of_sample
        length = np.bincount(row, minlength=batch.num_trajectories)
        from_start = np.arange(batch.num_sampled) - (np.cumsum(length) - length)[row]
        weight = np.where(sign > 0, fixed(self.strength), 0.0)
        result = np.ones(batch.num_sampled)
        for place in (from_start, length[row] - 1 - from_start):
            result *= np.where(_in_conflict(batch, place, sign), weight, 1.0)
        return result


def _in_conflict(batch: Batch, place: Ids, sign: Floats) -> Bools:
    """(N,) whether token and place, and all lesser places, are those of both signs in the group."""
    row, token = batch.trajectory_of_sample, batch.token[batch.sampled].astype(np.int64)
    drawn = number_pairs(number_pairs(batch.group[row].astype(np.int64), place), token)
    both = ((np.bincount(drawn, sign > 0) > 0) & (np.bincount(drawn, sign < 0) > 0))[drawn]
    first = np.full(batch.num_trajectories, batch.num_sampled)
    np.minimum.at(first, row[~both], place[~both])
    return np.asarray(place < first[row])


@dataclass(frozen=True)
class EveryCopy:
    """A token counts once for each branch that holds it, not once in all: ARPO's soft assignment.

    A shared token has the mean advantage of its copies. With a mean over tokens the loss is that of branches
    learnt one by one wherever the surrogate is linear in the advantage: without a clip, and with one as long
    as the token's ratio lies within the window, as it does in the first step on a batch. Outside it
    min(r A, clip(r) A) of a mean is not the mean over copies whose advantages differ in sign: one by one such
    a token still pays for the copies that the clip does not hold, here for their mean alone. Copies of turns
    that a filter dropped count too. Source: dongguanting/ARPO (arXiv 2507.19849), which trains on every chain
    by itself.
    """

    def of_credit(self, batch: Batch, keep: Bools, advantage: Floats, /) -> Floats:  # the slot
        """Return (N,)."""
        origin = copied_sample(batch, copied_turn(batch))
        copies = np.bincount(origin, minlength=batch.num_sampled)[origin]
        return np.asarray(copies * keep.sum() / max(int(copies[keep].sum()), 1))
