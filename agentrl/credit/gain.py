"""Information gain: how much each turn raised the policy's belief in the right answer (IGPO)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from agentrl.credit.compose import Composable
from agentrl.credit.part import Checked, Number, Printed, fixed
from agentrl.credit.pool import sum_by
from agentrl.credit.sequence import accumulate_backward, following, last_turns
from agentrl.trajectory.batch import GOLD_LOGPROB, GOLD_LOGPROB_FINAL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.credit.keep import Kept
    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]
    Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class BeliefGain(Checked):
    """The rise of the belief in the gold answer over each turn, (S,), NaN where there is no gain to speak of.

    Reads `GOLD_LOGPROB`, the mean log-probability of the answer's tokens at the start of each turn. A belief
    that was not measured (NaN) counts as unchanged: gain 0, and the next gain starts from the last one known.
    The last turn has no gain, except in a truncated trajectory with `at_limit`, which reads
    `GOLD_LOGPROB_FINAL`.

    Attributes:
        kind: whether the belief is a log-probability or a probability.
    """

    kind: Literal["log", "probability"] = "log"
    at_limit: bool = False

    def __call__(self, batch: Batch) -> Floats:
        """Return (S,). Raises `MissingColumnError` without the belief probe's columns."""
        belief = batch[GOLD_LOGPROB].astype(np.float64)
        last = np.full(batch.num_trajectories, np.nan)
        if self.at_limit:
            last = np.where(batch.truncated, batch[GOLD_LOGPROB_FINAL], np.nan)
        if self.kind == "probability":
            belief, last = np.exp(belief), np.exp(last)
        known = _last_known(belief, batch)
        after = following(batch, belief, last)
        gain = np.where(np.isfinite(after), after - known, np.where(np.isnan(known), np.nan, 0.0))
        ends = last_turns(batch)
        gain[ends] = np.where(np.isfinite(after[ends]), gain[ends], np.nan)
        return gain


@dataclass(frozen=True, repr=False)
class InformationGain(Composable, Printed):
    """IGPO: gains of turns and outcomes, each normalised within the group, summed from each turn on.

    z = (r - mean) / (sqrt(population variance + 1e-8) + 1e-6), and A_t = z_t + gamma A_{t+1}; the outcome,
    which is the trajectory's total, stands at the last turn. Source: IGPO
    (GuoqingWang1/IGPO, third published state). A pool of one gives 0.

    Attributes:
        pool: whether gains and outcomes are normalised apart or together.
        divide: whether to divide by the deviation.
    """

    gain: BeliefGain = BeliefGain()
    gamma: Number = 1.0
    pool: Literal["separate", "joint"] = "separate"
    divide: bool = True

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,)."""
        gain, ends = self.gain(batch), last_turns(batch)
        total = sum_by(batch.trajectory_of_turn, reward, batch.num_trajectories)
        owner = batch.trajectory_of_turn[ends]
        value = np.concatenate([gain, total[owner]])
        group = np.concatenate([batch.group_of_turn, batch.group[owner]]).astype(np.int64)
        if self.pool == "separate":
            group[len(gain) :] += int(batch.group.max(initial=-1)) + 1
        inside = np.concatenate([kept.baseline[batch.trajectory_of_turn], kept.baseline[owner]])
        score = _standard(value, group, inside & np.isfinite(value), divide=self.divide)
        at_turn = score[: len(gain)]
        at_turn[ends] += score[len(gain) :]
        decay = np.full(len(at_turn), fixed(self.gamma))
        return accumulate_backward(at_turn, decay, batch.turn_start)


def _standard(value: Floats, group: NDArray[np.int64], counted: Bools, *, divide: bool) -> Floats:
    """Normalise in pools; 0 where the value is not finite or the pool holds at most one."""
    size = int(group.max(initial=-1)) + 1
    held = np.where(np.isfinite(value), value, 0.0)
    count = np.bincount(group[counted], minlength=size)
    mean = sum_by(group[counted], held[counted], size) / np.maximum(count, 1)
    square = sum_by(group[counted], (held - mean[group])[counted] ** 2, size) / np.maximum(count, 1)
    scale = np.sqrt(square + 1e-8) + 1e-6 if divide else np.ones(size)
    use = np.isfinite(value) & (count[group] > 1)
    return np.where(use, (held - mean[group]) / scale[group], 0.0)


def _last_known(belief: Floats, batch: Batch) -> Floats:
    """Fill unmeasured beliefs with the last one before them in the trajectory; NaN before the first."""
    row = np.where(np.isfinite(belief), np.arange(len(belief)), -1)
    newest = np.maximum.accumulate(row) if len(row) else row
    inside = newest >= batch.turn_start[batch.trajectory_of_turn]
    return np.where(inside, belief[np.maximum(newest, 0)] if len(row) else belief, np.nan)
