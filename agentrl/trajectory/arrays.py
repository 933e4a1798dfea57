"""Plain arrays and labels to the columns of a batch: what `Batch.from_arrays` reads."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from agentrl.errors import BatchError
from agentrl.trajectory.columns import AXES, DEFAULTS, NO_KEY, Ints, Keys, check_length, check_range
from agentrl.trajectory.segments import keys_of, offsets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from agentrl.trajectory.columns import Axis

_SAME_KEYS = (("observation_key", "final_observation_key"), ("state_key", "final_state_key"))
"""Columns whose labels mean the same things, so that they are numbered together."""


def columns_from(
    group: object, turns: object, reward: object, tokens: object, given: Mapping[str, object]
) -> dict[str, object]:
    """Return the columns of a batch by name; see `Batch.from_arrays`."""
    left = dict(given)
    labels, rewards = labels_of("group", group), _array("reward", reward, np.float32)
    counts = _counts("turns_per_trajectory", turns, len(labels), "trajectory")
    if counts.sum() != len(rewards):
        raise BatchError(
            f"turns_per_trajectory counts {counts.sum()} turns but reward has {len(rewards)} entries; "
            "give one reward for each turn."
        )
    per_turn = _counts("tokens_per_turn", [1] * len(rewards) if tokens is None else tokens, len(rewards),
                       "turn")  # fmt: skip
    start = {
        name: _array(name, left.pop(name, offsets(per_turn)), np.int32)
        for name in ("token_start", "sample_start")
    }
    last = {name: int(entries[-1]) if entries.size else 0 for name, entries in start.items()}
    sizes: dict[Axis, int] = {
        "E": len(labels), "S": len(rewards), "T": last["token_start"], "N": last["sample_start"],
    }  # fmt: skip
    values = {"group": _numbered(labels), "turn_start": offsets(counts), "reward": rewards, **start}
    for names in _SAME_KEYS:
        values |= _keys({name: left.pop(name) for name in names if left.get(name) is not None})
    for name, (default, kind) in DEFAULTS.items():
        if name not in values:
            values[name] = _column(name, left.pop(name, None), default, kind, sizes[AXES[name]])
        left.pop(name, None)
        check_length(name, values[name], sizes[AXES[name]])
    _check_branches(values, counts)
    return {**values, **left}


def labels_of(name: str, given: object) -> list[object]:
    """Return labels as Python objects, so that 1 and "1" differ and tuples stay tuples.

    Raises:
        BatchError: they are not a flat sequence, or one is not hashable.

    >>> labels_of("group", [1, "1", ("t", 1), np.int64(2)])
    [1, '1', ('t', 1), 2]
    """
    whole = np.asarray(given) if hasattr(given, "__array__") else None
    if (
        isinstance(given, str | bytes)
        or not isinstance(given, Iterable)
        or (whole is not None and whole.ndim != 1)
    ):
        raise BatchError(
            f"column {name!r} must be a flat sequence of labels; got "
            + (f"shape {whole.shape}." if whole is not None else f"{given!r}.")
            + " Give one label per row, tuples where a label has parts."
        )
    entries: Iterable[object] = given if whole is None else whole.tolist()
    labels = [np.asarray(entry).tolist() if hasattr(entry, "__array__") else entry for entry in entries]
    try:
        for label in labels:
            hash(label)
    except TypeError as error:
        raise BatchError(
            f"column {name!r} must hold hashable labels; {error}. Use tuples, not lists."
        ) from error
    return labels


def _numbered(labels: list[object]) -> Ints:
    """(E,) group numbers."""
    for row, label in enumerate(labels):
        if _missing(label):
            raise BatchError(
                f"trajectory {row} has group {label}, which is no label; a trajectory that is compared with "
                "no other has a label of its own."
            )
    return keys_of(labels).astype(np.int32)


def _keys(given: Mapping[str, object]) -> dict[str, Keys]:
    """Number the labels of several columns together."""
    columns = {name: labels_of(name, labels) for name, labels in given.items()}
    numbers = keys_of(
        [None if _no_anchor(label) else label for labels in columns.values() for label in labels]
    )
    ends = np.cumsum([len(labels) for labels in columns.values()])
    return dict(zip(columns, np.split(numbers, ends[:-1]), strict=True)) if columns else {}


def _missing(label: object) -> bool:
    return label is None or (isinstance(label, float) and math.isnan(label))


def _no_anchor(label: object) -> bool:
    return _missing(label) or (isinstance(label, int | float) and label == NO_KEY)


def _counts(name: str, given: object, rows: int, row: str) -> Ints:
    """(K,) counts, one for each row and none negative."""
    counts = _array(name, given, np.int32).astype(np.int32, copy=False)
    if len(counts) != rows or counts.min(initial=0) < 0:
        raise BatchError(
            f"{name} has {len(counts)} entries, the smallest {counts.min(initial=0)}; expected a count of 0 "
            f"or more for each {row}, {rows} of them."
        )
    return counts


def _column(
    name: str, given: object, default: object, kind: type[np.generic], size: int
) -> NDArray[np.generic]:
    if given is None:
        return np.full(size, default, dtype=kind if kind is not np.str_ else "U16")
    return _array(name, given, kind)


def _array(name: str, given: object, kind: type[np.generic]) -> NDArray[np.generic]:
    try:
        raw = np.asarray(given)
        with np.errstate(over="ignore", invalid="ignore"):
            values = raw if kind is np.str_ else raw.astype(kind, copy=False)
    except (TypeError, ValueError, OverflowError) as error:
        raise BatchError(
            f"column {name!r} must be a flat array of {kind.__name__} values; {error}."
        ) from error
    if values.ndim != 1:
        raise BatchError(
            f"column {name!r} has shape {values.shape}; expected one axis. Give one entry per row."
        )
    if issubclass(kind, np.integer) and raw.dtype.kind in "fiu" and not np.array_equal(values, raw):
        place = int(np.argmax(values != raw))
        raise BatchError(
            f"column {name!r} has {raw[place]} at entry {place}; expected whole numbers that fit "
            f"{kind.__name__}."
        )
    return values


def _check_branches(values: Mapping[str, NDArray[np.generic]], turns: Ints) -> None:
    """Raise `BatchError` unless every parent is of the same group, lines end, and forks lie in both."""
    group, parent, branch_turn = (
        np.asarray(values[name], np.int64) for name in ("group", "parent", "branch_turn")
    )
    check_range("parent", parent, -1, len(group))
    row = np.flatnonzero(parent >= 0)
    above, at = parent[row], branch_turn[row]
    for child in row[group[row] != group[above]]:
        raise BatchError(
            f"trajectory {child} has its parent, {parent[child]}, in another group; branches share "
            "a task, so give both one group, or -1 for no parent."
        )
    line = parent
    for _ in range(len(group).bit_length()):
        line = np.where(line >= 0, line[line], -1)  # twice as far up each time
    for child in np.flatnonzero(line >= 0):
        raise BatchError(
            f"the parents of trajectory {child} run in a circle; the first of a line of branches has "
            "parent -1, none."
        )
    longest = np.minimum(turns[row], turns[above])
    for place in np.flatnonzero((at < 0) | (at > longest)):
        raise BatchError(
            f"trajectory {row[place]} leaves its parent, {above[place]}, at branch_turn {at[place]}; "
            f"expected the number of turns that both share, 0 to {longest[place]}."
        )
