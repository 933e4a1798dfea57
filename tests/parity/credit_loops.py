"""A second implementation of group-relative credit: plain Python loops over dictionaries, no arrays.

Written from the rules of verl-agent's `core_gigpo.py` and of the papers, one row at a time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One turn."""

    group: int
    trajectory: int
    key: int
    reward: float
    valid: bool = True


@dataclass(frozen=True)
class Rule:
    """How rows are compared."""

    ddof_std: bool = True
    per_turn: bool = False
    lone_raw: bool = False
    leave_one_out: bool = False
    eps: float = 1e-6


def returns(rows: list[Row], gamma: float) -> list[float]:
    """Discounted return of each row."""
    result = [0.0] * len(rows)
    after: dict[int, float] = defaultdict(float)
    for i in range(len(rows) - 1, -1, -1):
        after[rows[i].trajectory] = rows[i].reward + gamma * after[rows[i].trajectory]
        result[i] = after[rows[i].trajectory]
    return result


def totals(rows: list[Row]) -> list[float]:
    """Episode total of each row."""
    total: dict[int, float] = defaultdict(float)
    for row in rows:
        total[row.trajectory] += row.reward
    return [total[row.trajectory] for row in rows]


def less_invalid(rows: list[Row], figures: list[float], penalty: float) -> list[float]:
    """Lower the figures of refused rows, and of no other."""
    return [x if row.valid else x - penalty for row, x in zip(rows, figures, strict=True)]


def relative(rows: list[Row], figures: list[float], peers: list[object], rule: Rule) -> list[float]:
    """Compare each row with its peers; a row whose peer is None stands alone."""
    pools: dict[object, dict[object, float]] = defaultdict(dict)
    for i, row in enumerate(rows):
        if peers[i] is None:
            continue
        member: object = i if rule.per_turn else row.trajectory
        pools[peers[i]].setdefault(member, figures[i])
    result = []
    for i, row in enumerate(rows):
        pool = pools.get(peers[i], {}) if peers[i] is not None else {}
        if len(pool) <= 1:
            result.append(figures[i] if rule.lone_raw else 0.0)
            continue
        values = list(pool.values())
        mean = sum(values) / len(values)
        center = mean
        if rule.leave_one_out:
            mine: object = i if rule.per_turn else row.trajectory
            others = [value for member, value in pool.items() if member != mine]
            center = sum(others) / len(others)
        scale = 1.0
        if rule.ddof_std:
            scale = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) + rule.eps
        result.append((figures[i] - center) / scale)
    return result


def gigpo(
    rows: list[Row], *, gamma: float, weight: float, penalty: float, episode: Rule, step: Rule
) -> list[float]:
    """Episode credit plus weighted step credit; a negative key makes no anchor."""
    tasks: list[object] = [row.group for row in rows]
    anchors: list[object] = [None if row.key < 0 else (row.group, row.key) for row in rows]
    first = relative(rows, less_invalid(rows, totals(rows), penalty), tasks, episode)
    second = relative(rows, less_invalid(rows, returns(rows, gamma), penalty), anchors, step)
    return [a + weight * b for a, b in zip(first, second, strict=True)]
