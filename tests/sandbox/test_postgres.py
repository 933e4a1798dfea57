from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from agentrl.errors import SandboxUnavailable
from agentrl.sandbox.graders.queries import QueryGrader
from agentrl.sandbox.postgres import PostgresGuard, engine_of, prepare_reader
from agentrl.sandbox.postgres_server import PostgresServer, find_binaries
from agentrl.sandbox.result import Status, Verdict
from agentrl.sandbox.worker import close_shared

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'agentrl[sql]'")

SCHEMA = """
CREATE TABLE singer (id serial PRIMARY KEY, name text, age int);
INSERT INTO singer (name, age) SELECT 'n' || i, i % 50 FROM generate_series(1, 1000) AS i;
CREATE TABLE secret (word text);
INSERT INTO secret VALUES ('TOPSECRET');
CREATE FUNCTION evil() RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER
  AS 'WITH gone AS (DELETE FROM singer RETURNING 1) SELECT count(*) FROM gone';
CREATE FUNCTION peek() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER AS 'SELECT word FROM secret';
"""
# Each of these changes something, reads what it must not, waits, or outlives its session.
ESCAPES = [
    "INSERT INTO singer (name) VALUES ('x')",
    "UPDATE singer SET age = 0",
    "DELETE FROM singer",
    "TRUNCATE singer",
    "DROP TABLE singer",
    "ALTER TABLE singer RENAME TO s",
    "WITH gone AS (DELETE FROM singer RETURNING *) SELECT * FROM gone",
    "SELECT * FROM singer FOR UPDATE",
    "SELECT evil()",
    "SELECT peek()",
    "SELECT * FROM secret",
    "CREATE TABLE t (a int)",
    "CREATE TEMP TABLE singer (id int)",
    "CREATE TEMP VIEW singer AS SELECT 1",
    "SELECT * INTO t FROM singer",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA s",
    "CREATE EXTENSION dblink",
    "DO $$ BEGIN PERFORM pg_sleep(3); END $$",
    "SELECT pg_sleep(3)",
    "SELECT pg_sleep_for('3 seconds')",
    "SELECT set_config('statement_timeout', '0', false)",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock(1)",
    "SELECT pg_notify('a', 'b')",
    "SELECT nextval('singer_id_seq')",
    "SELECT setval('singer_id_seq', 1)",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('/')",
    "SELECT pg_stat_file('/etc/passwd')",
    "SELECT pg_terminate_backend(1)",
    "SELECT pg_cancel_backend(1)",
    "SELECT pg_reload_conf()",
    "SELECT pg_logical_emit_message(false, 'a', 'b')",
    "SELECT query_to_xml('SELECT set_config(''statement_timeout'', ''0'', false)', true, true, '')",
    "SELECT * FROM ts_stat('SELECT to_tsvector(word) FROM secret')",
    "SELECT * FROM pg_shadow",
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_stat_activity",
    "SELECT * FROM pg_stat_get_activity(NULL)",
    "SELECT * FROM pg_database",
    "SELECT * FROM pg_roles",
    "COPY singer TO PROGRAM 'true'",
    "COPY singer TO '/tmp/agentrl-copied'",
    "COPY singer FROM '/etc/passwd'",
    "SET ROLE owner",
    "SET SESSION AUTHORIZATION owner",
    "BEGIN; LOCK TABLE singer",
    "GRANT SELECT ON secret TO PUBLIC",
    "ALTER ROLE agentrl_reader SUPERUSER",
    "ALTER SYSTEM SET work_mem = '1GB'",
]
# What the role may do in a session of its own and the guard does not let through.
ONLY_GUARDED = [
    "SET statement_timeout = 0",
    "ANALYZE singer",
    "VACUUM",
    "BEGIN READ WRITE",
    "PREPARE p AS SELECT 1",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "LISTEN a",
    "SHOW data_directory",
    "SELECT 1; SELECT 2",
    "SELECT 1; SET statement_timeout = 0; SELECT count(*) FROM generate_series(1, 10000000000)",
    "EXPLAIN ANALYZE SELECT 1",
]
ENDLESS = [
    "SELECT count(*) FROM generate_series(1, 100000000000)",
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT 1 FROM c) SELECT count(*) FROM c",
    "SELECT count(*) FROM singer a, singer b, singer c, singer d",
    "SELECT regexp_replace(repeat('a', 30) || 'b', '((a*)*)*c', '') FROM generate_series(1, 100000000)",
]
STATE = """
SELECT md5(string_agg(singer::text, ',' ORDER BY id)) FROM singer
UNION ALL SELECT word FROM secret
UNION ALL SELECT 'relations ' || count(*) FROM pg_class
UNION ALL SELECT 'functions ' || count(*) FROM pg_proc
UNION ALL SELECT 'large objects ' || count(*) FROM pg_largeobject_metadata
UNION ALL SELECT 'schemas ' || count(*) FROM pg_namespace
UNION ALL SELECT 'roles ' || string_agg(rolname || rolsuper, ',' ORDER BY rolname) FROM pg_roles
UNION ALL SELECT 'advisory locks ' || count(*) FROM pg_locks WHERE locktype = 'advisory'
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    if find_binaries() is None:
        pytest.skip("there is no PostgreSQL on this machine: apt-get install postgresql")
    with PostgresServer() as made:
        yield made
        close_shared()


@pytest.fixture(scope="module")
def reader(server: PostgresServer) -> str:
    with engine_of(server.url()).begin() as connection:
        connection.execution_options(no_parameters=True).exec_driver_sql(SCHEMA)
    url = prepare_reader(server.url())
    with engine_of(server.url()).begin() as connection:
        connection.exec_driver_sql("REVOKE ALL ON secret FROM agentrl_reader")
    return url


@pytest.fixture(scope="module")
def guard(reader: str) -> PostgresGuard:
    return PostgresGuard(reader, seconds=0.5, max_rows=100, workers=2)


@pytest.fixture(autouse=True)
def _unharmed(server: PostgresServer, reader: str) -> Iterator[None]:
    before = _state(server)
    yield
    assert _state(server) == before
    assert _sessions(server) == 0


def _state(server: PostgresServer) -> list[str]:
    with engine_of(server.url()).connect() as connection:
        return [str(row[0]) for row in connection.exec_driver_sql(STATE)]


def _sessions(server: PostgresServer) -> int:
    """Count the reader's sessions; one that was just closed may take a moment to go."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'agentrl_reader'"
    count = 0
    for _ in range(100):
        with engine_of(server.url()).connect() as connection:
            count = int(connection.exec_driver_sql(asked).scalar_one())
        if not count:
            break
        time.sleep(0.05)
    return count


@pytest.mark.parametrize("sql", [*ESCAPES, *ONLY_GUARDED])
def test_an_escape_is_refused(sql: str, guard: PostgresGuard) -> None:
    result = guard.query(sql)

    assert result.status is Status.ERROR, result
    assert result.rows == ()
    assert not os.path.exists("/tmp/agentrl-copied")  # noqa: PTH110  # a path of the server


@pytest.mark.parametrize("sql", ESCAPES)
def test_the_grants_alone_refuse_it(sql: str, reader: str) -> None:
    """The same in a session that the attacker owns: read-write, without timeouts, and with any statement."""
    from sqlalchemy.exc import DBAPIError

    with engine_of(reader).connect() as connection:
        plain = connection.execution_options(no_parameters=True, isolation_level="AUTOCOMMIT")
        plain.exec_driver_sql("SET statement_timeout = 0; SET default_transaction_read_only = off")
        with pytest.raises(DBAPIError) as refused:
            plain.exec_driver_sql(sql).all()

    assert refused.value.orig is not None
    assert "permission denied" in str(refused.value) or "must be" in str(refused.value), refused.value


def test_an_ordinary_role_is_no_boundary(server: PostgresServer) -> None:
    """What the table is worth: these hurt with a role that is merely read-only by default."""
    owner = engine_of(server.url()).execution_options(isolation_level="AUTOCOMMIT")
    with owner.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE soft")
    try:
        with engine_of(server.url("soft")).begin() as connection:
            connection.execution_options(no_parameters=True).exec_driver_sql(SCHEMA)
            connection.exec_driver_sql("CREATE ROLE soft LOGIN PASSWORD 'soft'")
            connection.exec_driver_sql("ALTER ROLE soft SET default_transaction_read_only = on")
            connection.exec_driver_sql("GRANT SELECT ON singer TO soft")
        soft = server.url("soft", "soft", "soft")
        with pytest.raises(SandboxUnavailable, match="it may create temporary tables"):
            PostgresGuard(soft)
        with engine_of(soft).connect() as connection:
            plain = connection.execution_options(no_parameters=True)
            plain.exec_driver_sql("SET transaction_read_only = off")
            assert plain.exec_driver_sql("SELECT evil()").scalar_one() == 1000
            assert plain.exec_driver_sql("SELECT peek()").scalar_one() == "TOPSECRET"
            assert plain.exec_driver_sql("SELECT lo_create(0)").scalar_one() > 0
            assert plain.exec_driver_sql("SELECT pg_advisory_lock(1)").scalar_one() is not None
            connection.rollback()
    finally:
        with owner.connect() as connection:
            connection.exec_driver_sql("DROP DATABASE soft WITH (FORCE)")
            connection.exec_driver_sql("DROP ROLE soft")


@pytest.mark.parametrize("sql", ENDLESS)
def test_a_query_without_end_is_ended(sql: str, guard: PostgresGuard) -> None:
    result = guard.query(sql)

    assert result.status is Status.TIMEOUT, result
    assert guard.query("SELECT 1").rows == ((1,),)


def test_the_time_of_a_query_is_not_that_of_the_look_at_its_role(reader: str) -> None:
    hasty = PostgresGuard(reader, seconds=0.001)

    assert hasty.query("SELECT count(*) FROM generate_series(1, 10000000)").status is Status.TIMEOUT


def test_the_client_cancels_where_the_server_does_not(reader: str, server: PostgresServer) -> None:
    """Rows that trickle: each fetch is a statement of its own, and none of them is late."""
    slow = "SELECT (SELECT count(*) FROM generate_series(1, 300000 + i)) FROM generate_series(1, 100000) AS i"
    began = time.monotonic()

    result = PostgresGuard(reader, seconds=1.0, max_rows=1_000_000).query(slow)

    assert result.status is Status.TIMEOUT
    assert time.monotonic() - began < 120  # to its end it would take half an hour


def test_a_huge_value_stays_outside(guard: PostgresGuard) -> None:
    for sql in ("SELECT repeat('x', 1000000000)", "SELECT string_agg(repeat('x', 1000000), '') FROM singer"):
        result = guard.query(sql)
        assert result.status in {Status.TIMEOUT, Status.MEMORY} or result.cut, result.message


def test_values_keep_their_types(guard: PostgresGuard) -> None:
    result = guard.query(
        "SELECT 1, 1.50::numeric, 0.5::float8, true, NULL, '\\x00ff'::bytea, date '2020-01-31', "
        "'{\"a\": [1]}'::json, 'NaN'::float8 -- :x and %s stay text"
    )

    assert [str(value) for value in result.rows[0]] == [
        *("1", "1.50", "0.5", "True", "None", "b'\\x00\\xff'", "2020-01-31", '{"a": [1]}', "nan")
    ]
    assert guard.query("SELECT count(*) FROM singer WHERE name LIKE '%n1:%' OR '%s' = ':x'").rows == ((0,),)


def test_what_python_cannot_hold_comes_as_the_server_writes_it(guard: PostgresGuard) -> None:
    result = guard.query(
        "SELECT 'infinity'::timestamp, '99999-01-01'::date, '{-infinity}'::timestamptz[], '3 years'::interval"
    )

    assert result.rows == (("infinity", "99999-01-01", '["-infinity"]', "3 years"),), result.message


def test_a_value_that_nobody_gives_is_the_fault_of_the_query(guard: PostgresGuard) -> None:
    assert guard.query("SELECT $1").status is Status.ERROR
    assert guard.query("SELECT '\\x00'::bytea::text::json").status is Status.ERROR
    assert guard.query(cast("str", None)).status is Status.ERROR


def test_a_host_that_is_killed_leaves_no_server(server: PostgresServer) -> None:
    code = "import os; from agentrl.sandbox.postgres_server import PostgresServer as S; s = S()"
    ended = f"{code}; print(s.folder, flush=True); os.kill(os.getpid(), 9)"
    said = subprocess.run([sys.executable, "-c", ended], capture_output=True, check=False, text=True)
    folder = Path(said.stdout.strip())

    deadline = time.monotonic() + 20
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert folder.parent == server.folder.parent
    assert not folder.exists()


def test_many_rows_are_cut_without_being_sent(guard: PostgresGuard) -> None:
    result = guard.query("SELECT i FROM generate_series(1, 100000000) AS i, singer LIMIT 100000000")

    assert (result.cut or result.status is Status.TIMEOUT) is True
    cut = guard.query("SELECT id FROM singer")
    assert (cut.cut, len(cut.rows)) == (True, 100)


def test_the_words_of_the_engine_reach_the_model(guard: PostgresGuard) -> None:
    assert 'column "nme" does not exist' in guard.query("SELECT nme FROM singer").message
    assert guard.query("SELECT 1\0").status is Status.ERROR
    assert guard.query("x" * 100_001).status is Status.ERROR


def test_the_schema_may_be_read(guard: PostgresGuard) -> None:
    columns = guard.query("SELECT column_name FROM information_schema.columns WHERE table_name = 'singer'")

    assert sorted(str(row[0]) for row in columns.rows) == ["age", "id", "name"]


def test_sessions_do_not_wait_for_each_other(guard: PostgresGuard) -> None:
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(guard.query, [ENDLESS[0], "SELECT 1", "SELECT 2", ENDLESS[0]]))

    assert [result.status for result in results] == ["timeout", "ok", "ok", "timeout"]


def test_a_grader_takes_its_gold_from_another_process(guard: PostgresGuard, reader: str) -> None:
    reference = PostgresGuard(reader, seconds=2, max_rows=10_000)
    gold = "SELECT age, count(*) FROM singer GROUP BY age ORDER BY count(*) DESC"
    grade = QueryGrader()

    # Every age counts 20, so any order is right.
    assert (
        grade("SELECT age, count(*) FROM singer GROUP BY 1 ORDER BY 1", gold, guard, reference).reward == 1.0
    )
    assert grade("SELECT age, count(*) + 1 FROM singer GROUP BY 1", gold, guard, reference).reward == 0.0
    assert grade("DELETE FROM singer", gold, guard, reference).reward == 0.0
    assert grade(gold, "SELECT nme FROM singer", guard, reference).verdict is Verdict.GRADER_ERROR


def test_a_role_that_may_write_is_refused(server: PostgresServer) -> None:
    with pytest.raises(SandboxUnavailable, match="it is a superuser"):
        PostgresGuard(server.url())


def test_a_server_that_does_not_answer_is_named(tmp_path: os.PathLike[str]) -> None:
    with pytest.raises(SandboxUnavailable, match="did not answer"):
        PostgresGuard(f"postgresql://nobody@/nothing?host={tmp_path}")


def test_a_server_leaves_nothing_behind() -> None:
    with PostgresServer() as other:
        folder = other.folder
        pid = int((folder / "data" / "postmaster.pid").read_text().split("\n")[0])
        os.kill(pid, 0)

    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
