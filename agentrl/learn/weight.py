"""Token weights: how much each sampled token counts in the surrogate, from columns of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from agentrl.credit.part import Number, fixed
from agentrl.trajectory.batch import LOGPROB_BEFORE_UPDATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]


class TokenWeight(Protocol):
    """A token weight slot: (N,) factors on the surrogate; penalties are not touched."""

    def __call__(self, batch: Batch, /) -> Floats:
        """Return (N,)."""
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
