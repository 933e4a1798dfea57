"""Where trajectories are read from: a run, an evaluation, or a file; one record in memory at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.errors import RunDirectoryError
from agentrl.trajectory.record import Record, decode, sentence
from agentrl.trajectory.store import JournalReader
from agentrl.trajectory.table import TurnReader

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping


@dataclass
class LineReader:
    """Reads the lossless lines that `export --to jsonl` writes.

    Attributes:
        dropped_bytes: of a last line that a dying process left half written.
    """

    path: Path
    dropped_bytes: int = 0
    damaged_bytes: int = 0

    def __iter__(self) -> Iterator[Record]:
        """Yield the records. Raises `RunDirectoryError` where a whole line is none."""
        with sentence(self.path, "read"), self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield decode(line, self.path, number)
                else:
                    self.dropped_bytes = len(line)


@dataclass
class TableReader:
    """Reads the rows of turns that `export --to parquet-turns` writes; such a file is whole or absent."""

    path: Path
    dropped_bytes: int = 0
    damaged_bytes: int = 0

    def __iter__(self) -> Iterator[Record]:
        """Yield the trajectories."""
        yield from TurnReader(self.path)


Reader = JournalReader | LineReader | TableReader

READERS: Mapping[str, type[Reader]] = {
    ".jsonl.zst": JournalReader,
    ".jsonl": LineReader,
    ".parquet": TableReader,
}
"""What reads a file, by the end of its name."""


@dataclass
class Source:
    """Records of one or more files, in the order of their names.

    Attributes:
        torn: files whose last record was cut, with the bytes that were left out; known when all was read.
        damaged: files with damage before an intact record, with the bytes that held none.
    """

    files: tuple[Path, ...]
    torn: dict[Path, int] = field(default_factory=dict[Path, int])
    damaged: dict[Path, int] = field(default_factory=dict[Path, int])

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Source:
        """Find the trajectories of a run directory, an evaluation's folder, a folder of journals or a file.

        Raises:
            RunDirectoryError: there are none.
        """
        where = Path(path)
        if where.is_dir():
            return cls(_journals(where))
        if not where.exists():
            raise RunDirectoryError(
                f"there is no {where}. Give a run directory such as runs/household, the folder of an "
                "evaluation, or a file of trajectories (.jsonl.zst, .jsonl, .parquet)."
            )
        _reader_of(where)
        return cls((where,))

    def __iter__(self) -> Iterator[Record]:
        """Yield every intact record. Raises `RunDirectoryError` where a file is not one of ours."""
        for file in self.files:
            reader = _reader_of(file)(file)
            yield from reader
            if reader.dropped_bytes:
                self.torn[file] = reader.dropped_bytes
            if reader.damaged_bytes:
                self.damaged[file] = reader.damaged_bytes


def _journals(folder: Path) -> tuple[Path, ...]:
    inside = folder / "trajectories"
    found = tuple(sorted((inside if inside.is_dir() else folder).glob("*.jsonl.zst")))
    if found:
        return found
    if (folder / "eval.json").exists():
        raise RunDirectoryError(
            f"the evaluation in {folder} kept no trajectories; `agentrl eval ... --out FOLDER` keeps them."
        )
    if (folder / "run.toml").exists():
        raise RunDirectoryError(
            f"the run in {folder} has no journal of trajectories: only reinforcement writes one. Export an "
            "evaluation of its model instead (`agentrl eval ... --out FOLDER`)."
        )
    raise RunDirectoryError(
        f"{folder} is neither a run directory nor a folder of journals (*.jsonl.zst). Give a run directory "
        "such as runs/household, or the folder that `agentrl eval ... --out FOLDER` wrote."
    )


def _reader_of(file: Path) -> type[Reader]:
    for end, reader in READERS.items():
        if file.name.endswith(end):
            return reader
    raise RunDirectoryError(
        f"{file} is no file of trajectories: their names end in {', '.join(READERS)}. "
        "Give one of those, or a run directory."
    )
