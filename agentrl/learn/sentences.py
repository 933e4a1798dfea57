"""Sentences of a turn, found by decoding its tokens: the unit of SSPO's ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from agentrl.trajectory.batch import SENTENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentrl.trajectory.batch import Batch

MARKS = frozenset(".,;:!?\n")
"""A token that holds one of them ends a sentence, or part of one."""


def with_sentences(batch: Batch, decode: Callable[[Sequence[int]], str]) -> Batch:
    """Return the batch with `SENTENCE`: (N,) the number of each token's sentence within its turn, from 0.

    Args:
        decode: the text of some token ids, such as `Renderer.decode`. Each id is decoded once, alone.

    >>> from agentrl.trajectory.batch import Batch
    >>> batch = Batch.from_arrays(
    ...     group=[0], turns_per_trajectory=[2], reward=[0, 1], tokens_per_turn=[4, 1], token=[7, 0, 7, 0, 7]
    ... )
    >>> with_sentences(batch, lambda ids: "." if ids[0] == 0 else "a")[SENTENCE].tolist()
    [0.0, 0.0, 1.0, 1.0, 0.0]
    """
    distinct, place = np.unique(batch.token[batch.sampled], return_inverse=True)
    ends = np.array([not MARKS.isdisjoint(decode([int(token)])) for token in distinct], np.int64)[place]
    before = np.append(np.cumsum(ends) - ends, 0)
    number = before[:-1] - before[batch.sample_start[:-1]][batch.turn_of_sample]
    return batch.with_column(SENTENCE, number.astype(np.float32))
