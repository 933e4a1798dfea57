from __future__ import annotations

import copy
import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from agentrl.sandbox.result import Status
from agentrl.sandbox.sqlite import SqliteGuard
from agentrl.sandbox.worker import close_shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ESCAPES = [
    "INSERT INTO singer VALUES (9, 'x', 1)",
    "DELETE FROM singer",
    "UPDATE singer SET age = 0",
    "DROP TABLE singer",
    "ALTER TABLE singer RENAME TO s",
    "CREATE TABLE t (a)",
    "CREATE TEMP TABLE singer (id, name, age)",
    "CREATE TEMP VIEW singer AS SELECT 1",
    "WITH x AS (SELECT 1) DELETE FROM singer",
    "PRAGMA query_only = off",
    "PRAGMA writable_schema = on",
    "PRAGMA mmap_size = 1000000",
    "PRAGMA temp_store_directory = '/tmp'",
    "PRAGMA trusted_schema = on",
    "ATTACH 'OTHER' AS other",
    "ATTACH 'FOLDER/new.sqlite' AS other",
    "VACUUM INTO 'FOLDER/copy.sqlite'",
    "VACUUM",
    "ANALYZE",
    "BEGIN EXCLUSIVE",
    "SAVEPOINT a",
    "SELECT load_extension('x')",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('FOLDER/w', 'x')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT zeroblob(2000000000)",
    "SELECT randomblob(2000000000)",
    "SELECT 1; DELETE FROM singer",
]
ENDLESS = [
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c",
    "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c a, c b",
    "SELECT instr(printf('%.*c', 3000000, 'a'), printf('%.*c', 1500000, 'a') || 'b')",
]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("database")
    for name in ("main.sqlite", "other.sqlite"):
        with closing(sqlite3.connect(folder / name)) as connection:
            connection.execute("CREATE TABLE singer (id INTEGER, name TEXT, age INTEGER)")
            connection.execute("INSERT INTO singer VALUES (1, 'Ann', 30), (2, NULL, 41)")
            connection.commit()
    return folder / "main.sqlite"


@pytest.fixture(scope="module")
def guard(database: Path) -> Iterator[SqliteGuard]:
    with SqliteGuard(database, seconds=0.5, max_rows=100) as made:
        yield made
    close_shared()


@pytest.mark.parametrize("sql", ESCAPES)
def test_an_escape_is_refused_and_harms_nothing(sql: str, guard: SqliteGuard, database: Path) -> None:
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    other = str(database.parent / "other.sqlite")

    result = guard.query(sql.replace("OTHER", other).replace("FOLDER", str(database.parent)))

    assert result.status in {Status.ERROR, Status.MEMORY, Status.TIMEOUT}, result
    assert result.rows == ()
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before
    assert sorted(path.name for path in database.parent.iterdir()) == ["main.sqlite", "other.sqlite"]
    assert guard.query("SELECT count(*) FROM singer").rows == ((2,),)


@pytest.mark.parametrize("sql", ENDLESS)
def test_a_query_without_end_is_ended(sql: str, guard: SqliteGuard) -> None:
    result = guard.query(sql)

    assert result.status is Status.TIMEOUT, result
    assert result.wall_seconds < 30
    assert guard.query("SELECT 1").rows == ((1,),)


def test_a_huge_value_is_never_made(guard: SqliteGuard) -> None:
    result = guard.query("SELECT printf('%.*c', 1000000000, 'x')")

    # SQLite builds it up to the limit of a value and gives NULL, unless its time is up before.
    assert result.status is Status.TIMEOUT or result.rows == ((None,),)


def test_rows_keep_their_types(guard: SqliteGuard) -> None:
    result = guard.query("SELECT id, name, x'00ff', 1.5 FROM singer -- ':x' stays text")

    assert result.columns[:2] == ("id", "name")
    assert result.rows == ((1, "Ann", b"\x00\xff", 1.5), (2, None, b"\x00\xff", 1.5))


def test_too_many_rows_are_cut_and_said_to_be(guard: SqliteGuard) -> None:
    result = guard.query(
        "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 1000) SELECT x FROM c"
    )

    assert result.cut
    assert len(result.rows) == 100


def test_the_schema_may_be_read(guard: SqliteGuard) -> None:
    assert [row[1] for row in guard.query("PRAGMA table_info(singer)").rows] == ["id", "name", "age"]
    assert guard.query("SELECT name FROM sqlite_master").rows == (("singer",),)


def test_an_error_is_the_words_of_the_engine(guard: SqliteGuard) -> None:
    assert "no such column: nme" in guard.query("SELECT nme FROM singer").message


def test_what_is_no_query_is_an_error(guard: SqliteGuard) -> None:
    for text in ("", ";", "-- nothing", "/* nothing */"):
        assert guard.query(text).status is Status.ERROR


def test_a_text_that_is_no_utf8_keeps_its_bytes(guard: SqliteGuard) -> None:
    result = guard.query("SELECT cast(x'61ff62' as text)")

    assert [str(item).encode("utf-8", "surrogateescape") for item in result.rows[0]] == [b"a\xffb"]


def test_guards_share_processes_and_keep_their_databases_apart(database: Path, guard: SqliteGuard) -> None:
    with SqliteGuard(database.parent / "other.sqlite", seconds=0.5, max_rows=100) as other:
        assert guard.query("SELECT count(*) FROM singer").rows == ((2,),)
        assert other.query("SELECT count(*) FROM singer").rows == ((2,),)
        assert other.query(f"ATTACH '{guard.path}' AS a").status is Status.ERROR
        assert copy.deepcopy(other) is other


@pytest.mark.parametrize(
    "given",
    [{"seconds": "a"}, {"seconds": 0}, {"seconds": -1}, {"max_rows": "x"}, {"max_rows": 0}, {"workers": 0}],
    ids=str,
)
def test_a_setting_that_is_none_is_a_sentence(given: dict[str, object], database: Path) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{next(iter(given))} of a .* must be .*; got"):
        cast("Callable[..., object]", SqliteGuard)(database, **given)


def test_what_is_no_path_is_no_database() -> None:
    with pytest.raises(TypeError, match="must be the path of a file; got None"):
        SqliteGuard(cast("str", None))


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("not a database, but long enough to look like one" * 20)

    with pytest.raises(sqlite3.DatabaseError):
        SqliteGuard(tmp_path / "text.sqlite")
    with pytest.raises(sqlite3.OperationalError):
        SqliteGuard(tmp_path / "missing.sqlite")
    for folder in (tmp_path, ""):
        for in_place in (False, True):
            with pytest.raises(sqlite3.OperationalError, match=f"'{folder}' is a folder; give the path"):
                SqliteGuard(folder, in_place=in_place)


def test_nothing_is_left_behind(database: Path) -> None:
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        guard = SqliteGuard(database)
        guard.close()
        assert not guard.path.exists()

    assert len(list(Path("/proc/self/fd").iterdir())) == open_files
