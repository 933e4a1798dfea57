"""SQL of a model on a SQLite database: a read-only snapshot, in a process that is killed in time."""

from __future__ import annotations

import atexit
import hashlib
import os
import sqlite3
import tempfile
import threading
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Self

from agentrl.sandbox.result import MOST_BYTES, MOST_SECONDS, check_number, check_whole
from agentrl.sandbox.scratch import Scratch, scratch
from agentrl.sandbox.sql import QueryResult, asked
from agentrl.sandbox.worker import shared

_TARGET = "agentrl.sandbox.sqlite_worker:prepare"
_LOCK = threading.Lock()
_FOLDERS: list[Scratch] = []


class SqliteGuard:
    """Runs queries that nobody trusts; the database itself is never opened by them.

    Guards with the same limits share their worker processes. A guard is a handle: a deep copy is the guard
    itself.

    Args:
        database: a file; it is copied once, here.
        seconds: of CPU that a query may take.
        max_rows: and max_bytes of one result.
        in_place: the file never changes while this guard lives, so it needs no copy.
        workers: processes that all guards like this one share.

    Raises:
        sqlite3.Error: the file is no database or cannot be read.
        TypeError: a setting is of another kind; and `ValueError`, where a number is out of its range.
    """

    dialect = "sqlite"

    def __init__(
        self,
        database: str | Path,
        *,
        seconds: float = 5.0,
        max_rows: int = 1000,
        max_bytes: int = 1 << 20,
        in_place: bool = False,
        workers: int = 1,
    ) -> None:
        given: object = database
        if not isinstance(given, str | Path):
            raise TypeError(f"database must be the path of a file; got {given!r:.60}.")
        check_number("seconds of a query", seconds, MOST_SECONDS)
        for what, value in (("max_rows", max_rows), ("max_bytes", max_bytes), ("workers", workers)):
            check_whole(f"{what} of a guard", value, 1, MOST_BYTES)
        if not Path(database).is_file():
            kind = "is a folder" if Path(database).is_dir() else "does not exist"
            raise sqlite3.OperationalError(
                f"The SQLite database {str(database)!r} {kind}; give the path of a file."
            )
        self._seconds, self._in_place = seconds, in_place
        self.path = Path(database).resolve() if in_place else _snapshot(Path(database).resolve())
        settings = {"folder": str(self.path.parent), "max_rows": max_rows, "max_bytes": max_bytes}
        self._asks = (settings, workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the snapshot."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def query(self, sql: str) -> QueryResult:
        """Run one statement, exactly as it is written."""
        settings, workers = self._asks
        return asked(
            shared(_TARGET, settings, size=workers), {"sql": sql, "file": self.path.name}, self._seconds
        )

    def close(self) -> None:
        """Remove the snapshot; `close_shared` of `worker` ends the processes."""
        if not self._in_place:
            self.path.unlink(missing_ok=True)


def _snapshot(database: Path) -> Path:
    descriptor, name = tempfile.mkstemp(suffix=".sqlite", dir=_folder())
    os.close(descriptor)
    copy = Path(name)
    try:
        with (
            closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
            target.execute("pragma journal_mode=delete")
    except sqlite3.Error:
        copy.unlink()
        raise
    return copy


def _folder() -> str:
    with _LOCK:
        if not _FOLDERS:
            _FOLDERS.append(scratch("agentrl-sql-"))
            atexit.register(_remove)
        return _FOLDERS[0].path


def _remove() -> None:
    while _FOLDERS:
        _FOLDERS.pop().close()
