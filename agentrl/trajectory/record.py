"""One record as bytes: JSON that keeps every bit of an array and every NaN."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias, cast

import msgspec
import numpy as np

from agentrl.errors import RunDirectoryError
from agentrl.trajectory.turn import Invalid, Trajectory

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from numpy.typing import NDArray

Record: TypeAlias = Trajectory | Invalid

SCHEMA = 1
"""Version of the records; a reader refuses a later one."""


class _Line(msgspec.Struct):
    schema: int
    trajectory: Trajectory | None = None
    invalid: Invalid | None = None


class _Version(msgspec.Struct):
    schema: int


def encode(record: Record) -> bytes:
    """Return a record as one line of JSON without its end. Raises `RunDirectoryError` on invalid Unicode."""
    kind = "invalid" if isinstance(record, Invalid) else "trajectory"
    try:
        return msgspec.json.encode({"schema": SCHEMA, kind: _plain(record)})
    except UnicodeEncodeError as error:
        raise RunDirectoryError(
            f"a record of task {record.task!r} holds text that is not valid Unicode ({error.reason}); "
            "decode bytes with errors='replace' in the environment or tool that made it."
        ) from error


def decode(line: bytes, path: Path, number: int) -> Record:
    """Return the record of a line of a file. Raises `RunDirectoryError` when it is not one.

    Args:
        path, number: of the file, and of the line, from 1, for the message.
    """
    try:
        schema = msgspec.json.decode(line, type=_Version).schema
        if schema > SCHEMA:
            raise RunDirectoryError(
                f"{path} was written by a later version of agentrl (schema {schema}, this one reads up "
                f"to {SCHEMA}); "
                "upgrade agentrl to read it."
            )
        content = _LINES.decode(line)
    except msgspec.MsgspecError as error:
        raise RunDirectoryError(f"line {number} of {path} is no record of agentrl: {error}.") from error
    record = content.trajectory or content.invalid
    if record is None:
        raise RunDirectoryError(f"line {number} of {path} holds no record of agentrl.")
    return record


def _plain(value: object) -> object:
    """Return a value made of JSON's types; JSON has no NaN and no infinity, so these become texts."""
    if isinstance(value, np.generic):
        value = cast("object", value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, np.ndarray):
        array = cast("NDArray[np.float32]", value)
        items = array.tolist()
        return items if bool(np.isfinite(array).all()) else [_plain(item) for item in items]
    if isinstance(value, Mapping):
        named = cast("Mapping[str, object]", value)
        return {name: _plain(named[name]) for name in sorted(named)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in cast("tuple[object, ...]", value)]
    if dataclasses.is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    raise TypeError(
        f"a record cannot hold a {type(value).__name__}; use numbers, texts, tuples and mappings."
    )


def array_of(kind: type, value: object) -> NDArray[np.generic]:
    """Return the array of a field that is annotated `NDArray[...]`."""
    return np.array(value, dtype=np.int32 if "int32" in str(kind) else np.float32)


_LINES = msgspec.json.Decoder(_Line, dec_hook=array_of, strict=False)


@contextlib.contextmanager
def sentence(path: Path, done: str) -> Generator[None, None, None]:
    """Turn an operating system's error into a sentence."""
    try:
        yield
    except OSError as error:
        raise RunDirectoryError(
            f"{path} cannot be {done}: {error.strerror or error}. "
            "Check that the directory exists, is yours and has space left."
        ) from error
