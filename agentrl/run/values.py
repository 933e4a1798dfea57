"""The critic's side of an update: what it learns from a batch, and its optimizer steps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from agentrl.credit.critic import returns_of
from agentrl.credit.part import fixed
from agentrl.learn.forward import Streams
from agentrl.learn.value import ValueInputs
from agentrl.run.jobs import ValueShare, values_on
from agentrl.trajectory.batch import VALUE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.learn.algorithm import Algorithm, Credit
    from agentrl.run.bench import Bench
    from agentrl.trajectory.batch import Batch


def value_inputs(algorithm: Algorithm, batch: Batch, credit: Credit) -> ValueInputs | None:
    """Return what the critic learns from a batch, None without one."""
    part = returns_of(algorithm.advantage)
    if algorithm.critic is None or part is None:
        return None
    target = part.returns(batch, credit.reward, credit.kept).astype(np.float32)
    count = int(np.isfinite(target).sum())
    learns = algorithm.critic.trunk == "learns"
    return ValueInputs(target, batch[VALUE], fixed(algorithm.critic.clip), count, learns)


def learn_values(
    bench: Bench, batch: Batch, inputs: ValueInputs, minibatch: NDArray[np.bool_] | None, progress: float
) -> float:
    """Take the critic's optimizer step of one minibatch (E,) and return its loss; 0 without a target."""
    critic = bench.critic
    if critic is None:
        raise RuntimeError("reinforce() begins its phase first")  # a defect of the caller
    if minibatch is not None:
        target = np.where(minibatch[batch.trajectory_of_sample], inputs.target, np.float32(np.nan))
        inputs = replace(inputs, target=target, count=int(np.isfinite(target).sum()))
    streams = inputs.streams(Streams.of(batch))
    if not len(streams):
        return 0.0
    share = ValueShare(batch, inputs, streams, critic.weights(), bench.settings.micro_tokens)
    parts = values_on(bench.crew, share)
    critic.step(torch.stack([part.gradient for part in parts]).sum(0), progress)
    return sum(part.loss for part in parts)
