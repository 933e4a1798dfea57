"""Rows in Parquet files, written and read in bounded memory; a row per turn is exact."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import msgspec

from agentrl.errors import MissingExtraError, RunDirectoryError, as_sentence
from agentrl.trajectory.record import SCHEMA, array_of, sentence
from agentrl.trajectory.turn import Trajectory, Turn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from agentrl.trajectory.turn import Span, ToolCall

TableRow: TypeAlias = "Mapping[str, object]"

ROWS: Final = 1024
CELLS: Final = 1 << 20
"""A row group is written when it holds so many rows, or so many characters and numbers."""


class RowWriter:
    """Writes rows to a Parquet file, a row group at a time. The caller renames the file when it is whole.

    Args:
        schema: as `pyarrow.schema` makes it; rows are dictionaries of its names.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, path: Path, schema: object) -> None:
        self._path = path
        self._schema = schema
        self._file = pyarrow_module("pyarrow.parquet").ParquetWriter(path, schema, compression="zstd")
        self._waiting: list[TableRow] = []
        self._cells = 0

    def add(self, row: TableRow) -> None:
        """Add one row. Raises `RunDirectoryError` where a field does not fit its column."""
        self._waiting.append(row)
        self._cells += sum(_cells_of(value) for value in row.values())
        if len(self._waiting) >= ROWS or self._cells >= CELLS:
            self._write()

    def close(self) -> None:
        """Write what waits, and the end of the file."""
        try:
            if self._waiting:
                self._write()
        finally:
            self._file.close()

    def _write(self) -> None:
        rows, self._waiting, self._cells = self._waiting, [], 0
        try:
            table = pyarrow_module("pyarrow").Table.from_pylist(rows, schema=self._schema)
            self._file.write_table(table)
        except (ValueError, OverflowError) as error:
            raise RunDirectoryError(
                f"{self._path} cannot be written: a field does not fit its column; {as_sentence(error)}"
            ) from error


def _cells_of(value: object) -> int:
    """About how much of memory a value takes: its characters or numbers, those of nested ones included."""
    if isinstance(value, list):
        return sum(_cells_of(item) for item in cast("list[object]", value)) + 1
    if isinstance(value, Mapping):
        return sum(_cells_of(item) for item in cast("Mapping[str, object]", value).values()) + 1
    return len(value) + 1 if isinstance(value, Sized) else 1


# -- one row per turn ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TurnReader:
    """Reads trajectories from a file of one row per turn, one after the other."""

    path: Path

    def __iter__(self) -> Iterator[Trajectory]:
        """Yield the trajectories.

        Raises:
            RunDirectoryError: the file is missing, is no Parquet file of ours, or is of a later version.
            MissingExtraError: pyarrow is not installed.
        """
        rows = itertools.groupby(self._rows(), lambda row: row["trajectory"])
        return (trajectory_of(list(group)) for _, group in rows)

    def _rows(self) -> Iterator[dict[str, object]]:
        parquet = pyarrow_module("pyarrow.parquet")
        with sentence(self.path, "read"):
            try:
                file = parquet.ParquetFile(self.path)
                self._check(cast("dict[bytes, bytes]", file.schema_arrow.metadata or {}))
                for batch in file.iter_batches(batch_size=ROWS):
                    yield from cast("list[dict[str, object]]", batch.to_pylist(maps_as_pydicts="strict"))
            except ValueError as error:
                raise RunDirectoryError(
                    f"{self.path} is not a Parquet file of agentrl: {as_sentence(error)}"
                ) from error

    def _check(self, metadata: Mapping[bytes, bytes]) -> None:
        if b"agentrl.schema" not in metadata:
            raise RunDirectoryError(
                f"{self.path} holds no turns of agentrl, so no trajectory can be made of it: neither `export "
                "--to parquet`, which keeps a row of each trajectory, nor other programs write them. Export "
                "the run itself again, or keep what `--to parquet-turns` or `--to jsonl` writes."
            )
        schema = int(metadata[b"agentrl.schema"])
        if not 1 <= schema <= SCHEMA:
            raise RunDirectoryError(
                f"{self.path} has schema {schema} and this version of agentrl reads 1 to {SCHEMA}; "
                "read it with pandas or pyarrow, or with the version of agentrl that wrote it."
            )


def turn_rows(number: int, trajectory: Trajectory) -> Iterator[TableRow]:
    """Yield one row for each turn with the trajectory's fields; without turns, one whose `turn` is null."""
    shared = {"trajectory": number, **_cells(trajectory)}
    if not trajectory.turns:
        yield shared
    for index, turn in enumerate(trajectory.turns):
        yield {**shared, "turn": index, **_cells(turn)}


def trajectory_of(rows: list[dict[str, object]]) -> Trajectory:
    """Return the trajectory that gave these rows."""
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


# -- schemas -------------------------------------------------------------------------------------------------


def pyarrow_module(name: str) -> ModuleType:
    """Return pyarrow or a part of it. Raises `MissingExtraError` where it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError("Parquet", "train") from error


_STRUCTS: Final[Mapping[str, Mapping[str, str]]] = {
    "calls": {
        "name": "string", "arguments": "string", "result": "string", "error": "string", "start": "int64",
        "end": "int64", "seconds": "float64", "cost": "float64",
    },
    "spans": {"role": "string", "start": "int64", "end": "int64"},
    "messages": {"role": "string", "content": "string"},
    "named": {"name": "string", "value": "float64"},
}  # fmt: skip

_TURN_COLUMNS: Final[Mapping[str, str]] = {
    "trajectory": "int64", "turn": "int64", "id": "string", "environment": "string", "task": "string",
    "group": "string", "member": "int64", "seed": "int64", "step": "int64", "stop": "string",
    "success": "bool", "final_observation": "string", "final_observation_key": "int64",
    "final_state_key": "int64", "parent": "string", "branch_turn": "int64", "domain": "string",
    "task_type": "string", "hint_level": "int64", "policy": "string", "sandbox_tier": "string",
    "metrics": "scalars", "gold": "string", "system": "string", "prompt_tokens": "ids", "tokens": "ids",
    "logprobs": "numbers", "observation": "string", "text": "string", "action": "string", "reward": "float64",
    "rewards": "scalars", "kind": "string", "valid": "bool", "spoofed": "bool", "fresh": "bool",
    "observation_key": "int64", "state_key": "int64", "tool_calls": "calls", "spans": "spans",
    "role": "string", "finish": "string", "policy_version": "int64", "generate_seconds": "float64",
    "environment_seconds": "float64", "snapshot": "string", "loss_prompt_tokens": "ids",
    "measures": "scalars", "token_measures": "arrays",
}  # fmt: skip


def turn_schema() -> object:
    """Return the schema of one row per turn."""
    return table_schema(_TURN_COLUMNS, {"agentrl.schema": str(SCHEMA)})


def table_schema(columns: Mapping[str, str | object], metadata: Mapping[str, str] | None = None) -> object:
    """Return a pyarrow schema.

    Args:
        columns: types by name: pyarrow's aliases such as "int64"; "ids" (int32 lists), "numbers" (float32
            lists), "scalars" (text to float64), "arrays" (text to float32 list), "calls", "spans",
            "messages", "named" (lists of structs); or a pyarrow type.
    """
    pyarrow = pyarrow_module("pyarrow")
    text, number = pyarrow.string(), pyarrow.float32()
    types = {
        "ids": pyarrow.list_(pyarrow.int32()),
        "numbers": pyarrow.list_(number),
        "scalars": pyarrow.map_(text, pyarrow.float64()),
        "arrays": pyarrow.map_(text, pyarrow.list_(number)),
        **{name: pyarrow.list_(struct_type(parts)) for name, parts in _STRUCTS.items()},
    }
    fields = [
        (name, (types.get(kind) or pyarrow.type_for_alias(kind)) if isinstance(kind, str) else kind)
        for name, kind in columns.items()
    ]
    return pyarrow.schema(fields, metadata=metadata)


def struct_type(parts: Mapping[str, str]) -> object:
    """Return a pyarrow struct of the given types by name."""
    pyarrow = pyarrow_module("pyarrow")
    return pyarrow.struct([(name, pyarrow.type_for_alias(kind)) for name, kind in parts.items()])
