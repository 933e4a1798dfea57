"""What a guarded query gives, and how a guard asks its workers. The guards: `sqlite` and `postgres`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from agentrl.errors import SandboxError
from agentrl.sandbox.result import Status, is_text
from agentrl.sandbox.worker import WorkerDied, WorkerFailure, Workers, WorkerTimeout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Value: TypeAlias = str | int | float | bytes | Decimal | None
Row: TypeAlias = tuple[Value, ...]
MAX_SQL = 100_000
GRACE = 0.5


@dataclass(frozen=True)
class QueryResult:
    """What a query gave.

    Attributes:
        rows: bytes of a text that are no UTF-8 are surrogates, as Python's "surrogateescape" makes them.
        cut: whether rows were left out, because there were too many or they were too large.
        message: the engine's words, for the model to read; ours where the status is `infra_error`.
    """

    status: Status
    columns: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    cut: bool = False
    message: str = ""
    wall_seconds: float = 0.0


class SqlGuard(Protocol):
    """Runs queries that nobody trusts on one database.

    Attributes:
        dialect: as SQLAlchemy and sqlglot call it.
        fingerprint: tells databases apart; equal contents have equal ones where that can be known.
    """

    @property
    def dialect(self) -> str:
        """As SQLAlchemy calls it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Tells databases apart."""
        ...

    def query(self, sql: str) -> QueryResult:
        """Run one statement, exactly as it is written."""
        ...


def asked(workers: Workers, request: Mapping[str, object], seconds: float) -> QueryResult:
    """Send a query to a worker and read what it says.

    Args:
        request: with "sql" and what else the worker needs.
        seconds: for the query; the worker gets a little longer before it is killed.
    """
    began = time.monotonic()
    if not is_text(request["sql"]):
        kind = type(request["sql"]).__name__
        return QueryResult(Status.ERROR, message=f"a statement is a text; this is of type {kind}")
    if len(str(request["sql"])) > MAX_SQL:
        return QueryResult(Status.ERROR, message=f"the statement is longer than {MAX_SQL:,} characters")
    try:
        said = workers.call({**request, "seconds": seconds}, seconds + GRACE)
    except WorkerTimeout:
        said = too_late(seconds)
    except WorkerDied:
        said = {"status": "killed", "message": "the process of the query died"}
    except WorkerFailure as error:
        lacking = str(error) == "MemoryError"
        said = {"status": "memory" if lacking else "infra_error", "message": str(error)}
    except SandboxError as error:
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


def fetched(rows: Iterable[Sequence[object]], most_rows: int, most_bytes: int) -> dict[str, object]:
    """Read rows as a worker answers them, up to a number of rows and of bytes.

    >>> fetched([(1, b"x"), (2, b"y")], 1, 100)
    {'rows': [[1, {'blob': '78'}]], 'cut': True}
    """
    read: list[list[object]] = []
    size = 0
    for row in rows:
        size += sum(map(size_of, row))
        if len(read) >= most_rows or size > most_bytes:
            return {"rows": read, "cut": True}
        read.append([plain(value) for value in row])
    return {"rows": read, "cut": False}


def too_late(seconds: float) -> dict[str, object]:
    """Say as a worker does that a query did not end."""
    return {"status": "timeout", "message": f"the query did not end within {seconds:g} s"}


def plain(value: object) -> object:
    r"""Write a value as JSON that `asked` reads back.

    >>> plain(b"\x00"), plain(Decimal("1.50")), plain(2)
    ({'blob': '00'}, {'decimal': '1.50'}, 2)
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return {"blob": bytes(value).hex()}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, list | dict):
        return json.dumps(value, default=str)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def size_of(value: object) -> int:
    """Return about how many bytes a value takes."""
    return len(value) if isinstance(value, str | bytes) else 8


def _value(item: object) -> Value:
    if isinstance(item, dict):
        return bytes.fromhex(str(item["blob"])) if "blob" in item else Decimal(str(item["decimal"]))
    return cast("Value", item)
