"""When two results of SQL queries are the same: ours (`strict`), and the rules of Spider and of BIRD.

Rows are tuples of values as `QueryResult` has them. Nothing here executes SQL.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from agentrl.sandbox.sql import Row, Value


WHOLE = 1e-6


@dataclass(frozen=True)
class Group:
    """Rows of the gold result that an ORDER BY leaves in any order.

    Attributes:
        rows: all that tie, also those beyond a LIMIT.
        taken: how many of them the result has.
    """

    rows: tuple[Row, ...]
    taken: int


Groups: TypeAlias = tuple[Group, ...]


def in_any_order(rows: Sequence[Row]) -> Groups:
    """Return the groups of a result without order: one."""
    return (Group(tuple(rows), len(rows)),) if rows else ()


def in_this_order(rows: Sequence[Row]) -> Groups:
    """Return the groups of a result whose rows have one order each."""
    return tuple(Group((row,), 1) for row in rows)


def strict(gold: Groups, rows: Sequence[Row], tolerance: float = 1e-6) -> bool:
    """Compare bags of rows, group by group, column by column.

    Columns count by position, not by name; 1 is 1.0, "1" is not 1, NULL equals only NULL, NaN equals NaN, and
    case counts. Numbers are compared as `same_value` says.

    >>> strict(in_any_order([(1, "a"), (2, "b")]), [(2.0, "b"), (1, "a")])
    True
    >>> strict(in_this_order([(1, "a"), (2, "b")]), [(2, "b"), (1, "a")])
    False
    """
    if len(rows) != sum(group.taken for group in gold):
        return False
    start = 0
    for group in gold:
        if not _drawn(rows[start : start + group.taken], group.rows, tolerance):
            return False
        start += group.taken
    return True


def _drawn(rows: Sequence[Row], pool: Sequence[Row], tolerance: float) -> bool:
    """Say whether some of the pool's rows, each used once, are these rows."""
    left = Counter(map(_exact_key, pool))
    odd: list[Row] = []
    for row in rows:
        key = _exact_key(row)
        if left[key]:
            left[key] -= 1
        else:
            odd.append(row)
    if not odd:
        return True
    rest: list[Row] = []
    for row in pool:
        key = _exact_key(row)
        if left[key]:
            left[key] -= 1
            rest.append(row)
    return _matched(sorted(odd, key=_order), sorted(rest, key=_order), tolerance)


def _matched(odd: list[Row], rest: list[Row], tolerance: float) -> bool:
    """Pair near rows; both lists are sorted, so that near ones meet."""
    position = 0
    for row in odd:
        while position < len(rest) and not same_row(row, rest[position], tolerance):
            position += 1
        if position == len(rest):
            return False
        position += 1
    return True


def same_row(answer: Row, gold: Row, tolerance: float) -> bool:
    """Compare two rows, value by value."""
    return len(answer) == len(gold) and all(
        same_value(a, b, tolerance) for a, b in zip(answer, gold, strict=True)
    )


def same_value(answer: Value, gold: Value, tolerance: float) -> bool:
    """Compare two values as `strict` does.

    A decimal gold number may be missed by the relative tolerance. A whole one is met by itself, by the float
    nearest to it, or by one within 1e-6 of it (or the tolerance, where that is less): never by another whole
    number, however large both are.

    >>> same_value(0.1 + 0.2, Decimal("0.3"), 1e-6), same_value("1", 1, 1e-6), same_value(None, "", 1e-6)
    (True, False, False)
    >>> same_value(1378778341.0, 1378778040, 1e-6), same_value(1378778040.0, 1378778040, 1e-6)
    (False, True)
    """
    if not isinstance(answer, int | float | Decimal) or not isinstance(gold, int | float | Decimal):
        return type(answer) is type(gold) and answer == gold
    if _is_whole(answer) and _is_whole(gold):
        return answer == gold
    ours, theirs = _float(answer), _float(gold)
    if math.isnan(ours) or math.isnan(theirs):
        return math.isnan(ours) and math.isnan(theirs)
    if _is_whole(gold):
        return ours == theirs or abs(ours - theirs) <= min(tolerance, WHOLE)
    return ours == theirs or math.isclose(ours, theirs, rel_tol=tolerance, abs_tol=1e-12)


def _is_whole(number: float | Decimal) -> bool:
    """Say whether a number is whole by its type: an integer, or a decimal without places after the point."""
    if isinstance(number, Decimal):
        return number.is_finite() and number.as_tuple().exponent == 0
    return isinstance(number, int)


def _float(value: float | Decimal) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _exact_key(row: Row) -> Hashable:
    return tuple(_cell_key(value) for value in row)


def _cell_key(value: Value) -> Hashable:
    if isinstance(value, float | Decimal):
        return ("nan",) if math.isnan(value) else (0, value)
    return (0, value) if isinstance(value, int) else (type(value).__name__, value)


def _order(row: Row) -> tuple[list[tuple[str, str]], list[float]]:
    """Sort by what must be equal first, so that rows whose decimals are near stand side by side."""
    numbers = [value for value in row if isinstance(value, int | float | Decimal)]
    others = [
        (type(value).__name__, str(value)) for value in row if not isinstance(value, int | float | Decimal)
    ]
    return others, [math.inf if math.isnan(number) else number for number in map(_float, numbers)]


def bird(gold: Sequence[Row], rows: Sequence[Row]) -> bool:
    """BIRD's rule: equal sets of rows; duplicates and order do not count.

    >>> bird([(1,), (1,), (2,)], [(2,), (1,)])
    True
    """
    return set(gold) == set(rows)


def spider(gold: Sequence[Row], rows: Sequence[Row], *, ordered: bool) -> bool:
    """Spider's rule: equal bags, or equal lists where `ordered`, for some order of the columns.

    This is test-suite-sql-eval. Two empty results are equal whatever their columns are. Each row is first
    compared as sorted by the text of its values, so (1, 10.0) and (1.0, 10) differ although (1,) and (1.0,)
    do not.

    >>> spider([(1, "a"), (2, "b")], [("b", 2), ("a", 1)], ordered=False)
    True
    """
    if not gold and not rows:
        return True
    if len(gold) != len(rows) or len(gold[0]) != len(rows[0]):
        return False
    ours, theirs = [_unordered(row) for row in gold], [_unordered(row) for row in rows]
    if ours != theirs if ordered else set(ours) != set(theirs):
        return False
    return _permuted(gold, rows, ordered=ordered, chosen=())


def _unordered(row: Row) -> Row:
    return tuple(sorted(row, key=lambda value: f"{value!s}{type(value)}"))


def _permuted(gold: Sequence[Row], rows: Sequence[Row], *, ordered: bool, chosen: tuple[int, ...]) -> bool:
    """Extend an order of columns by one that fits, until all have their place."""
    width = len(chosen)
    if width and not _same([row[:width] for row in gold], [_picked(row, chosen) for row in rows], ordered):
        return False
    if width == len(gold[0]):
        return True
    tried: list[list[Value]] = []
    for column in range(len(gold[0])):
        values = [row[column] for row in rows]
        if column in chosen or values in tried:
            continue
        tried.append(values)
        if _permuted(gold, rows, ordered=ordered, chosen=(*chosen, column)):
            return True
    return False


def _picked(row: Row, chosen: tuple[int, ...]) -> Row:
    return tuple(row[column] for column in chosen)


def _same(first: list[Row], second: list[Row], ordered: bool) -> bool:
    return first == second if ordered else Counter(first) == Counter(second)
