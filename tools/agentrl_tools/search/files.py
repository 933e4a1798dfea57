"""Records of JSONL, JSON and Parquet files, with the place of each for messages."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import msgspec

from agentrl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

Record: TypeAlias = dict[str, object]


def records(path: str | Path) -> Iterator[tuple[Record, str]]:
    """Yield each record of a file with its place: lines of JSONL, the items of a JSON list, rows of Parquet.

    Raises:
        ConfigError: the file is missing or cannot be read.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"there is no file {file}; give the path of a JSONL, JSON or Parquet file.")
    if file.suffix == ".parquet":
        yield from _rows(file)
    elif file.suffix == ".json":
        yield from _items(file)
    else:
        yield from _lines(file)


def _rows(file: Path) -> Iterator[tuple[Record, str]]:
    import pyarrow.parquet as pq  # heavy
    from pyarrow import ArrowException

    try:
        row = 0
        for group in pq.ParquetFile(file).iter_batches(batch_size=4096):
            for record in group.to_pylist():
                yield record, f"row {row} of {file}"
                row += 1
    except (ArrowException, OSError) as error:
        raise ConfigError(f"{file} is no Parquet file that can be read: {error}") from error


def _items(file: Path) -> Iterator[tuple[Record, str]]:
    """The items of a list; a file of that name with one object in each line is read as such."""
    try:
        found = msgspec.json.decode(file.read_bytes())
    except msgspec.DecodeError:
        yield from _lines(file)
        return
    listed = cast("list[object]", found if isinstance(found, list) else [found])
    for number, item in enumerate(listed):
        yield _object(item, f"item {number} of {file}"), f"item {number} of {file}"


def _lines(file: Path) -> Iterator[tuple[Record, str]]:
    with _opened(file) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            where = f"line {number} of {file}"
            try:
                item: object = msgspec.json.decode(line)
            except msgspec.DecodeError as error:
                raise ConfigError(f"{where} is no JSON: {error}") from error
            yield _object(item, where), where


def _opened(file: Path) -> io.BufferedIOBase:
    if file.suffix == ".gz":
        return cast("io.BufferedIOBase", gzip.open(file, "rb"))
    if file.suffix == ".zst":
        import zstandard

        return io.BufferedReader(cast("io.RawIOBase", zstandard.open(file, "rb")))
    return file.open("rb")


def _object(item: object, where: str) -> Record:
    if not isinstance(item, dict):
        raise ConfigError(f"{where} is no JSON object.")
    return cast("Record", item)
