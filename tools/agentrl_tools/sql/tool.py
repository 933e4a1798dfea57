"""The tools `sql` and `schema`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from agentrl.errors import EnvironmentFault
from agentrl.sandbox.postgres import PostgresGuard
from agentrl.sandbox.result import Status
from agentrl.sandbox.sqlite import SqliteGuard
from agentrl.world.tool import tool
from agentrl_tools.sql.schema import Table, read_schema, schema_text

if TYPE_CHECKING:
    from pathlib import Path

    from agentrl.sandbox.sql import QueryResult, SqlGuard, Value

MAX_CELL = 200


@dataclass(frozen=True)
class Sql:
    """Queries of a model on one database, SQLite or PostgreSQL, which stays what it is.

    Attributes:
        guard: runs the queries.
        tables: what `schema` shows.
        rows: shown of one result; the rest is counted.
        cell: characters shown of one value.
    """

    guard: SqlGuard
    tables: tuple[Table, ...] = ()
    rows: int = 20
    cell: int = MAX_CELL

    @classmethod
    def on(cls, database: str | Path, *, seconds: float = 5.0, rows: int = 20) -> Self:
        """Make the tools for a SQLite file, or for the URL of a PostgreSQL role that can only read.

        Raises:
            SandboxUnavailable: the role may do more than read; see `agentrl.sandbox.postgres.prepare_reader`.
            MissingExtraError: the packages of the extra `sql` are not installed.
        """
        if str(database).startswith(("postgresql", "postgres:")):
            address = str(database).replace("postgresql://", "postgresql+psycopg://", 1)
            return cls(PostgresGuard(address, seconds=seconds), read_schema(address), rows)
        guard = SqliteGuard(database, seconds=seconds)
        return cls(guard, read_schema(f"sqlite:///{guard.path}"), rows)

    @tool
    def schema(self) -> str:
        """Show every table with its columns, primary key and references."""
        return schema_text(self.tables) or "The database has no tables."

    @tool
    def sql(self, query: str) -> str:
        """Run one SQL query on the database, which is read-only, and show the first rows of its result.

        Args:
            query: one SELECT statement.
        """
        return table_text(checked(self.guard.query(query)), rows=self.rows, cell=self.cell)


def checked(result: QueryResult) -> QueryResult:
    """Return a result that is one.

    Raises:
        ValueError: the query failed or ran out of something; the words are for the model.
        EnvironmentFault: the guard failed, not the query.
    """
    if result.status is Status.INFRA_ERROR:
        raise EnvironmentFault(f"the database could not be asked: {result.message}")
    if result.status is not Status.OK:
        raise ValueError(result.message or str(result.status))
    return result


def table_text(result: QueryResult, *, rows: int = 20, cell: int = MAX_CELL) -> str:
    r"""Write a result as lines of values between bars, NULL as NULL.

    >>> from agentrl.sandbox.sql import QueryResult
    >>> print(
    ...     table_text(
    ...         QueryResult(Status.OK, ("id", "name"), ((1, "Ann"), (2, None), (3, "B")), True), rows=2
    ...     )
    ... )
    id | name
    1 | Ann
    2 | NULL
    (more than 3 rows, the first 2 are shown)
    """
    shown = [" | ".join(_cell(value, cell) for value in row) for row in result.rows[:rows]]
    count = len(result.rows)
    total = f"more than {count} rows" if result.cut else "1 row" if count == 1 else f"{count} rows"
    more = f", the first {len(shown)} are shown" if result.cut or count > len(shown) else ""
    return "\n".join([" | ".join(result.columns), *shown, f"({total}{more})"])


def _cell(value: Value, longest: int) -> str:
    if value is None:
        return "NULL"
    text = f"x'{value.hex()}'" if isinstance(value, bytes) else str(value)
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    text = " ".join(text.split("\n"))
    return text if len(text) <= longest else f"{text[:longest]}[{len(text) - longest} more characters]"
