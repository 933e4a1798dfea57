"""Trajectories on disk: an append-only journal of everything that happened, and Parquet for analysis.

A journal is a file of zstd frames, one for each record, so that `zstdcat` reads it as JSON lines and a
process that dies while writing loses at most the record it was writing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

import msgspec
import zstandard

from agentrl.errors import MissingExtraError, RunDirectoryError
from agentrl.trajectory.batch import Batch
from agentrl.trajectory.record import SCHEMA, Record, array_of, decode, encode, sentence
from agentrl.trajectory.turn import Invalid, Trajectory, Turn
from agentrl.trajectory.unpack import unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from io import FileIO
    from types import ModuleType, TracebackType

    from agentrl.trajectory.turn import Span, ToolCall

_CHUNK = 1 << 18
_MAGIC = b"\x28\xb5\x2f\xfd"


# -- journal -------------------------------------------------------------------------------------------------


class JournalWriter:
    """Appends records to a journal; use it as a context manager.

    Opening an existing journal cuts off a torn last record first. Each `append` is on disk when it returns.
    Equal records give equal bytes.

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
    """What a journal holds: its intact records, and how many bytes of a torn tail were dropped."""

    records: tuple[Record, ...]
    dropped_bytes: int

    @property
    def trajectories(self) -> tuple[Trajectory, ...]:
        """The valid records."""
        return tuple(record for record in self.records if isinstance(record, Trajectory))

    @property
    def invalid(self) -> tuple[Invalid, ...]:
        """The invalid records."""
        return tuple(record for record in self.records if isinstance(record, Invalid))


def read_journal(path: str | os.PathLike[str]) -> Journal:
    """Return the records of a journal, without those that a dying process left half written.

    Args:
        path: one `.jsonl.zst` file, or a directory of them, read in the order of their names.

    Raises:
        RunDirectoryError: a file is missing, or was written by a later version of agentrl.
    """
    where = Path(path)
    records: list[Record] = []
    dropped = 0
    for file in sorted(where.glob("*.jsonl.zst")) if where.is_dir() else [where]:
        end = 0
        with sentence(file, "read"):
            for line, frame_end in _frames(file):
                records.append(decode(line, file))
                end = frame_end
            dropped += file.stat().st_size - end
    return Journal(tuple(records), dropped)


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
    return max((end for _, end in _frames(path)), default=0)


def _frames(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield the content and the end offset of each intact frame; stop at the first torn one."""
    with path.open("rb") as file:
        waiting, end = b"", 0
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
            end += consumed - len(waiting)
            yield b"".join(content), end


# -- Parquet -------------------------------------------------------------------------------------------------


def write_parquet(trajectories: Batch | Sequence[Trajectory], path: str | os.PathLike[str]) -> None:
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
    pyarrow, parquet = _import("pyarrow"), _import("pyarrow.parquet")
    with sentence(where, "written"):
        where.parent.mkdir(parents=True, exist_ok=True)
        try:
            table = pyarrow.Table.from_pylist(list(_rows(items)), schema=_parquet_schema(pyarrow))
            parquet.write_table(table, part, compression="zstd")
        except ValueError as error:
            raise RunDirectoryError(
                f"{where} cannot be written: a field does not fit its column; {error}."
            ) from error
        part.replace(where)


def read_parquet(path: str | os.PathLike[str]) -> list[Trajectory]:
    """Return the trajectories that `write_parquet` wrote, exactly.

    Raises:
        RunDirectoryError: the file is missing, is no Parquet file, or is of a later version of agentrl.
        MissingExtraError: pyarrow is not installed.
    """
    where = Path(path)
    parquet = _import("pyarrow.parquet")
    with sentence(where, "read"):
        try:
            table = parquet.ParquetFile(where).read()
            metadata = cast("dict[bytes, bytes]", table.schema.metadata or {})
            schema = int(metadata.get(b"agentrl.schema", b"0"))
            rows = cast("list[dict[str, object]]", table.to_pylist(maps_as_pydicts="strict"))
        except ValueError as error:
            raise RunDirectoryError(f"{where} is not a Parquet file of agentrl: {error}.") from error
    if not 1 <= schema <= SCHEMA:
        raise RunDirectoryError(
            f"{where} has schema {schema} and this version of agentrl reads 1 to {SCHEMA}; "
            "read it with pandas or pyarrow, or with the version of agentrl that wrote it."
        )
    return [_from_rows(list(group)) for _, group in itertools.groupby(rows, lambda row: row["trajectory"])]


def _rows(trajectories: Sequence[Trajectory]) -> Iterator[dict[str, object]]:
    for number, trajectory in enumerate(trajectories):
        shared = {"trajectory": number, **_cells(trajectory)}
        if not trajectory.turns:
            yield shared
        for index, turn in enumerate(trajectory.turns):
            yield {**shared, "turn": index, **_cells(turn)}


def _from_rows(rows: list[dict[str, object]]) -> Trajectory:
    turns = (msgspec.convert(row, Turn, dec_hook=array_of) for row in rows if row["turn"] is not None)
    trajectory = msgspec.convert({**rows[0], "turns": ()}, Trajectory)
    return dataclasses.replace(trajectory, turns=tuple(turns))


def _cells(record: Trajectory | Turn) -> dict[str, object]:
    """Return the fields of a record as pyarrow takes them: maps as pairs, parts as dictionaries."""
    values = {
        item.name: getattr(record, item.name) for item in dataclasses.fields(record) if item.name != "turns"
    }
    return {name: _cell(value) for name, value in values.items()}


def _cell(value: object) -> object:
    if isinstance(value, Mapping):
        return sorted(cast("Mapping[str, object]", value).items())
    if isinstance(value, tuple):
        parts = cast("tuple[ToolCall | Span, ...]", value)
        return [{item.name: getattr(part, item.name) for item in dataclasses.fields(part)} for part in parts]
    return value


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError("Parquet", "train") from error


_STRUCTS = {
    "calls": {"name": "string", "arguments": "string", "result": "string", "error": "string",
    "start": "int64",
              "end": "int64", "seconds": "float64", "cost": "float64"},
    "spans": {"role": "string", "start": "int64", "end": "int64"},
}  # fmt: skip

_PARQUET_TYPES = {
    "trajectory": "int64", "turn": "int64", "id": "string", "environment": "string", "task": "string",
    "group": "string", "member": "int64", "seed": "int64", "step": "int64", "stop": "string",
    "success": "bool",
    "final_observation": "string", "final_observation_key": "int64", "final_state_key": "int64",
    "parent": "string",
    "branch_turn": "int64", "domain": "string", "task_type": "string", "hint_level": "int64",
    "policy": "string",
    "sandbox_tier": "string", "metrics": "scalars", "gold": "string", "prompt_tokens": "ids", "tokens": "ids",
    "logprobs": "numbers",
    "observation": "string", "text": "string", "action": "string", "reward": "float64", "rewards": "scalars",
    "kind": "string", "valid": "bool", "spoofed": "bool", "fresh": "bool", "observation_key": "int64",
    "state_key": "int64", "tool_calls": "calls", "spans": "spans", "role": "string", "finish": "string",
    "policy_version": "int64", "generate_seconds": "float64", "environment_seconds": "float64",
    "snapshot": "string",
    "loss_prompt_tokens": "ids", "measures": "scalars", "token_measures": "arrays",
}  # fmt: skip


def _parquet_schema(pyarrow: ModuleType) -> object:
    text, number = pyarrow.string(), pyarrow.float32()
    types = {
        "ids": pyarrow.list_(pyarrow.int32()),
        "numbers": pyarrow.list_(number),
        "scalars": pyarrow.map_(text, pyarrow.float64()),
        "arrays": pyarrow.map_(text, pyarrow.list_(number)),
        **{
            name: pyarrow.list_(
                pyarrow.struct([(key, pyarrow.type_for_alias(kind)) for key, kind in parts.items()])
            )
            for name, parts in _STRUCTS.items()
        },
    }
    columns = [
        (name, types.get(kind) or pyarrow.type_for_alias(kind)) for name, kind in _PARQUET_TYPES.items()
    ]
    return pyarrow.schema(columns, metadata={"agentrl.schema": str(SCHEMA)})
