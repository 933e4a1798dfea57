"""Probes: columns that need a model, measured before credit and loss read them.

Each one is a forward pass over the batch's own streams, without gradient: the tokens stand in the batch, so
nothing is sampled or tokenised again. The temperature is the one the tokens were drawn at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from agentrl.learn.forward import Streams, predict
from agentrl.learn.layout import lay_out
from agentrl.trajectory.batch import ENTROPY, LOGPROB_BEFORE_UPDATE, REFERENCE_LOGPROB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from agentrl.learn.forward import Index
    from agentrl.trajectory.batch import Batch

MICRO_TOKENS = 8192


@dataclass(frozen=True, eq=False)
class Measured:
    """What a model says of some sampled tokens.

    Attributes:
        place: (n,) their places among the (N,) sampled tokens of the batch.
        logprob: (n,) log-probability in nats; `entropy`: (n,) entropy of the distribution in nats.
    """

    place: Index
    logprob: NDArray[np.float32]
    entropy: NDArray[np.float32]


def reference_logprob(
    batch: Batch, model: PreTrainedModel, *, temperature: float = 1.0, micro_tokens: int = MICRO_TOKENS
) -> Batch:
    """Return the batch with `REFERENCE_LOGPROB`: what `model`, the reference, says of each sampled token."""
    found = measure(batch, model, streams_of(batch), temperature=temperature, micro_tokens=micro_tokens)
    return batch.with_column(REFERENCE_LOGPROB, merged(batch, [found]).logprob)


def current_logprob(
    batch: Batch, model: PreTrainedModel, *, temperature: float = 1.0, micro_tokens: int = MICRO_TOKENS
) -> Batch:
    """Return the batch with `LOGPROB_BEFORE_UPDATE`: what the learner says before its first step on it.

    The loss takes ratios against it instead of the log-probabilities as drawn. It is needed where those come
    from another distribution than the learner's: top-p below 1, or another engine.
    """
    found = measure(batch, model, streams_of(batch), temperature=temperature, micro_tokens=micro_tokens)
    return batch.with_column(LOGPROB_BEFORE_UPDATE, merged(batch, [found]).logprob)


def entropy(
    batch: Batch, model: PreTrainedModel, *, temperature: float = 1.0, micro_tokens: int = MICRO_TOKENS
) -> Batch:
    """Return the batch with `ENTROPY`: of the distribution each sampled token was drawn from, in nats."""
    found = measure(batch, model, streams_of(batch), temperature=temperature, micro_tokens=micro_tokens)
    return batch.with_column(ENTROPY, merged(batch, [found]).entropy)


@torch.no_grad()
def measure(
    batch: Batch,
    model: PreTrainedModel,
    streams: Index,
    *,
    temperature: float = 1.0,
    micro_tokens: int = MICRO_TOKENS,
) -> Measured:
    """Measure the sampled tokens of some streams: one share of a batch."""
    every = Streams.of(batch)
    places = [np.zeros(0, np.int64)]
    found = [torch.zeros(2, 0)]
    for rows, layout in lay_out(model, *every.sequences(streams), tokens=micro_tokens):
        places.append(every.samples(streams[rows]))
        said = predict(model, layout, temperature=temperature, entropy="measured")
        spread = said.logprob if said.entropy is None else said.entropy
        found.append(torch.stack([said.logprob, spread]).cpu())
    logprob, spread_of = torch.cat(found, dim=1).float().numpy()
    return Measured(np.concatenate(places), logprob, spread_of)


def merged(batch: Batch, shares: Sequence[Measured]) -> Measured:
    """Put shares that together cover the batch into the order of its (N,) sampled tokens."""
    whole = Measured(
        np.arange(batch.num_sampled),
        np.zeros(batch.num_sampled, np.float32),
        np.zeros(batch.num_sampled, np.float32),
    )
    for share in shares:
        whole.logprob[share.place] = share.logprob
        whole.entropy[share.place] = share.entropy
    return whole


def streams_of(batch: Batch) -> Index:
    """(R,) all streams of a batch."""
    return np.arange(len(batch.stream_turn_start) - 1)
