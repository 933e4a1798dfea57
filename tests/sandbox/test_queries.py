"""The edge cases of SQL execution match, numbered as in the list that they come from."""

from __future__ import annotations

import hashlib
import math
import random
import sqlite3
from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING, cast

import pytest

from agentrl.sandbox.graders import rows as rules
from agentrl.sandbox.graders.queries import (
    RULES,
    Bird,
    QueryGrader,
    Spider,
    Strict,
    suspicious,
    with_sort_keys,
)
from agentrl.sandbox.result import Status, Verdict
from agentrl.sandbox.sql import QueryResult
from agentrl.sandbox.sqlite import SqliteGuard
from agentrl.sandbox.worker import close_shared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("sqlglot", reason="sqlglot is not installed: pip install 'agentrl[sql]'")

SCHEMA = """
CREATE TABLE singer (id INTEGER, name TEXT, age INTEGER, fee REAL);
INSERT INTO singer VALUES (1, 'Ann', 30, 0.1), (2, 'Bob', 41, 0.2), (3, 'Cid', 30, 0.3), (4, NULL, 25, 0.3),
  (5, '', 25, NULL);
CREATE TABLE sale (land TEXT, price REAL);
INSERT INTO sale VALUES ('Italy', 1.0), ('Spain', 0.9999999999999999), ('Chile', 2.0), ('Peru', 0.5);
CREATE TABLE twin (a INTEGER, b INTEGER);
INSERT INTO twin VALUES (1, 2), (2, 1), (1, 1);
CREATE TABLE eight (a, b, c, d, e, f, g, h);
INSERT INTO eight VALUES (1, 2, 3, 4, 5, 6, 7, 8), (2, 3, 4, 5, 6, 7, 8, 1), (3, 4, 5, 6, 7, 8, 1, 2);
"""
STRICT, SPIDER, BIRD = QueryGrader(Strict()), QueryGrader(Spider()), QueryGrader(Bird())
MILLION = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 1000000) SELECT x FROM c"
FOREVER = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"
COMPUTED = "SELECT name FROM singer WHERE age = 25 + 5"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("queries") / "singers.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA)
    return path


@pytest.fixture(scope="module")
def guards(database: Path) -> Iterator[tuple[SqliteGuard, SqliteGuard]]:
    with (
        SqliteGuard(database, seconds=0.5) as guard,
        SqliteGuard(database, seconds=0.5, max_rows=2000) as reference,
    ):
        yield guard, reference
    close_shared()


Expected = tuple[str, str, str]
C, W = "correct", "wrong"
# name, answer, gold, (strict, spider, bird)
CASES: list[tuple[str, str, str, Expected]] = [
    ("1 both empty", "SELECT id FROM singer WHERE 0", "SELECT id FROM singer WHERE 1 = 2", (C, C, C)),
    ("2 empty, other columns", "SELECT 1, 2 WHERE 0", "SELECT id FROM singer WHERE 0", (W, C, C)),
    ("3 duplicates", "SELECT age FROM singer", "SELECT age FROM singer ORDER BY id", (C, C, C)),
    ("4 DISTINCT left out", "SELECT age FROM singer", "SELECT DISTINCT age FROM singer", (W, C, C)),
    (
        "5 order demanded",
        "SELECT id FROM singer ORDER BY id DESC",
        "SELECT id FROM singer ORDER BY id",
        (W, W, C),
    ),
    ("5 order not demanded", "SELECT id FROM singer ORDER BY id DESC", "SELECT id FROM singer", (C, C, C)),
    (
        "6 ties",
        "SELECT id FROM singer ORDER BY age, id DESC",
        "SELECT id FROM singer ORDER BY age, age",
        (C, W, C),
    ),
    (
        "6 ties, not across",
        "SELECT id FROM singer ORDER BY id",
        "SELECT id FROM singer ORDER BY age",
        (W, W, C),
    ),
    (
        "6 ties at a limit",
        "SELECT id FROM singer ORDER BY age, id DESC LIMIT 1",
        "SELECT id FROM singer ORDER BY age LIMIT 1",
        (C, W, W),
    ),
    (
        "6 ties, alias and position",
        "SELECT id, age AS years FROM singer ORDER BY 2, 1 DESC",
        "SELECT id, age AS years FROM singer ORDER BY years",
        (C, W, C),
    ),
    # Spain's sum is that of Italy less the last bit.
    (
        "6 ties but for the last bit",
        "SELECT land, round(sum(price), 2) FROM sale GROUP BY land ORDER BY 2 DESC, land DESC",
        "SELECT land, sum(price) FROM sale GROUP BY land ORDER BY sum(price) DESC",
        (C, W, W),
    ),
    (
        "6 ties but for the last bit, at a limit",
        "SELECT land FROM sale GROUP BY land ORDER BY round(sum(price), 2) DESC, land DESC LIMIT 2",
        "SELECT land FROM sale GROUP BY land ORDER BY sum(price) DESC LIMIT 2",
        (C, W, W),
    ),
    (
        "6 no ties",
        "SELECT land, sum(price) FROM sale GROUP BY land ORDER BY 2",
        "SELECT land, sum(price) FROM sale GROUP BY land ORDER BY sum(price) DESC",
        (W, W, C),
    ),
    (
        "7 ORDER BY in a subquery",
        "SELECT id FROM singer ORDER BY id DESC",
        "SELECT id FROM (SELECT id FROM singer ORDER BY id)",
        (C, W, C),
    ),
    (
        "7 ORDER BY in a CTE",
        "SELECT id FROM singer ORDER BY id DESC",
        "WITH s AS (SELECT id FROM singer ORDER BY id) SELECT id FROM s",
        (C, W, C),
    ),
    (
        "7 ORDER BY in a window",
        "SELECT row_number() OVER (ORDER BY id) FROM singer ORDER BY 1 DESC",
        "SELECT row_number() OVER (ORDER BY id) FROM singer",
        (C, W, C),
    ),
    (
        "7 ORDER BY in a text",
        "SELECT id, 'order by' FROM singer ORDER BY id DESC",
        "SELECT id, 'order by' FROM singer",
        (C, W, C),
    ),
    ("8 LIMIT without order", "SELECT id FROM singer LIMIT 2", "SELECT id FROM singer LIMIT 2", (C, C, C)),
    ("9 two columns swapped", "SELECT name, id FROM singer", "SELECT id, name FROM singer", (W, C, W)),
    ("9 three columns", "SELECT age, id, name FROM singer", "SELECT id, name, age FROM singer", (W, C, W)),
    (
        "9 eight columns",
        "SELECT h, g, f, e, d, c, b, a FROM eight",
        "SELECT a, b, c, d, e, f, g, h FROM eight",
        (W, C, W),
    ),
    ("10 the same column twice", "SELECT id, id FROM singer", "SELECT id, id AS i FROM singer", (C, C, C)),
    ("10 twice is not once", "SELECT id, id FROM singer", "SELECT id FROM singer", (W, W, W)),
    # As sets the columns of `twin` agree; the pairs of its rows do not.
    ("10 columns that look alike", "SELECT a, a FROM twin", "SELECT a, b FROM twin", (W, W, W)),
    ("11 1 and 1.0", "SELECT 1.0", "SELECT 1", (C, C, C)),
    ("11 1, 10.0 and 1.0, 10", "SELECT 1.0, 10", "SELECT 1, 10.0", (C, W, C)),
    ("12 decimals that are near", "SELECT 0.1 + 0.2", "SELECT 0.3", (C, W, W)),
    ("12 decimals that are not", "SELECT 0.3001", "SELECT 0.3", (W, W, W)),
    ("12 a whole number and the next", "SELECT 1378778041.0", "SELECT 1378778040", (W, W, W)),
    ("12 a whole number and a near one", "SELECT 3503.0001", "SELECT 3503", (W, W, W)),
    ("12 a whole number but for noise", "SELECT 3503.0000000001", "SELECT 3503", (C, W, W)),
    ("12 a decimal and a whole number", "SELECT 3503", "SELECT 3503.0000000001", (C, W, W)),
    ("12 a float as near as there is", "SELECT 9007199254740992.0", "SELECT 9007199254740993", (C, W, W)),
    ("13 infinity", "SELECT 1e999", "SELECT 9e999", (C, C, C)),
    ("13 not a number is NULL in SQLite", "SELECT 1e999 - 1e999", "SELECT NULL", (C, C, C)),
    ("14 NULL and ''", "SELECT ''", "SELECT NULL", (W, W, W)),
    ("15 rows of NULL", "SELECT NULL, NULL", "SELECT NULL, NULL", (C, C, C)),
    ("16 blob and text", "SELECT x'41'", "SELECT 'A'", (W, W, W)),
    ("17 no UTF-8", "SELECT cast(x'61ff' AS TEXT)", "SELECT cast(x'61fe' AS TEXT)", (W, W, W)),
    ("18 beyond 2**63", "SELECT 9223372036854775808", "SELECT 9223372036854775809", (C, C, C)),
    ("18 exact up to 2**63", "SELECT 9223372036854775806", "SELECT 9223372036854775807", (W, W, W)),
    ("19 '1' and 1", "SELECT '1'", "SELECT 1", (W, W, W)),
    ("20 dates are texts", "SELECT '2020-1-1'", "SELECT '2020-01-01'", (W, W, W)),
    ("21 case", "SELECT 'ann'", "SELECT 'Ann'", (W, W, W)),
    ("22 a semicolon", "SELECT 1;", "SELECT 1", (C, C, C)),
    ("23 only a comment", "-- SELECT 1", "SELECT id FROM singer WHERE 0", (W, W, W)),
    ("24 two statements", "SELECT 1; SELECT 1", "SELECT 1", (W, W, W)),
    ("25 EXPLAIN", f"EXPLAIN {COMPUTED}", COMPUTED, (W, W, W)),
    ("26 PRAGMA", "PRAGMA query_only = off", "SELECT 1 WHERE 0", (W, W, W)),
    ("27 a shadow", "CREATE TEMP TABLE singer (id, name, age)", COMPUTED, (W, W, W)),
    ("27 a view as shadow", "CREATE TEMP VIEW singer AS SELECT 1 AS name, 30 AS age", COMPUTED, (W, W, W)),
    ("28 DELETE", "DELETE FROM singer", COMPUTED, (W, W, W)),
    ("28 DELETE and nothing is right", "DELETE FROM singer", "SELECT id FROM singer WHERE 0", (W, W, W)),
    ("28 UPDATE", "UPDATE singer SET age = 0", COMPUTED, (W, W, W)),
    ("28 DROP", "DROP TABLE singer", "SELECT id FROM singer WHERE 0", (W, W, W)),
    ("28 ALTER", "ALTER TABLE singer RENAME TO s", COMPUTED, (W, W, W)),
    ("29 ATTACH", "ATTACH 'x.sqlite' AS x", COMPUTED, (W, W, W)),
    ("32 a million rows", MILLION, COMPUTED, (W, W, W)),
    ("33 a huge cell", "SELECT zeroblob(1000000000)", COMPUTED, (W, W, W)),
]


@pytest.mark.parametrize(
    ("answer", "gold", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_an_edge_case(
    answer: str, gold: str, expected: Expected, guards: tuple[SqliteGuard, SqliteGuard], database: Path
) -> None:
    before = hashlib.sha256(database.read_bytes()).hexdigest()

    found = tuple(grader(answer, gold, *guards).verdict.value for grader in (STRICT, SPIDER, BIRD))

    assert found == expected
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before
    assert STRICT(gold, gold, *guards).verdict is Verdict.CORRECT


@pytest.mark.parametrize(
    "answer",
    [FOREVER, "SELECT instr(printf('%.*c', 3000000, 'a'), printf('%.*c', 1500000, 'a') || 'b')"],
    ids=["30 no end", "31 one function without end"],
)
def test_an_answer_without_end_is_no_reward(answer: str, guards: tuple[SqliteGuard, SqliteGuard]) -> None:
    assert STRICT(answer, COMPUTED, *guards).reward is None
    assert STRICT(COMPUTED, COMPUTED, *guards).reward == 1.0


@pytest.mark.parametrize(
    ("gold", "words"),
    [
        ("SELECT nme FROM singer", "no such column"),
        ("DROP TABLE singer", "not authorized"),
        (FOREVER, "did not end"),
        (MILLION, "larger than 2000 rows"),
    ],
    ids=["34 fails", "34 writes", "35 no end on both sides", "a million"],
)
def test_a_bad_gold_is_an_error_of_the_data(
    gold: str, words: str, guards: tuple[SqliteGuard, SqliteGuard]
) -> None:
    grade = STRICT(gold, gold, *guards)

    assert (grade.verdict, grade.reward) == (Verdict.GRADER_ERROR, None)
    assert words in grade.message


def test_suspicious_golds_are_found(guards: tuple[SqliteGuard, SqliteGuard]) -> None:
    assert "empty" in suspicious("SELECT id FROM singer WHERE 0", guards[1])
    assert "day" in suspicious("SELECT date('now')", guards[1])
    assert "not authorized" in suspicious("SELECT random()", guards[1])
    assert suspicious("SELECT name FROM singer WHERE name = 'random now'", guards[1]) != ""
    assert suspicious(COMPUTED, guards[1]) == ""


class Counting:
    """A reference that counts, on a database that changes behind its back."""

    dialect = "sqlite"
    fingerprint = "one"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def query(self, sql: str) -> QueryResult:
        self.asked.append(sql)
        return QueryResult(Status.OK, ("a",), ((len(self.asked),),))


def test_the_gold_runs_first_once_and_elsewhere() -> None:
    reference, guard = Counting(), Counting()
    grader = QueryGrader(Strict(tolerance=0.0))

    verdicts = [grader("SELECT 2", "SELECT 1 -- once", guard, reference).verdict for _ in range(3)]

    assert reference.asked == ["SELECT 1 -- once"]
    assert guard.asked == ["SELECT 2"] * 3
    assert verdicts == ["correct", "wrong", "wrong"]


@pytest.mark.parametrize("rule", ["strict", "spider"])
def test_what_is_no_text_is_no_query(rule: str, guards: tuple[SqliteGuard, SqliteGuard]) -> None:
    grader = QueryGrader(RULES[rule])
    assert grader(cast("str", None), "SELECT 1", *guards).verdict is Verdict.UNPARSABLE
    assert grader("SELECT 1", cast("str", None), *guards).verdict is Verdict.GRADER_ERROR
    assert guards[0].query(cast("str", None)).status is Status.ERROR


@pytest.mark.parametrize("rule", [5, None, "strict"])
def test_a_rule_that_is_none_is_a_sentence(rule: object) -> None:
    with pytest.raises(TypeError, match=r"rule of a grader must be Strict\(\), Spider\(\) or Bird\(\); got"):
        QueryGrader(cast("Strict", rule))


def test_an_infrastructure_error_is_no_reward() -> None:
    broken = QueryResult(Status.INFRA_ERROR, message="no process")

    grade = STRICT.compared(broken, STRICT.gold("SELECT 1", Counting()), "SELECT 1")
    assert (grade.verdict, grade.reward) == (Verdict.GRADER_ERROR, None)


def test_keys_of_an_order() -> None:
    assert with_sort_keys("SELECT a, sum(b) AS s FROM t GROUP BY a ORDER BY s DESC LIMIT 2", "sqlite") == (
        "SELECT a, SUM(b) AS s, SUM(b) FROM t GROUP BY a ORDER BY s DESC"
    )
    for hard in (
        "SELECT DISTINCT a FROM t ORDER BY a",
        "SELECT 1 UNION SELECT 2 ORDER BY 1",
        "garbage order by (",
    ):
        assert with_sort_keys(hard, "sqlite") == ""
    assert with_sort_keys("garbage (", "sqlite") is None


def test_spider_lives_in_2020() -> None:
    assert Spider().prepared("SELECT YEAR( CurDate ())-age") == "SELECT 2020-age"
    assert Strict().prepared("SELECT YEAR(CURDATE())") == "SELECT YEAR(CURDATE())"


def test_near_decimals_are_paired_in_any_order() -> None:
    ours: list[tuple[float, str]] = [(1 + 1e-9 * number, f"n{number % 7}") for number in range(500)]
    theirs = [(value * (1 + 1e-8), word) for value, word in ours]
    random.Random(0).shuffle(theirs)

    assert rules.strict(rules.in_any_order(ours), theirs)
    assert not rules.strict(rules.in_any_order(ours), [*theirs[1:], (1.0, "n9")])


def test_decimals_without_places_are_whole_numbers() -> None:
    """As PostgreSQL sums whole numbers."""
    gold = Decimal(1378778040)

    assert rules.same_value(1378778040, gold, 1e-6)
    assert not rules.same_value(1378778041, gold, 1e-6)
    assert not rules.same_value(Decimal(1378778041), 1378778040, 1e-6)
    assert rules.same_value(Decimal("0.30"), Decimal("0.3000001"), 1e-6)
    assert rules.same_value(Decimal("NaN"), math.nan, 1e-6)


def test_many_equal_columns_do_not_explode() -> None:
    width = 30
    rows = [tuple((row + column) % 5 for column in range(width)) for row in range(20)]
    other = [(*row[:-1], row[-1] + 1) for row in rows]

    assert rules.spider(rows, [row[::-1] for row in rows], ordered=False)
    assert not rules.spider(rows, other, ordered=False)
