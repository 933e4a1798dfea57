"""SQL of a model on PostgreSQL: a role whose grants are the boundary, and processes that end in time.

What holds, from the ground: the role owns nothing and may only SELECT and call functions that change nothing;
a query is one statement behind DECLARE CURSOR, which takes nothing but queries; each one has a session of its
own that is closed after it; the server's timeouts, then a cancel from a second connection, then the end of
the process.
"""

from __future__ import annotations

import hashlib
import secrets
from importlib.util import find_spec
from typing import TYPE_CHECKING, Self

from agentrl.errors import MissingExtraError, SandboxUnavailable
from agentrl.sandbox.result import Status, is_text
from agentrl.sandbox.sql import QueryResult, asked
from agentrl.sandbox.worker import WorkerDied, WorkerFailure, WorkerTimeout, shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import URL, Connection, Engine

    from agentrl.sandbox.worker import Workers

_TARGET = "agentrl.sandbox.postgres_worker:prepare"
# What a role that only reads must not call: functions that PostgreSQL calls volatile, because they may change
# something, except those that do not; those that run with the rights of another; and those that show what
# others ask.
_TOO_MUCH = """
(provolatile = 'v' OR prosecdef OR proname IN
  ('pg_stat_get_activity', 'pg_stat_get_backend_activity', 'pg_stat_get_backend_client_addr'))
AND NOT (pronamespace = 'pg_catalog'::regnamespace
  AND proname IN ('random', 'clock_timestamp', 'timeofday', 'gen_random_uuid'))
"""
_NOSY_VIEWS = (
    "pg_stat_activity",
    "pg_roles",
    "pg_user",
    "pg_group",
    "pg_database",
    "pg_settings",
    "pg_locks",
)
_FUNCTIONS = f"""
SELECT format('REVOKE EXECUTE ON ROUTINE %s FROM ', oid::regprocedure) FROM pg_proc WHERE {_TOO_MUCH}
"""  # noqa: S608  # no value of anybody's in it
_LANGUAGES = """
SELECT format('REVOKE USAGE ON LANGUAGE %I FROM ', lanname) FROM pg_language WHERE lanpltrusted AND lanname <>
'sql'
"""
# Everything here is decided by the server for the role that asks; one row for each thing that it may do too
# much.
_PROBLEMS = f"""
SELECT 'it is a superuser' WHERE current_setting('is_superuser') = 'on'
UNION ALL SELECT 'it may create temporary tables' WHERE has_database_privilege(current_database(), 'TEMP')
UNION ALL SELECT 'it may create schemas' WHERE has_database_privilege(current_database(), 'CREATE')
UNION ALL SELECT 'it may create in schema ' || nspname FROM pg_namespace WHERE has_schema_privilege(oid,
'CREATE') UNION ALL SELECT 'it may write to ' || oid::regclass FROM pg_class WHERE relkind IN ('r', 'p', 'v',
'f', 'm')
  AND (has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER, REFERENCES')
    OR has_any_column_privilege(oid, 'INSERT, UPDATE, REFERENCES'))
UNION ALL SELECT 'it may use the sequence ' || oid::regclass FROM pg_class
  WHERE CASE WHEN relkind = 'S' THEN has_sequence_privilege(oid, 'USAGE, UPDATE') ELSE false END
UNION ALL SELECT 'it may write programs in ' || lanname FROM pg_language
  WHERE lanpltrusted AND lanname <> 'sql' AND has_language_privilege(oid, 'USAGE')
UNION ALL SELECT 'it is a member of another role' FROM pg_auth_members
  WHERE pg_has_role(current_user, roleid, 'MEMBER') AND roleid <> current_user::regrole
UNION ALL (SELECT 'it may call ' || oid::regprocedure FROM pg_proc
  WHERE {_TOO_MUCH} AND has_function_privilege(oid, 'EXECUTE') ORDER BY oid DESC)
"""  # noqa: S608  # no value of anybody's in it


class PostgresGuard:
    """Runs queries that nobody trusts. A guard is a handle: a deep copy is the guard itself.

    Args:
        url: of SQLAlchemy, for a role that `prepare_reader` made, or one like it.
        seconds: that a query may take.
        max_rows: and max_bytes of one result.
        workers: processes that all guards like this one share, and so the most sessions at once.

    Raises:
        SandboxUnavailable: the role may do more than read; the message names what.
        MissingExtraError: SQLAlchemy or psycopg is not installed.
    """

    dialect = "postgresql"

    def __init__(
        self,
        url: str,
        *,
        seconds: float = 5.0,
        max_rows: int = 1000,
        max_bytes: int = 1 << 20,
        workers: int = 1,
    ) -> None:
        self._seconds = seconds
        self._address = _parsed(url).render_as_string(hide_password=False)
        settings = {"seconds": seconds, "max_rows": max_rows, "max_bytes": max_bytes}
        self._asks = (settings, workers)
        self.fingerprint = hashlib.sha256(self._address.encode()).hexdigest()
        self._check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    def query(self, sql: str) -> QueryResult:
        """Run one SELECT, VALUES or WITH, exactly as it is written; anything else is a syntax error."""
        if is_text(sql) and "\0" in sql:
            return QueryResult(Status.ERROR, message="a statement cannot hold the character 0")
        return asked(self._pool(), {"sql": sql, "url": self._address}, self._seconds)

    def close(self) -> None:
        """Close nothing: each query closed its session. `close_shared` of `worker` ends the processes."""

    def _pool(self) -> Workers:
        settings, workers = self._asks
        return shared(_TARGET, settings, size=workers)

    def _check(self) -> None:
        try:
            said = self._pool().call({"check": _PROBLEMS, "url": self._address}, 30)
        except (WorkerFailure, WorkerDied, WorkerTimeout) as error:
            raise SandboxUnavailable(f"The database did not answer: {str(error) or 'in time'}") from None
        problems = said["problems"]
        if isinstance(problems, list) and problems:
            shown = "; ".join(map(str, problems[:5]))
            more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
            raise SandboxUnavailable(
                f"The role of this URL may do more than read: {shown}{more}. "
                "Make one with agentrl.sandbox.postgres.prepare_reader(url_of_the_owner)."
            )


def prepare_reader(
    owner_url: str,
    *,
    role: str = "agentrl_reader",
    password: str = "",
    schemas: Sequence[str] = ("public",),
) -> str:
    """Make or mend a role that can only read some schemas of a database, and return its URL.

    The database is then one for agents: PUBLIC loses what the role must not have, such as functions that
    sleep, lock, notify, write or set, procedural languages, and temporary tables. Superusers and owners keep
    all of it.

    Args:
        owner_url: of a superuser; the role gets a limit on temporary files, which only they can set.
        password: drawn by chance if empty.

    Raises:
        sqlalchemy.exc.DBAPIError: the server refused.
    """
    secret = password or secrets.token_urlsafe(24)
    engine = engine_of(owner_url)
    with engine.begin() as connection:
        quoted = engine.dialect.identifier_preparer.quote_identifier
        _make_role(connection, role, quoted(role), secret)
        _take_from_public(connection, quoted(role))
        for schema in schemas:
            connection.exec_driver_sql(f"REVOKE CREATE ON SCHEMA {quoted(schema)} FROM PUBLIC")
            connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {quoted(role)}")
            connection.exec_driver_sql(
                f"GRANT SELECT ON ALL TABLES IN SCHEMA {quoted(schema)} TO {quoted(role)}"
            )
        database = quoted(str(engine.url.database))
        connection.exec_driver_sql(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
        connection.exec_driver_sql(f"GRANT CONNECT ON DATABASE {database} TO {quoted(role)}")
    return engine.url.set(username=role, password=secret).render_as_string(hide_password=False)


def engine_of(url: str) -> Engine:
    """Return an engine that keeps no session.

    Raises:
        MissingExtraError: SQLAlchemy or psycopg is not installed.
    """
    from sqlalchemy import NullPool, create_engine

    return create_engine(_parsed(url), poolclass=NullPool)


def _parsed(url: str) -> URL:
    try:
        from sqlalchemy import make_url
    except ImportError:
        raise MissingExtraError("PostgreSQL", "sql") from None
    if find_spec("psycopg") is None:
        raise MissingExtraError("PostgreSQL", "sql")
    parsed = make_url(url)
    return (
        parsed.set(drivername="postgresql+psycopg")
        if parsed.drivername in {"postgresql", "postgres"}
        else parsed
    )


def _make_role(connection: Connection, role: str, quoted: str, secret: str) -> None:
    known = connection.exec_driver_sql("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).first()
    rights = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS"
    literal = secret.replace("'", "''")
    verb = "ALTER" if known else "CREATE"
    connection.execution_options(no_parameters=True).exec_driver_sql(
        f"{verb} ROLE {quoted} {rights} PASSWORD '{literal}'"
    )
    for name, value in (("default_transaction_read_only", "on"), ("temp_file_limit", "'256MB'")):
        connection.exec_driver_sql(f"ALTER ROLE {quoted} SET {name} = {value}")


def _take_from_public(connection: Connection, quoted: str) -> None:
    plain = connection.execution_options(no_parameters=True)
    for taking in (_FUNCTIONS, _LANGUAGES):
        statements = [f"{row[0]} PUBLIC, {quoted}" for row in plain.exec_driver_sql(taking)]
        if statements:
            plain.exec_driver_sql("; ".join(statements))
    for view in _NOSY_VIEWS:
        plain.exec_driver_sql(f"REVOKE ALL ON pg_catalog.{view} FROM PUBLIC")
