"""Where rows go: files written piece by piece, in the memory of a few records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec

from agentrl.errors import RunDirectoryError
from agentrl.trajectory.record import encode
from agentrl.trajectory.turn import Invalid, Trajectory

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from agentrl.trajectory.record import Record
    from agentrl.trajectory.table import RowWriter

Row: TypeAlias = Mapping[str, object]
Rows: TypeAlias = Callable[[int, Trajectory], Iterable[Row]]
"""From a trajectory and its number to its rows; none where it has nothing to give."""


class Sink(Protocol):
    """A file that is being written."""

    def add(self, record: Record) -> int:
        """Write what a record gives; the number of rows."""
        ...

    def close(self) -> None:
        """Write what is still missing, and close the file."""
        ...


class Records:
    """Every record as one line of JSON, exactly."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")

    def add(self, record: Record) -> int:
        """Write one line."""
        self._file.write(encode(record) + b"\n")
        return 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Lines:
    """Rows as lines of JSON."""

    def __init__(self, path: Path, rows: Rows) -> None:
        self._file: BinaryIO = path.open("wb")
        self._rows = rows
        self._number = 0

    def add(self, record: Record) -> int:
        """Write the rows of a trajectory."""
        if isinstance(record, Invalid):
            return 0
        count = 0
        for row in self._rows(self._number, record):
            self._file.write(json_line(row))
            count += 1
        self._number += 1
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass
class Table:
    """Rows of a Parquet file.

    Args:
        once: names what only one row is written for, such as a task.
    """

    writer: RowWriter
    rows: Rows
    once: Callable[[Trajectory], str] | None = None
    number: int = 0
    written: set[str] = field(default_factory=set[str])

    def add(self, record: Record) -> int:
        """Write the rows of a trajectory."""
        if isinstance(record, Invalid) or self._again(record):
            return 0
        count = 0
        for row in self.rows(self.number, record):
            self.writer.add(row)
            count += 1
        self.number += 1
        return count

    def close(self) -> None:
        """Write the end of the file."""
        self.writer.close()

    def _again(self, trajectory: Trajectory) -> bool:
        if self.once is None:
            return False
        name = self.once(trajectory)
        known = name in self.written
        self.written.add(name)
        return known


def json_line(row: Row) -> bytes:
    """Return a row as a line of JSON. Raises `RunDirectoryError` on invalid Unicode."""
    try:
        return msgspec.json.encode(row) + b"\n"
    except UnicodeEncodeError as error:
        raise RunDirectoryError(
            f"a text is not valid Unicode ({error.reason}); decode bytes with errors='replace' in the "
            "environment or tool that made it."
        ) from error
