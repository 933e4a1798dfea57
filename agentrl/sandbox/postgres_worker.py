"""The process that asks PostgreSQL: for each query a session of its own, cancelled and closed in time."""

from __future__ import annotations

import contextlib
import functools
import resource
import threading
from typing import TYPE_CHECKING, cast

from agentrl.sandbox.sql import fetched, too_late

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from psycopg import Connection as Driver
    from sqlalchemy import Connection, Engine

MEMORY = 2 << 30
SETTLE = 25_000  # milliseconds, for whatever is asked of a busy server before or beside the query
_LACK_OF_MEMORY = {"53200", "53400", "54000"}
_CANCELLED = "57014"
# Classes of errors that are the server's and not the statement's: connection, resources, operator, system,
# internal.
_OURS = ("08", "53", "57", "58", "XX")
# Not among them: what the server says to a query with $1, for which nobody gives a value.
_NO_VALUE = "08P01"
# Python's types hold fewer of these than PostgreSQL does, so they come as the server writes them.
_AS_TEXT = ("date", "time", "timetz", "timestamp", "timestamptz", "interval")


def prepare(settings: dict[str, object]) -> Callable[[dict[str, object]], dict[str, object]]:
    """Return what answers queries; nothing is connected before the first."""
    from sqlalchemy import NullPool, create_engine

    seconds = float(str(settings["seconds"]))
    milliseconds = max(1, int(seconds * 1000))
    options = {
        "statement_timeout": SETTLE,  # until the query, which gets a time of its own
        "lock_timeout": milliseconds,
        "idle_in_transaction_session_timeout": milliseconds + 5000,
        "client_connection_check_interval": 1000,
        "default_transaction_read_only": "on",
        "max_parallel_workers_per_gather": 0,
        "jit": "off",
    }
    given = " ".join(f"-c {name}={value}" for name, value in options.items())
    connect = {"options": given, "connect_timeout": 10}
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    sizes = int(str(settings["max_rows"])), int(str(settings["max_bytes"]))

    @functools.lru_cache(maxsize=64)
    def engine_of(url: str) -> Engine:
        return create_engine(url, poolclass=NullPool, connect_args=connect)

    return functools.partial(_answer, engine_of, seconds, sizes)


def _answer(
    engine_of: Callable[[str], Engine], seconds: float, sizes: tuple[int, int], asked: dict[str, object]
) -> dict[str, object]:
    from sqlalchemy.exc import DBAPIError

    answer: dict[str, object] = {}
    try:
        with engine_of(str(asked["url"])).connect() as connection:
            if "check" in asked:
                plainly = connection.execution_options(no_parameters=True)
                rows = plainly.exec_driver_sql(str(asked["check"])).all()
                return {"problems": [row[0] for row in rows]}
            connection.rollback()
            connection.exec_driver_sql(f"SET statement_timeout = {max(1, int(seconds * 1000))}")
            with _deadline(connection, seconds):
                answer = _queried(connection, str(asked["sql"]), seconds, sizes)
    except DBAPIError as error:
        # The server may say what became of a query only when its cursor is closed.
        if not answer:
            raise
        return answer if answer["status"] != "ok" else _failed(error, seconds)
    return answer


@contextlib.contextmanager
def _deadline(connection: Connection, seconds: float) -> Generator[None]:
    """Cancel what the session does, from a second connection, when the time is up."""
    driver = cast("Driver[object]", connection.connection.driver_connection)
    timer = threading.Timer(seconds + 0.1, driver.cancel_safe, kwargs={"timeout": 5.0})
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _queried(connection: Connection, sql: str, seconds: float, sizes: tuple[int, int]) -> dict[str, object]:
    from psycopg.types.string import TextLoader
    from sqlalchemy.exc import DBAPIError, ResourceClosedError

    for name in _AS_TEXT:
        cast("Driver[object]", connection.connection.driver_connection).adapters.register_loader(
            name, TextLoader
        )
    # stream_results declares a cursor for the text: it takes one query and nothing else, and rows come as
    # they are fetched. no_parameters keeps % and : what they are.
    streaming = connection.execution_options(stream_results=True, max_row_buffer=50, no_parameters=True)
    try:
        cursor = streaming.exec_driver_sql(sql)
        return {"status": "ok", "columns": list(cursor.keys()), **fetched(cursor, *sizes)}
    except DBAPIError as error:
        return _failed(error, seconds)
    except MemoryError:
        return {"status": "memory", "message": "the result needs too much memory"}
    except (ResourceClosedError, UnicodeError, ValueError) as error:
        return {"status": "error", "message": str(error)}


def _failed(error: Exception, seconds: float) -> dict[str, object]:
    cause = getattr(error, "orig", error)
    state = str(getattr(cause, "sqlstate", None) or "")
    diagnosis = getattr(cause, "diag", None)
    message = getattr(diagnosis, "message_primary", None) or str(cause)
    hint = getattr(diagnosis, "message_hint", None)
    said = f"{message}. {hint}" if hint else message
    if state == _CANCELLED:
        return too_late(seconds)
    if state in _LACK_OF_MEMORY or "out of memory" in message:
        return {"status": "memory", "message": said}
    return {"status": "infra_error" if _is_ours(cause, state) else "error", "message": said}


def _is_ours(cause: object, state: str) -> bool:
    from psycopg import DataError, NotSupportedError, ProgrammingError

    if not state:  # said by the driver: a value that it cannot hold, or a connection that broke
        return not isinstance(cause, DataError | NotSupportedError | ProgrammingError)
    return state.startswith(_OURS) and state != _NO_VALUE
