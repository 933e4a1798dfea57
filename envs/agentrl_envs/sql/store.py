"""Databases that are there when they are asked for: made once, kept by the hash of their recipe."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import threading
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from agentrl.errors import SandboxUnavailable
from agentrl.sandbox.postgres import PostgresGuard, engine_of, prepare_reader
from agentrl.sandbox.postgres_server import PostgresServer
from agentrl.sandbox.sqlite import SqliteGuard
from agentrl_envs.sql.generate import VERSION, Question, Recipe, build, columns_of, index_of, table_of
from agentrl_tools.sql import Sql, read_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg import Connection

    from agentrl.sandbox.sql import SqlGuard

MAX_ROWS = 10_000
MAX_BYTES = 8 << 20
MAX_KNOWN = 64
_READER = "agentrl_reader"


@dataclass(frozen=True)
class Opened:
    """A database that queries may be asked of.

    Attributes:
        tools: for the agent; reference: for gold queries, in other processes and with twice the time.
    """

    tools: Sql
    reference: SqlGuard


def default_folder() -> Path:
    """Return where generated databases are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "agentrl" / "sql"


def generated(recipe: Recipe, folder: Path) -> tuple[Path, list[Question]]:
    """Return the file of a recipe and its questions; made where it is new."""
    key = json.dumps([VERSION, asdict(recipe)], sort_keys=True)
    name = f"{recipe.domain.name}-{hashlib.sha256(key.encode()).hexdigest()[:20]}"
    path, notes = folder / f"{name}.sqlite", folder / f"{name}.json"
    if not notes.exists():
        folder.mkdir(parents=True, exist_ok=True)
        mine = folder / f"{name}.{os.getpid()}-{threading.get_ident()}.part"
        try:
            questions = build(recipe, mine)
            mine.replace(path)
            mine.write_text(json.dumps([asdict(question) for question in questions]), encoding="utf-8")
            mine.replace(notes)
        finally:
            mine.unlink(missing_ok=True)
    return path, [Question(**item) for item in json.loads(notes.read_text(encoding="utf-8"))]


def open_sqlite(path: Path, *, seconds: float, rows: int, in_place: bool) -> Opened:
    """Open a SQLite file; one that may change is copied."""
    limits = {"max_rows": MAX_ROWS, "max_bytes": MAX_BYTES}
    guard = SqliteGuard(path, seconds=seconds, in_place=in_place, **limits)
    reference = SqliteGuard(guard.path, seconds=2 * seconds, in_place=True, **limits)
    return Opened(Sql(guard, read_schema(f"sqlite:///{guard.path}"), rows), reference)


def open_postgres(url: str, *, seconds: float, rows: int) -> Opened:
    """Open a PostgreSQL database as a role that can only read."""
    limits = {"max_rows": MAX_ROWS, "max_bytes": MAX_BYTES}
    guard = PostgresGuard(url, seconds=seconds, **limits)
    reference = PostgresGuard(url, seconds=2 * seconds, **limits)
    return Opened(Sql(guard, read_schema(url), rows), reference)


class Postgres:
    """A server that generated databases are copied to, each once.

    Args:
        url: of its owner; empty for a private server, which ends with this process.
    """

    def __init__(self, url: str = "") -> None:
        self._server = None if url else PostgresServer()
        self._url = url if self._server is None else self._server.url()
        self._known: dict[str, str] = {}
        self._password = os.urandom(16).hex()
        self._lock = threading.Lock()

    def close(self) -> None:
        """End the private server; databases on a server of yours stay."""
        if self._server is not None:
            self._server.close()

    def copied(self, recipe: Recipe, source: Path) -> str:
        """Return the URL of a reader of the copy of a generated SQLite file.

        Raises:
            SandboxUnavailable: the server does not answer, or refuses; the message has its words.
        """
        from sqlalchemy.exc import SQLAlchemyError

        name = "agentrl_" + re.sub(r"\W", "_", source.stem)
        with self._lock:
            if name not in self._known:
                try:
                    self._known[name] = self._copy(recipe, source, name)
                except SQLAlchemyError as error:
                    said = str(getattr(error, "orig", None) or error).strip()
                    raise SandboxUnavailable(
                        f"The PostgreSQL server of the SQL world could not take a database: {said}. "
                        "`server` is the URL of its owner, such as postgresql://owner@host:5432/postgres."
                    ) from None
            return self._known[name]

    def _copy(self, recipe: Recipe, source: Path, name: str) -> str:
        owner = engine_of(self._url).execution_options(isolation_level="AUTOCOMMIT")
        target = owner.url.set(database=name).render_as_string(hide_password=False)
        with owner.connect() as connection:
            known = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.exec_driver_sql(known, (name,)).first() is None:
                connection.exec_driver_sql(f'CREATE DATABASE "{name}_part"')
                self._fill(recipe, source, target.replace(name, f"{name}_part"))
                connection.exec_driver_sql(f'ALTER DATABASE "{name}_part" RENAME TO "{name}"')
        return prepare_reader(target, role=_READER, password=self._password)

    def _fill(self, recipe: Recipe, source: Path, url: str) -> None:
        with engine_of(url).begin() as connection, closing(sqlite3.connect(source)) as rows:
            for entity in recipe.domain.entities:
                table = recipe.style.table(entity.noun)
                connection.exec_driver_sql(table_of(recipe, entity))
                driver = cast("Connection[object]", connection.connection.driver_connection)
                width, copying = len(columns_of(recipe, entity)), f"COPY {table} FROM STDIN".encode()
                with driver.cursor() as plain, plain.copy(copying) as copy:
                    for row in rows.execute(f"SELECT * FROM {table}"):  # our own names
                        copy.write_row(row[:width])
                if index := index_of(recipe, entity):
                    connection.exec_driver_sql(index)
            connection.exec_driver_sql("ANALYZE")


class Opener:
    """Opens databases and keeps the last ones open; shared by the environments of one process."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Opened] = {}
        self._servers: dict[str, Postgres] = {}
        self._lock = threading.Lock()

    def sqlite(self, path: Path, *, seconds: float, rows: int, in_place: bool) -> Opened:
        """Open a SQLite file once."""
        key = (path, seconds, rows)
        return self._kept(key, lambda: open_sqlite(path, seconds=seconds, rows=rows, in_place=in_place))

    def postgres(self, url: str, *, seconds: float, rows: int) -> Opened:
        """Open a PostgreSQL database once."""
        return self._kept((url, seconds, rows), lambda: open_postgres(url, seconds=seconds, rows=rows))

    def server(self, url: str) -> Postgres:
        """Return the server of a URL; the private one for an empty URL."""
        with self._lock:
            if url not in self._servers:
                self._servers[url] = Postgres(url)
            return self._servers[url]

    def close(self) -> None:
        """End private servers and forget everything."""
        with self._lock:
            for server in self._servers.values():
                server.close()
            self._servers.clear()
            self._known.clear()

    def _kept(self, key: tuple[object, ...], make: Callable[[], Opened]) -> Opened:
        with self._lock:
            if key not in self._known:
                while len(self._known) >= MAX_KNOWN:
                    self._known.pop(next(iter(self._known)))
                self._known[key] = make()
            return self._known[key]


OPENER = Opener()
