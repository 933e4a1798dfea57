"""Trajectories on disk: an append-only journal of everything that happened, and Parquet for analysis.

A journal is a file of zstd frames, one for each record, so that `zstdcat` reads it as JSON lines and a
process that dies while writing loses at most the record it was writing.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import zstandard

from agentrl.errors import RunDirectoryError
from agentrl.trajectory.batch import Batch
from agentrl.trajectory.record import Record, decode, encode, sentence
from agentrl.trajectory.table import RowWriter, TurnReader, turn_rows, turn_schema
from agentrl.trajectory.turn import Invalid, Trajectory
from agentrl.trajectory.unpack import unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedReader, FileIO
    from types import TracebackType

_CHUNK = 1 << 18
_MAGIC = b"\x28\xb5\x2f\xfd"


# -- journal -------------------------------------------------------------------------------------------------


class JournalWriter:
    """Appends records to a journal; use it as a context manager.

    Opening an existing journal cuts off a torn last record first, and nothing else. Each `append` is on disk
    when it returns. Equal records give equal bytes.

    Raises:
        RunDirectoryError: the file cannot be created or written (no permission, disk full).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
        with sentence(self._path, "written"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._end = _intact_bytes(self._path) if self._path.exists() else 0
            self._file = self._path.open("ab", buffering=0)
            self._file.truncate(self._end)

    def append(self, records: Iterable[Record]) -> None:
        """Append records, one line each, and wait until they are on disk; on an error, none is."""
        frames = b"".join([self._compressor.compress(encode(record) + b"\n") for record in records])
        with sentence(self._path, "written"):
            try:
                _write_all(self._file, frames)
                os.fsync(self._file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(self._end)
                raise
        self._end += len(frames)

    def close(self) -> None:
        """Close the file."""
        with sentence(self._path, "written"):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True, eq=False)
class Journal:
    """What a journal holds: its intact records, and how many bytes held none.

    Attributes:
        dropped_bytes: of a torn tail; `damaged_bytes`: before an intact record.
    """

    records: tuple[Record, ...]
    dropped_bytes: int
    damaged_bytes: int = 0

    @property
    def trajectories(self) -> tuple[Trajectory, ...]:
        """The valid records."""
        return tuple(record for record in self.records if isinstance(record, Trajectory))

    @property
    def invalid(self) -> tuple[Invalid, ...]:
        """The invalid records."""
        return tuple(record for record in self.records if isinstance(record, Invalid))


def read_journal(path: str | os.PathLike[str]) -> Journal:
    """Return the records of a journal, without those that are damaged or were left half written.

    Args:
        path: one `.jsonl.zst` file, or a directory of them, read in the order of their names.

    Raises:
        RunDirectoryError: a file is missing, or was written by a later version of agentrl.
    """
    where = Path(path)
    files = sorted(where.glob("*.jsonl.zst")) if where.is_dir() else [where]
    readers = [JournalReader(file) for file in files]
    records = tuple(record for reader in readers for record in reader)
    dropped = sum(reader.dropped_bytes for reader in readers)
    return Journal(records, dropped, sum(reader.damaged_bytes for reader in readers))


@dataclass
class JournalReader:
    """Reads one journal record by record, in memory of one record.

    Attributes:
        dropped_bytes: what a dying process left half written at the end; known when all was read.
        damaged_bytes: what is no record, before a later one that is intact.
    """

    path: Path
    dropped_bytes: int = 0
    damaged_bytes: int = 0

    def __iter__(self) -> Iterator[Record]:
        """Yield the intact records. Raises `RunDirectoryError` as `read_journal` does."""
        end = 0
        with sentence(self.path, "read"):
            for number, (line, frame_begin, frame_end) in enumerate(_frames(self.path), 1):
                self.damaged_bytes += frame_begin - end
                end = frame_end
                yield decode(line, self.path, number)
            self.dropped_bytes = self.path.stat().st_size - end


def _write_all(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _intact_bytes(path: Path) -> int:
    with path.open("rb") as file:
        begin = file.read(len(_MAGIC))
    if not _MAGIC.startswith(begin):
        raise RunDirectoryError(
            f"{path} is not a journal of agentrl, so nothing is appended; give another path."
        )
    return max((end for _, _, end in _frames(path)), default=0)


def _frames(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """Yield the content, the begin and the end of each intact frame; what is damaged is passed over."""
    with path.open("rb") as file:
        end = 0
        while end >= 0:
            file.seek(end)
            for content, size in _frames_from_here(file):
                yield content, end, end + size
                end += size
            end = _next_begin(file, end + 1)


def _frames_from_here(file: BufferedReader) -> Iterator[tuple[bytes, int]]:
    """Yield the content and the size of each intact frame; stop at the first that is torn or damaged."""
    waiting = b""
    while waiting or (waiting := file.read(_CHUNK)):
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        content: list[bytes] = []
        consumed = 0
        while waiting:
            try:
                content.append(decompressor.decompress(waiting))
            except zstandard.ZstdError:
                return
            consumed += len(waiting)
            waiting = decompressor.unused_data if decompressor.eof else file.read(_CHUNK)
            if decompressor.eof:
                break
        if not decompressor.eof:
            return
        yield b"".join(content), consumed - len(waiting)


def _next_begin(file: BufferedReader, start: int) -> int:
    """Where a frame may begin at or after `start`; -1 where none does."""
    file.seek(start)
    held = b""
    while chunk := file.read(_CHUNK):
        held += chunk
        if (place := held.find(_MAGIC)) >= 0:
            return start + place
        start += max(0, len(held) - len(_MAGIC) + 1)
        held = held[-len(_MAGIC) + 1 :]
    return -1


# -- Parquet -------------------------------------------------------------------------------------------------


def write_parquet(trajectories: Batch | Iterable[Trajectory], path: str | os.PathLike[str]) -> None:
    """Write trajectories as one row per turn, the trajectory's fields repeated; replaces the file atomically.

    `trajectory` numbers the trajectories and `turn` their turns; a trajectory without turns has one row whose
    `turn` is null. Probe columns of a batch are written as measures, as `unpack` gives them.

    Raises:
        RunDirectoryError: the file cannot be written, or a text is not valid Unicode.
        MissingExtraError: pyarrow is not installed.
    """
    items = unpack(trajectories) if isinstance(trajectories, Batch) else trajectories
    where = Path(path)
    part = where.with_name(where.name + ".part")
    with sentence(where, "written"):
        where.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(RowWriter(part, turn_schema())) as writer:
            for number, trajectory in enumerate(items):
                for row in turn_rows(number, trajectory):
                    writer.add(row)
        part.replace(where)


def read_parquet(path: str | os.PathLike[str]) -> list[Trajectory]:
    """Return the trajectories that `write_parquet` wrote, exactly.

    Raises:
        RunDirectoryError: the file is missing, is no Parquet file, or is of a later version of agentrl.
        MissingExtraError: pyarrow is not installed.
    """
    return list(TurnReader(Path(path)))
