"""The value of playing at random, learnt by the policy itself: ROVER."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from agentrl.credit.advantage import Relative, one
from agentrl.credit.compose import Advantage, Composable
from agentrl.credit.objective import before_update, current_logprob
from agentrl.credit.part import Number, Printed, fixed
from agentrl.credit.pool import sum_by
from agentrl.trajectory.batch import CURRENT_VOCABULARY_LOGPROB, VOCABULARY_LOGPROB

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.credit.keep import Kept
    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class UniformValue(Composable, Printed):
    """The slope of -(Q_t - sg(r + V_{t+1}))^2, with Q = rho log(p / p_old) of the drawn token.

    V_{t+1} is the mean of Q over the whole vocabulary at the trajectory's next sampled token, 0 after its
    last: the value there of a policy that draws uniformly. r is `centred`, the same at every token. On the
    first optimizer step of a batch Q and V are 0. Reads `VOCABULARY_LOGPROB`, and as they stand now
    `CURRENT_LOGPROB` and `CURRENT_VOCABULARY_LOGPROB`.

    Source: yuxiaooye/ROVER, `dp_actor.py` and `core_algos.py` (arXiv 2509.24981), whose rho is 1.
    """

    centred: Advantage = Relative(scale=one)  # noqa: RUF009  # frozen
    rho: Number = 1.0

    reads_current = True

    def __call__(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (S,) means of turns."""
        count = np.maximum(np.diff(batch.sample_start), 1)
        return sum_by(batch.turn_of_sample, self.of_tokens(batch, reward, kept), batch.num_turns) / count

    def of_tokens(self, batch: Batch, reward: Floats, kept: Kept, /) -> Floats:
        """Return (N,). Raises `MissingColumnError` without means over the vocabulary."""
        rho = fixed(self.rho)
        own = rho * (current_logprob(batch) - before_update(batch))
        target = self.centred(batch, reward, kept)[batch.turn_of_sample] + rho * _value_after(batch)
        return np.asarray(2 * rho * (target - own))


def _value_after(batch: Batch) -> Floats:
    """(N,) how far the mean log-probability over the vocabulary has moved at the next sampled token."""
    before = batch[VOCABULARY_LOGPROB].astype(np.float64)
    moved = np.zeros(len(before))
    if CURRENT_VOCABULARY_LOGPROB in batch:
        moved = batch[CURRENT_VOCABULARY_LOGPROB] - before
    after = np.append(moved[1:], 0.0)[: len(moved)]
    start = batch.sample_start[batch.turn_start]
    after[start[1:][np.diff(start) > 0] - 1] = 0.0
    return after
