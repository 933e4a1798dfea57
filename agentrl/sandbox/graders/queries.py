"""SQL against a gold query, which runs first, elsewhere, on a pristine snapshot; results are compared."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agentrl.errors import MissingExtraError
from agentrl.sandbox.graders import rows as rules
from agentrl.sandbox.result import Grade, Status, Verdict, no_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlglot.expressions import Expr

    from agentrl.sandbox.graders.rows import Groups
    from agentrl.sandbox.sql import QueryResult, Row, SqlGuard

MAX_CACHED = 4096
_MOVING = re.compile(
    r"\b(?:random|now|current_(?:date|time|timestamp)|localtime|clock_timestamp)\b", re.IGNORECASE
)
_THIS_YEAR = re.compile(r"\byear\s*\(\s*curdate\s*\(\s*\)\s*\)", re.IGNORECASE)
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|--[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class Gold:
    """What a gold query gave.

    Attributes:
        groups: its rows, in the groups that its ORDER BY leaves in any order.
        problem: why the task cannot be graded; empty if it can.
    """

    columns: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    groups: Groups = ()
    problem: str = ""


class Rule(Protocol):
    """When a result is right."""

    def prepared(self, sql: str) -> str:
        """Rewrite a query before it runs."""
        ...

    def __call__(self, gold: Gold, gold_sql: str, result: QueryResult) -> bool:
        """Compare a result with the gold one."""
        ...


@dataclass(frozen=True)
class Strict:
    """Bags of rows; in order where the gold query has an outermost ORDER BY, but ties may stand in any order.

    Attributes:
        tolerance: relative, for decimals, also for those that are sorted by; of whole numbers see
            `agentrl.sandbox.graders.rows.same_value`.
    """

    tolerance: float = 1e-6

    def prepared(self, sql: str) -> str:
        """Change nothing."""
        return sql

    def __call__(self, gold: Gold, gold_sql: str, result: QueryResult) -> bool:
        """Compare; two empty results also need equally many columns."""
        same_width = len(gold.columns) == len(result.columns)
        return same_width and rules.strict(gold.groups, result.rows, self.tolerance)


@dataclass(frozen=True)
class Spider:
    """The rule of Spider's test-suite evaluation, with its default of dropping DISTINCT from both queries."""

    keep_distinct: bool = False

    def prepared(self, sql: str) -> str:
        """Mend split operators, drop DISTINCT and stay in 2020, as the official evaluation does.

        >>> Spider().prepared("SELECT DISTINCT a FROM t WHERE b > = 'DISTINCT'")
        "SELECT  a FROM t WHERE b >= 'DISTINCT'"
        """
        sql = sql.replace("> =", ">=").replace("< =", "<=").replace("! =", "!=")
        sql = _THIS_YEAR.sub("2020", sql)
        return sql if self.keep_distinct else _outside_quotes(re.compile(r"\bdistinct\b", re.IGNORECASE), sql)

    def __call__(self, gold: Gold, gold_sql: str, result: QueryResult) -> bool:
        """Compare; order counts where "order by" stands anywhere in the gold query."""
        return rules.spider(gold.rows, result.rows, ordered="order by" in gold_sql.lower())


@dataclass(frozen=True)
class Bird:
    """BIRD's rule: equal sets of rows."""

    def prepared(self, sql: str) -> str:
        """Change nothing."""
        return sql

    def __call__(self, gold: Gold, gold_sql: str, result: QueryResult) -> bool:
        """Compare."""
        return rules.bird(gold.rows, result.rows)


RULES: dict[str, Rule] = {"strict": Strict(), "spider": Spider(), "bird": Bird()}


@dataclass(frozen=True)
class QueryGrader:
    """Grades SQL by what it gives.

    The gold result is taken once for each database and text, and kept. A gold query that fails, is cut, or
    does not end is an error of the data. An answer that the engine refuses is wrong, one that does not end is
    a timeout.

    Attributes:
        rule: when two results are the same.
    """

    rule: Rule = Strict()

    def __post_init__(self) -> None:
        rule: object = self.rule
        if not (callable(rule) and hasattr(rule, "prepared")):
            raise TypeError(f"rule of a grader must be Strict(), Spider() or Bird(); got {rule!r:.60}.")

    def __call__(self, answer: str, gold_sql: str, guard: SqlGuard, reference: SqlGuard) -> Grade:
        """Grade one query.

        Args:
            guard: runs the answer.
            reference: runs the gold query, in other processes and with limits that fit it.
        """
        if (odd := no_texts(answer, gold_sql)) is not None:
            return odd
        gold = self.gold(gold_sql, reference)
        if gold.problem:
            return Grade(Verdict.GRADER_ERROR, message=gold.problem)
        return self.compared(guard.query(self.rule.prepared(answer)), gold, gold_sql)

    def compared(self, result: QueryResult, gold: Gold, gold_sql: str) -> Grade:
        """Grade a result that is there already."""
        if result.status is Status.INFRA_ERROR:
            return Grade(Verdict.GRADER_ERROR, message=result.message)
        if result.status is Status.TIMEOUT:
            return Grade(Verdict.TIMEOUT, message=result.message)
        if result.status is not Status.OK:
            return Grade(Verdict.WRONG, message=result.message)
        if result.cut:
            return Grade(Verdict.WRONG, message="the result is larger than any that is compared")
        if self.rule(gold, gold_sql, result):
            return Grade(Verdict.CORRECT, 1.0)
        shape = f"{len(result.rows)} rows of {len(result.columns)} columns"
        return Grade(Verdict.WRONG, message=f"another result than the gold one ({shape})")

    def gold(self, sql: str, reference: SqlGuard) -> Gold:
        """Return what a gold query gives, from the cache if it is there."""
        key = (reference.fingerprint, reference.dialect, repr(self.rule), sql)
        known = _CACHE.get(key)
        if known is None:
            tolerance = float(getattr(self.rule, "tolerance", 0.0))  # a rule may have none
            known = _taken(self.rule.prepared(sql), reference, tolerance)
            if not known.problem:
                _CACHE.put(key, known)
        return known


class _Cache:
    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, ...], Gold] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, ...]) -> Gold | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def put(self, key: tuple[str, ...], gold: Gold) -> None:
        with self._lock:
            self._known[key] = gold
            while len(self._known) > MAX_CACHED:
                self._known.popitem(last=False)


_CACHE = _Cache()


def suspicious(sql: str, reference: SqlGuard) -> str:
    """Say why a gold query makes a bad task, or nothing: it fails, gives nothing, or is left to chance."""
    gold = _taken(sql, reference)
    if gold.problem:
        return gold.problem
    if not gold.rows:
        return "the gold result is empty: whatever gives nothing would be right"
    if _MOVING.search(_outside_quotes(None, sql)) or re.search(r"'now'", sql, re.IGNORECASE):
        return "the gold result depends on chance or on the day"
    if reference.query(sql).rows != gold.rows:
        return "the gold query gives another result each time"
    return ""


def _taken(sql: str, reference: SqlGuard, tolerance: float = 0.0) -> Gold:
    result = reference.query(sql)
    if result.status is not Status.OK:
        return Gold(problem=f"the gold query ended with {result.status}: {result.message}")
    if result.cut:
        return Gold(problem=f"the gold result is larger than {len(result.rows)} rows, the limit of its guard")
    return Gold(result.columns, result.rows, _groups(sql, result, reference, tolerance))


def _groups(sql: str, result: QueryResult, reference: SqlGuard, tolerance: float) -> Groups:
    """Find which rows the gold query leaves in any order, by asking for its sort keys too."""
    keyed = with_sort_keys(sql, reference.dialect)
    if keyed is None:
        return rules.in_any_order(result.rows)
    if not keyed:
        return rules.in_this_order(result.rows)
    width = len(result.columns)
    wider = reference.query(keyed)
    fits = wider.status is Status.OK and not wider.cut
    if not fits or [row[:width] for row in wider.rows[: len(result.rows)]] != list(result.rows):
        return rules.in_this_order(result.rows)
    return _tied(wider.rows, width, len(result.rows), tolerance)


def _tied(keyed: Sequence[Row], width: int, taken: int, tolerance: float) -> Groups:
    """Group rows whose keys are as near to those of the first as values may be: a sum's last bit is noise."""
    groups: list[rules.Group] = []
    start = 0
    while start < taken:
        end, first = start + 1, keyed[start][width:]
        while end < len(keyed) and rules.same_row(keyed[end][width:], first, tolerance):
            end += 1
        rows = tuple(row[:width] for row in keyed[start:end])
        groups.append(rules.Group(rows, min(end, taken) - start))
        start = end
    return tuple(groups)


def with_sort_keys(sql: str, dialect: str) -> str | None:
    """Add the keys of the outermost ORDER BY as columns and drop the LIMIT.

    Returns:
        None if the result has no order; an empty text if its keys cannot be added.

    Raises:
        MissingExtraError: sqlglot is not installed.

    >>> with_sort_keys("SELECT a FROM t ORDER BY b DESC LIMIT 3", "sqlite")
    'SELECT a, b FROM t ORDER BY b DESC'
    >>> with_sort_keys("SELECT a FROM (SELECT a FROM t ORDER BY b)", "sqlite") is None
    True
    """
    try:
        from sqlglot import exp, parse_one
        from sqlglot.errors import SqlglotError
    except ImportError:
        raise MissingExtraError("Comparing the order of SQL results", "sql") from None
    try:
        tree = parse_one(sql, dialect={"postgresql": "postgres"}.get(dialect, dialect))
    except (SqlglotError, RecursionError):
        return "" if "order by" in sql.lower() else None
    order = tree.args.get("order")
    if order is None:
        return None
    if not isinstance(tree, exp.Select) or tree.args.get("distinct") or tree.args.get("offset"):
        return ""
    keys = [_sort_key(tree.selects, item.this) for item in order.expressions]
    wider = tree.select(*keys, append=True)
    wider.set("limit", None)
    return wider.sql(dialect={"postgresql": "postgres"}.get(dialect, dialect))


def _sort_key(selects: Sequence[Expr], key: Expr) -> Expr:
    """Return what a key stands for: a position or an alias names a column of the result."""
    if key.is_int and 0 < int(key.name) <= len(selects):
        return selects[int(key.name) - 1].unalias().copy()
    for item in selects:
        if item.alias and item.alias == key.name and not key.args.get("table"):
            return item.unalias().copy()
    return key.copy()


def _outside_quotes(pattern: re.Pattern[str] | None, sql: str) -> str:
    """Delete a pattern outside of quotes and comments; without one, delete the quotes and comments."""
    parts: list[str] = []
    start = 0
    for match in _QUOTED.finditer(sql):
        parts += [pattern.sub("", sql[start : match.start()]) if pattern else sql[start : match.start()]]
        parts += [match.group()] if pattern else []
        start = match.end()
    rest = sql[start:]
    return "".join([*parts, pattern.sub("", rest) if pattern else rest])
