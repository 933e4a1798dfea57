"""The process that runs the SQL of a model: one snapshot, read only, with an allow-list."""

from __future__ import annotations

import sqlite3
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.sandbox.sql import MAX_SQL, fetched, too_late
from agentrl.sandbox.worker_main import harden

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_VALUE = 4_000_000
MAX_OPEN = 16
HEAP = 512 << 20
_ACTIONS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_PRAGMAS = {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"}
# Functions of SQLite that only compute. Everything else is refused: readers of files, tokenizers that show
# addresses, extensions, and makers of values as large as one likes.
FUNCTIONS = frozenset(
    [
        "abs",
        "avg",
        "ceil",
        "ceiling",
        "changes",
        "char",
        "coalesce",
        "concat",
        "concat_ws",
        "count",
        "cume_dist",
        "date",
        "datetime",
        "degrees",
        "dense_rank",
        "exp",
        "first_value",
        "floor",
        "format",
        "glob",
        "group_concat",
        "ifnull",
        "iif",
        "instr",
        "json",
        "json_array",
        "json_array_length",
        "json_each",
        "json_extract",
        "json_group_array",
        "json_group_object",
        "json_object",
        "json_quote",
        "json_tree",
        "json_type",
        "json_valid",
        "julianday",
        "lag",
        "last_value",
        "lead",
        "length",
        "like",
        "ln",
        "log",
        "log10",
        "log2",
        "lower",
        "ltrim",
        "max",
        "min",
        "mod",
        "nth_value",
        "ntile",
        "nullif",
        "percent_rank",
        "pi",
        "pow",
        "power",
        "printf",
        "quote",
        "radians",
        "rank",
        "replace",
        "round",
        "row_number",
        "rtrim",
        "sign",
        "sqrt",
        "strftime",
        "string_agg",
        "substr",
        "substring",
        "sum",
        "time",
        "total",
        "trim",
        "typeof",
        "unicode",
        "unixepoch",
        "upper",
        "->",
        "->>",
    ]
)


def authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """Say whether a statement may do one thing."""
    allowed = action in _ACTIONS
    if action == sqlite3.SQLITE_FUNCTION:
        allowed = (second or "").lower() in FUNCTIONS
    elif action == sqlite3.SQLITE_PRAGMA:
        allowed = (first or "").lower() in _PRAGMAS
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def connect(snapshot: str) -> sqlite3.Connection:
    """Open a snapshot so that nothing but reading it is left."""
    address = f"{Path(snapshot).as_uri()}?mode=ro&immutable=1"
    connection = sqlite3.connect(address, uri=True, isolation_level=None)
    for pragma in ("query_only=on", "trusted_schema=off", "temp_store=memory", f"hard_heap_limit={HEAP}"):
        connection.execute(f"pragma {pragma}").fetchall()
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_SQL)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.text_factory = _text
    connection.set_authorizer(authorize)
    return connection


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def prepare(settings: dict[str, object]) -> Callable[[dict[str, object]], dict[str, object]]:
    """Give up everything but reading one folder; return what answers queries on its files."""
    folder = str(settings["folder"])
    harden((folder,))
    connections: dict[str, sqlite3.Connection] = {}
    sizes = int(str(settings["max_rows"])), int(str(settings["max_bytes"]))
    return partial(_answer, folder, connections, sizes)


def _answer(
    folder: str,
    connections: dict[str, sqlite3.Connection],
    sizes: tuple[int, int],
    asked: dict[str, object],
) -> dict[str, object]:
    name = str(asked["file"])
    if name not in connections:
        if len(connections) >= MAX_OPEN:
            connections.pop(next(iter(connections))).close()
        connections[name] = connect(str(Path(folder) / name))
    return _queried(connections[name], str(asked["sql"]), float(str(asked["seconds"])), sizes)


def _queried(
    connection: sqlite3.Connection, sql: str, seconds: float, sizes: tuple[int, int]
) -> dict[str, object]:
    deadline = time.process_time() + seconds
    connection.set_progress_handler(lambda: int(time.process_time() > deadline), 10_000)
    try:
        cursor = connection.execute(sql)
        if cursor.description is None:
            return {"status": "error", "message": "this is no query: it has no result"}
        answer = {"columns": [item[0] for item in cursor.description], **fetched(cursor, *sizes)}
        cursor.close()
    except sqlite3.OperationalError as error:
        late = str(error) == "interrupted"
        return too_late(seconds) if late else {"status": "error", "message": str(error)}
    except MemoryError:
        return {"status": "memory", "message": "the query needs too much memory"}
    except (sqlite3.Error, sqlite3.Warning, ValueError, UnicodeError) as error:
        return {"status": "error", "message": str(error)}
    return {"status": "ok", **answer}
