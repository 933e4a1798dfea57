"""Recursions along trajectories, vectorised: numbering of histories, backward sums, repeats of actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from agentrl.trajectory.batch import NO_KEY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agentrl.trajectory.batch import Batch

    Floats: TypeAlias = NDArray[np.float64]
    Ids: TypeAlias = NDArray[np.int64]


def accumulate_backward(value: Floats, decay: Floats | float, start: NDArray[np.integer]) -> Floats:
    """Return y with y_i = value_i + decay_i y_{i+1} inside each segment, and y = value at its last entry.

    Each round doubles how far an entry looks ahead (the scan of Hillis and Steele, Data Parallel Algorithms,
    1986), so the work is S times the logarithm of the longest segment. A decay of 0 at the last entry of a
    segment keeps segments apart, and what one gives does not depend on the others.

    Args:
        value: (S,) finite figures; `decay`: as many, or one for all; `start`: (E+1,) offsets of the segments.

    >>> accumulate_backward(np.array([0.0, 0, 8, 1]), 0.5, np.array([0, 3, 4])).tolist()
    [2.0, 4.0, 8.0, 1.0]
    """
    total, reach = np.array(value, np.float64), np.empty(len(value))
    if not len(total):
        return total
    reach[:] = decay
    reach[start[1:] - 1] = 0.0  # before a segment without entries another one ends, the last if it is first
    near, ahead, longest = reach[:-1], 1, int(np.maximum.reduce(start[1:] - start[:-1]))
    while ahead < longest:
        sooner = total[:-ahead]
        sooner += near * total[ahead:]
        if 2 * ahead < longest:
            near = near[:-ahead] * near[ahead:]
        ahead *= 2
    return total


def following(batch: Batch, value: Floats, last: Floats) -> Floats:
    """Return (S,) the value at the next turn of the trajectory, and (E,) `last` after its last turn."""
    result = np.append(value[1:], 0.0)[: len(value)]
    has_turns = batch.turns_per_trajectory > 0
    result[batch.turn_start[1:][has_turns] - 1] = last[has_turns]
    return result


def last_turns(batch: Batch) -> Ids:
    """Return the rows of the last turns of trajectories that have turns."""
    return (batch.turn_start[1:][batch.turns_per_trajectory > 0] - 1).astype(np.int64)


def number_pairs(first: Ids, second: Ids) -> Ids:
    """Number equal pairs from 0."""
    distinct, dense = np.unique(second, return_inverse=True)
    ids = np.unique(first, return_inverse=True)[1].astype(np.int64) * max(len(distinct), 1) + dense
    return np.asarray(np.unique(ids, return_inverse=True)[1], np.int64)


def prefix_ids(batch: Batch, key: Ids) -> Ids:
    """Number the prefixes of (S,) keys: two turns share a number when their whole pasts and they agree.

    A turn without a key, and all that follows it, shares its prefix with nobody.
    """
    rows, turns = np.arange(batch.num_turns), batch.turn_index
    result = np.full(batch.num_turns, NO_KEY, np.int64)
    after = 0
    for place in range(int(turns.max(initial=-1)) + 1):
        here = rows[turns == place]
        before = result[here - 1] if place else np.zeros(len(here), np.int64)
        own = np.where(key[here] == NO_KEY, NO_KEY - 1 - here, key[here])
        result[here] = after + number_pairs(before, own)
        after = int(result[here].max(initial=after)) + 1
    return result


def action_ids(batch: Batch) -> Ids:
    """Number equal actions, (S,): by their texts where the batch holds them, else by sampled tokens."""
    if len(batch.turn_details) == batch.num_turns:
        labels: list[object] = [detail.action for detail in batch.turn_details]
    else:
        drawn = batch.token[batch.sampled]
        bounds = zip(batch.sample_start[:-1], batch.sample_start[1:], strict=True)
        labels = [drawn[a:b].tobytes() for a, b in bounds]
    seen: dict[object, int] = {}
    return np.array([seen.setdefault(label, len(seen)) for label in labels], np.int64)
