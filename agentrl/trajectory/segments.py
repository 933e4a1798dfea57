"""Arithmetic on offsets: the segments that `start` (K+1,) cuts out of an axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from agentrl.errors import BatchError
from agentrl.trajectory.columns import NO_KEY, Floats, Ints, Keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

Scalar = TypeVar("Scalar", bound=np.generic)


def keys_of(labels: Sequence[object] | NDArray[np.generic]) -> Keys:
    """Number hashable labels in order of first appearance; None becomes `NO_KEY`.

    >>> keys_of(["x", None, "y", "x"]).tolist()
    [0, -1, 1, 0]
    """
    seen: dict[object, int] = {}
    try:
        return np.array(
            [NO_KEY if label is None else seen.setdefault(label, len(seen)) for label in labels], np.int64
        )
    except TypeError as error:
        raise BatchError(
            f"labels must be a flat sequence of hashable values; {error}. Use tuples, not lists."
        ) from error


def dense(ids: NDArray[np.integer]) -> tuple[NDArray[np.int64], int]:
    """Number distinct ids from 0 in ascending order; return the numbers and how many there are.

    The same as `np.unique(ids, return_inverse=True)`, faster where ids are few or near each other.

    >>> numbers, count = dense(np.array([7, -1, 7, 2**62]))
    >>> numbers.tolist(), count
    ([1, 0, 1, 2], 3)
    """
    if not len(ids):
        return np.zeros(0, np.int64), 0
    low, high = int(np.minimum.reduce(ids)), int(np.maximum.reduce(ids))
    if high - low <= 8 * len(ids) + 1024:
        place = ids.astype(np.int64) - low
        found = np.zeros(high - low + 1, np.bool_)
        found[place] = True
        number = np.cumsum(found) - 1
        return number[place], int(number[-1]) + 1
    order = np.argsort(ids)
    line = ids[order]
    number = np.zeros(len(ids), np.int64)
    (line[1:] != line[:-1]).cumsum(out=number[1:])
    place = np.empty(len(ids), np.int64)
    place[order] = number
    return place, int(number[-1]) + 1


def narrow(ids: NDArray[np.integer]) -> tuple[NDArray[np.int64], int, int]:
    """Number ids from 0 in ascending order, cheaper than `dense`: the numbers may skip some.

    Returns:
        the numbers, a bound that all lie below, and the lowest id, 0 where there are none.

    >>> numbers, bound, lowest = narrow(np.array([7, -1, 7, 3]))
    >>> numbers.tolist(), bound, lowest
    ([8, 0, 8, 4], 9, -1)
    """
    if not len(ids):
        return np.zeros(0, np.int64), 0, 0
    low, high = int(np.minimum.reduce(ids)), int(np.maximum.reduce(ids))
    if high - low > 8 * len(ids) + 1024:
        return *dense(ids), low
    wide = ids.astype(np.int64, copy=False)
    return (wide - low if low else wide), high - low + 1, low


def expand(values: NDArray[Scalar], start: Ints) -> NDArray[Scalar]:
    """Repeat one value per segment over the segment's rows."""
    return np.repeat(values, np.diff(start))


def segment_sum(values: Floats, start: Ints) -> Floats:
    """Sum `values` over the segments that `start` (K+1,) delimits; an empty segment sums to 0.

    >>> segment_sum(np.array([1, 2, 3], np.float32), np.array([0, 2, 2, 3], np.int32)).tolist()
    [3.0, 0.0, 3.0]
    """
    owner = np.repeat(np.arange(len(start) - 1), np.diff(start))
    return np.bincount(owner, weights=values, minlength=len(start) - 1).astype(np.float32)


def offsets(counts: ArrayLike) -> Ints:
    """Return (K+1,) offsets of segments with the given (K,) sizes.

    >>> offsets([2, 0, 1]).tolist()
    [0, 2, 2, 3]
    """
    return np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))]).astype(np.int32)


def ranges(start: Ints, rows: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the concatenation of range(start[r], start[r + 1]) over the rows.

    >>> ranges(np.array([0, 2, 3], np.int32), np.array([1, 0])).tolist()
    [2, 0, 1]
    """
    counts = start[rows + 1] - start[rows]
    begin: NDArray[np.int64] = np.repeat((start[rows] - offsets(counts)[:-1]).astype(np.int64), counts)
    return np.arange(len(begin)) + begin


def renumber(parent: Ints, rows: NDArray[np.integer], size: int) -> Ints:
    """Return the parents of the selected rows as places in the selection; -1 for one outside it."""
    place: Ints = np.full(size + 1, -1, np.int32)
    place[rows] = np.arange(len(rows))
    return np.take(place, np.take(parent, rows))


def check_offsets(name: str, start: Ints, rows: int, last: int) -> None:
    """Raise `BatchError` unless `start` holds rows + 1 non-decreasing offsets from 0 to `last`."""
    fits = (
        start.shape == (rows + 1,)
        and start[0] == 0
        and start[-1] == last
        and bool((np.diff(start) >= 0).all())
    )
    if not fits:
        raise BatchError(
            f"{name!r} must hold {rows + 1} non-decreasing offsets from 0 to {last}; got shape {start.shape}"
            + (f" from {start[0]} to {start[-1]}." if start.size else ".")
        )


def check_sampled(sampled: NDArray[np.bool_], token_start: Ints, sample_start: Ints) -> None:
    """Raise `BatchError` unless every turn marks as many sampled tokens as it has log-probabilities."""
    marked = np.concatenate([[0], np.cumsum(sampled)])[token_start]
    if int(marked[-1]) != int(sample_start[-1]):
        raise BatchError(
            f"sampled marks {marked[-1]} tokens but logprob has {sample_start[-1]} entries; "
            "give one log-probability for each sampled token."
        )
    if not np.array_equal(marked, sample_start):
        turn = int(np.flatnonzero(marked != sample_start)[0]) - 1
        raise BatchError(
            f"turn {turn} marks other tokens as sampled than sample_start says; make them agree."
        )
