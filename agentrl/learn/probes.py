"""Probes: columns that need a model, measured before credit and loss read them.

Each one is a forward pass over the batch's own streams, without gradient: the tokens stand in the batch, so
nothing is sampled or tokenised again. The temperature is the one the tokens were drawn at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from agentrl.learn.belief import Beliefs, leaves_of, no_beliefs
from agentrl.learn.forward import Streams, predict
from agentrl.learn.layout import lay_out
from agentrl.trajectory.batch import (
    ENTROPY,
    LOGPROB_BEFORE_UPDATE,
    REFERENCE_LOGPROB,
    VOCABULARY_LOGPROB,
)
from agentrl.trajectory.segments import offsets, ranges, segment_sum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from agentrl.learn.belief import Answers
    from agentrl.learn.forward import Index
    from agentrl.trajectory.batch import Batch

MICRO_TOKENS = 8192


@dataclass(frozen=True, eq=False)
class Measured:
    """What a model says of some sampled tokens.

    Attributes:
        place: (n,) their places among the (N,) sampled tokens of the batch.
        logprob: (n,) log-probability in nats; `entropy`: (n,) entropy of the distribution in nats.
        vocabulary: (n,) mean log-probability over the vocabulary, 0 where it was not asked for.
        beliefs: in the gold answers, where they were asked for.
    """

    place: Index
    logprob: NDArray[np.float32]
    entropy: NDArray[np.float32]
    vocabulary: NDArray[np.float32]
    beliefs: Beliefs = field(default_factory=no_beliefs)


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


def vocabulary_logprob(
    batch: Batch, model: PreTrainedModel, *, temperature: float = 1.0, micro_tokens: int = MICRO_TOKENS
) -> Batch:
    """Return the batch with `VOCABULARY_LOGPROB`: the mean log-probability over the vocabulary, in nats.

    At the place of each sampled token, as the learner says before its first step.
    """
    streams = streams_of(batch)
    found = measure(
        batch, model, streams, vocabulary=True, temperature=temperature, micro_tokens=micro_tokens
    )
    return batch.with_column(VOCABULARY_LOGPROB, merged(batch, [found]).vocabulary)


@torch.no_grad()
def measure(
    batch: Batch,
    model: PreTrainedModel,
    streams: Index,
    *,
    answers: Answers = (),
    vocabulary: bool = False,
    temperature: float = 1.0,
    micro_tokens: int = MICRO_TOKENS,
) -> Measured:
    """Measure the sampled tokens of some streams, one share of a batch, and the belief in gold answers.

    Args:
        answers: (E,) gold answers of `agentrl.learn.belief.answers_of`, or none. They are read in the same
            pass, as leaves on the streams.
        vocabulary: whether means over the vocabulary are measured.
    """
    every = Streams.of(batch)
    sequences, targets = every.sequences(streams)
    most = getattr(model.config, "max_position_embeddings", None) or 1 << 30
    leaves = leaves_of(every, streams, answers, most)
    sequences, targets = sequences + leaves.sequences, targets + leaves.targets
    said = np.zeros((3, sum(map(len, targets))), np.float32)
    start = offsets([len(each) for each in targets])
    for rows, layout in lay_out(model, sequences, targets, tokens=micro_tokens):
        heard = predict(model, layout, temperature=temperature, entropy="measured", vocabulary=vocabulary)
        place = ranges(start, rows)
        for row, figures in enumerate((heard.logprob, heard.entropy, heard.vocabulary)):
            if figures is not None:
                said[row, place] = figures.cpu().float().numpy()
    drawn = int(start[len(streams)])
    answered = segment_sum(said[0, drawn:], start[len(streams) :] - drawn)
    mean = (answered / np.diff(start[len(streams) :])).astype(np.float32)
    beliefs = Beliefs(leaves.turn, leaves.trajectory, mean)
    logprob, spread, vocabularies = said[:, :drawn]
    return Measured(every.samples(streams), logprob, spread, vocabularies, beliefs)


def merged(batch: Batch, shares: Sequence[Measured]) -> Measured:
    """Put shares that together cover the batch into the order of its (N,) sampled tokens."""
    questions = [share.beliefs for share in shares] or [no_beliefs()]
    logprob, spread, vocabularies = np.zeros((3, batch.num_sampled), np.float32)
    whole = Measured(
        np.arange(batch.num_sampled),
        logprob,
        spread,
        vocabularies,
        Beliefs(
            np.concatenate([each.turn for each in questions]),
            np.concatenate([each.trajectory for each in questions]),
            np.concatenate([each.logprob for each in questions]),
        ),
    )
    for share in shares:
        whole.logprob[share.place] = share.logprob
        whole.entropy[share.place] = share.entropy
        whole.vocabulary[share.place] = share.vocabulary
    return whole


def streams_of(batch: Batch) -> Index:
    """(R,) all streams of a batch."""
    return np.arange(len(batch.stream_turn_start) - 1)
