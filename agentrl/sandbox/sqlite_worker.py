"""The process that runs the SQL of a model: one snapshot, read only, with an allow-list."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sqlite3
import sys
import time
from typing import TextIO

from agentrl.sandbox import landlock, seccomp

MAX_VALUE = 4_000_000
MAX_SQL = 100_000
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
    connection = sqlite3.connect(f"file:{snapshot}?mode=ro&immutable=1", uri=True, isolation_level=None)
    for pragma in ("query_only=on", "trusted_schema=off", "temp_store=memory", f"hard_heap_limit={HEAP}"):
        connection.execute(f"pragma {pragma}").fetchall()
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_SQL)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    connection.set_authorizer(authorize)
    return connection


def main() -> None:
    """Answer queries, one JSON line each, until the host hangs up."""
    snapshot, max_rows, max_bytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    connection = connect(snapshot)
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    if landlock.abi():
        landlock.restrict((snapshot, "/usr", "/lib"), ())
    with contextlib.suppress(OSError):
        seccomp.install()
    for line in sys.stdin:
        asked = json.loads(line)
        _answer(answers, _queried(connection, asked["sql"], asked["seconds"], max_rows, max_bytes))


def _answer(answers: TextIO, content: dict[str, object]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


def _queried(
    connection: sqlite3.Connection, sql: str, seconds: float, max_rows: int, max_bytes: int
) -> dict[str, object]:
    deadline = time.monotonic() + seconds
    connection.set_progress_handler(lambda: int(time.monotonic() > deadline), 10_000)
    try:
        cursor = connection.execute(sql)
        rows, size, cut = [], 0, False
        for row in cursor:
            rows.append([_plain(value) for value in row])
            size += sum(len(value) if isinstance(value, (str, bytes)) else 8 for value in row)
            cut = len(rows) > max_rows or size > max_bytes
            if cut:
                rows.pop()
                break
        columns = [item[0] for item in cursor.description or ()]
        cursor.close()
    except sqlite3.OperationalError as error:
        return {"status": "timeout" if str(error) == "interrupted" else "error", "message": str(error)}
    except MemoryError:
        return {"status": "memory", "message": "the query needs too much memory"}
    except (sqlite3.Error, sqlite3.Warning, ValueError, UnicodeError) as error:
        return {"status": "error", "message": str(error)}
    return {"status": "ok", "columns": columns, "rows": rows, "cut": cut}


def _plain(value: object) -> object:
    return {"blob": value.hex()} if isinstance(value, bytes) else value
