"""SQL of a model on a SQLite database: a read-only snapshot, in a process that is killed in time."""

from __future__ import annotations

import json
import os
import select
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from agentrl.sandbox.result import Status

if TYPE_CHECKING:
    from types import TracebackType

GRACE = 0.5
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from agentrl.sandbox import sqlite_worker; "
    "sqlite_worker.main()"
)
Value = str | int | float | bytes | None


@dataclass(frozen=True)
class QueryResult:
    """What a query gave.

    Attributes:
        cut: whether rows were left out, because there were too many or they were too large.
        message: the engine's words, for the model to read; ours where the status is `infra_error`.
    """

    status: Status
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Value, ...], ...] = ()
    cut: bool = False
    message: str = ""
    wall_seconds: float = 0.0


class SqliteGuard:
    """Runs queries that nobody trusts; the database itself is never opened by them.

    Args:
        database: a file; it is copied once, here.
        seconds: that a query may take.
        max_rows: and max_bytes of one result.
    """

    def __init__(
        self, database: str | Path, *, seconds: float = 5.0, max_rows: int = 1000, max_bytes: int = 1 << 20
    ) -> None:
        self._seconds, self._sizes = seconds, (str(max_rows), str(max_bytes))
        self._folder = tempfile.mkdtemp(prefix="agentrl-sql-")
        self._snapshot = str(Path(self._folder) / "snapshot.sqlite")
        address = f"{Path(database).resolve().as_uri()}?mode=ro"
        try:
            with (
                closing(sqlite3.connect(address, uri=True)) as source,
                closing(sqlite3.connect(self._snapshot)) as target,
            ):
                source.backup(target)
        except sqlite3.Error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker and remove the snapshot."""
        with self._lock:
            self._kill()
            shutil.rmtree(self._folder, ignore_errors=True)

    def query(self, sql: str) -> QueryResult:
        """Run one statement, exactly as it is written."""
        began = time.monotonic()
        with self._lock:
            try:
                said = self._asked(sql)
            except (OSError, ValueError) as error:
                self._kill()
                said = {"status": "infra_error", "message": str(error)}
        rows = cast("list[list[object]]", said.get("rows", []))
        return QueryResult(
            status=Status(str(said["status"])),
            columns=tuple(cast("list[str]", said.get("columns", []))),
            rows=tuple(tuple(_value(item) for item in row) for row in rows),
            cut=bool(said.get("cut")),
            message=str(said.get("message", "")),
            wall_seconds=time.monotonic() - began,
        )

    def _asked(self, sql: str) -> dict[str, object]:
        if len(sql) > 100_000:
            return {"status": "error", "message": "the statement is longer than 100,000 characters"}
        worker = self._running()
        if worker.stdin is None or worker.stdout is None:
            raise OSError("the worker has no pipes")
        worker.stdin.write(json.dumps({"sql": sql, "seconds": self._seconds}).encode() + b"\n")
        worker.stdin.flush()
        line = _line(worker.stdout.fileno(), time.monotonic() + self._seconds + GRACE)
        if line is None:
            self._kill()
            return {"status": "timeout", "message": f"the query did not end within {self._seconds:g} s"}
        if not line:
            self._kill()
            return {"status": "killed", "message": "the process of the query died"}
        said: dict[str, object] = json.loads(line)
        return said

    def _running(self) -> subprocess.Popen[bytes]:
        if self._worker is None or self._worker.poll() is not None:
            self._kill()
            root = str(Path(__file__).resolve().parents[2])
            self._worker = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOT, root, self._snapshot, *self._sizes],
                env={},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self._worker

    def _kill(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()
            worker.wait()


def _line(descriptor: int, deadline: float) -> bytes | None:
    """Read a line; None when the time is up first, what came so far when the other end is gone."""
    parts: list[bytes] = []
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], left)[0]:
            return None
        data = os.read(descriptor, 1 << 20)
        if not data:
            return b""
        parts.append(data)
        if data.endswith(b"\n"):
            return b"".join(parts)
    return None


def _value(item: object) -> Value:
    if isinstance(item, dict):
        return bytes.fromhex(str(item["blob"]))
    return cast("Value", item)
