"""Records of the user's files: JSONL, JSON and Parquet, with the place of each for messages."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import msgspec

from agentrl.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

Record: TypeAlias = dict[str, object]


def records(path: str | Path) -> Iterator[tuple[Record, str]]:
    """Yield each record of a file with its place: lines of JSONL, the items of a JSON list, rows of Parquet.

    JSONL may be packed (`.gz`, `.zst`). Of a folder every JSON file is read, by name.

    Raises:
        ConfigError: the file is missing or cannot be read.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        for each in sorted(file.rglob("*.json")):
            yield from _items(each)
        return
    if not file.is_file():
        raise ConfigError(f"there is no file {file}; give the path of a JSONL, JSON or Parquet file.")
    if file.suffix == ".parquet":
        yield from _rows(file)
    elif file.suffix == ".json":
        yield from _items(file)
    else:
        yield from _lines(file)


def by_split(given: object, what: str) -> dict[str, str]:
    """Return a table of a file for each split, as a setting gives it.

    Raises:
        ConfigError: it is something else, or empty.

    >>> by_split({"dev": "dev.json"}, "questions")
    {'dev': 'dev.json'}
    """
    table = cast("Mapping[str, object]", given) if isinstance(given, Mapping) else {}
    if not table or not all(isinstance(value, str | Path) and str(value) for value in table.values()):
        raise ConfigError(
            f'{what} is a table with a file for each split, such as {{ dev = "dev.jsonl" }}; got {given!r}.'
        )
    return {name: str(value) for name, value in table.items()}


def asked(record: Mapping[str, object]) -> Mapping[str, object]:
    """Return a record in verl's layout with a `question` and an `answer` as others have them.

    Its question is that of `extra_info`, else what the user says last in `prompt`; its answer stands in
    `reward_model`, as Search-R1 has it under `target`. Other records come back as they are.

    >>> row = {"prompt": [{"role": "user", "content": "1 + 1?"}], "reward_model": {"ground_truth": "2"}}
    >>> asked(row)["question"], asked(row)["answer"]
    ('1 + 1?', '2')
    """
    reward = record.get("reward_model")
    if not isinstance(reward, Mapping):
        return record
    truth = cast("Mapping[str, object]", reward).get("ground_truth")
    answer = cast("Mapping[str, object]", truth).get("target") if isinstance(truth, Mapping) else truth
    extra = record.get("extra_info")
    question = cast("Mapping[str, object]", extra).get("question") if isinstance(extra, Mapping) else None
    own = {name: value for name, value in record.items() if value is not None and name != "prompt"}
    return {"question": question or _last_said(record.get("prompt")), "answer": answer, **own}


def _last_said(prompt: object) -> object:
    """What the user said last in a list of messages; a prompt that is a text as it is."""
    if not isinstance(prompt, list):
        return prompt
    messages = [
        cast("Mapping[str, object]", item)
        for item in cast("list[object]", prompt)
        if isinstance(item, Mapping)
    ]
    return next((item.get("content") for item in reversed(messages) if item.get("role") == "user"), None)


def unpacked(value: object) -> object:
    """Return what a text holds as JSON: nested fields whose kinds Parquet cannot mix are written like that.

    >>> unpacked('[["Tea", 1]]'), unpacked("Tea")
    ([['Tea', 1]], 'Tea')
    """
    if not isinstance(value, str) or value[:1] not in {"[", "{"}:
        return value
    try:
        return cast("object", msgspec.json.decode(value))
    except msgspec.DecodeError:
        return value


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
        found, lenient = _decoded(file.read_bytes())
    except ValueError:
        yield from _lines(file)
        return
    listed = cast("Sequence[object]", found if isinstance(found, list) else [found])
    for number, item in enumerate(listed):
        yield _object(item, f"item {number} of {file}", lenient), f"item {number} of {file}"


def _lines(file: Path) -> Iterator[tuple[Record, str]]:
    try:
        with _opened(file) as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    where = f"line {number} of {file}"
                    yield _object(*_read(line, where)), where
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error}.") from error


def _read(line: bytes, where: str) -> tuple[object, str, bool]:
    try:
        item, lenient = _decoded(line)
    except ValueError as error:
        raise ConfigError(f"{where} is no JSON: {error}") from error
    return item, where, lenient


def _decoded(text: bytes) -> tuple[object, bool]:
    """Decode fast, or with Python's lenient reader, which takes a byte order mark and NaN, and say which."""
    try:
        return cast("object", msgspec.json.decode(text)), False
    except msgspec.DecodeError:
        return cast("object", json.loads(text)), True
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _opened(file: Path) -> io.BufferedIOBase:
    if file.suffix == ".gz":
        return cast("io.BufferedIOBase", gzip.open(file, "rb"))
    if file.suffix == ".zst":
        import zstandard

        return io.BufferedReader(cast("io.RawIOBase", zstandard.open(file, "rb")))
    return file.open("rb")


def _object(item: object, where: str, lenient: bool) -> Record:
    if not isinstance(item, dict):
        raise ConfigError(f"{where} is no JSON object.")
    if lenient:
        try:
            json.dumps(item, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise ConfigError(
                f"{where} holds {half!r}, which is half of a character and can stand in no text. "
                "Write the whole character, or leave the record out."
            ) from error
    return cast("Record", item)
