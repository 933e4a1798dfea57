"""The run directory: what a run leaves behind, and what it can be resumed from.

`run.toml` settings, versions, git state · `metrics.jsonl` · `trajectories/` · `checkpoints/` ·
`summary.json` · `samples.jsonl` · `report.html`.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import tomllib
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentrl.errors import RunDirectoryError
from agentrl.run.card import accepted, changes_of, new_card, section, to_toml

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

    from agentrl.config import Settings
    from agentrl.credit.part import Description

    Row = Mapping[str, object]

LOCK = ".lock"
LEFT_BEHIND = (
    "start",
    "checkpoints",
    "control",
    "trajectories",
    "metrics.jsonl",
    "samples.jsonl",
    "run.toml",
)
"""What a run that failed before any work may have left in its folder."""


@dataclass(frozen=True)
class RunDirectory:
    """A folder of one run; `made` by it, so that it may remove it again."""

    path: Path
    made: bool = field(default=False, compare=False)

    @classmethod
    def create(
        cls, path: Path, settings: Settings, algorithm: Mapping[str, Description] | None = None
    ) -> RunDirectory:
        """Make the folder and write `run.toml`. What a run that did no work left there is removed.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        try:
            refuse_a_file(path)
            directory = cls(path, made=cls(path).started or not path.exists() or not any(path.iterdir()))
            if directory.started and not directory.worked:
                directory._clear()
            for folder in ("trajectories", "checkpoints"):
                (path / folder).mkdir(parents=True, exist_ok=True)
            directory._write("run.toml", to_toml(new_card(settings, algorithm)))
        except OSError as error:
            raise RunDirectoryError(
                f"the run directory {path} cannot be written: {error.strerror or error}. "
                "Choose another with --out, or free space there."
            ) from error
        return directory

    @property
    def started(self) -> bool:
        """Whether a run lives here."""
        return (self.path / "run.toml").exists()

    @property
    def worked(self) -> bool:
        """Whether a run did anything here that is worth keeping: a checkpoint or a row of metrics."""
        return bool(self.size("metrics.jsonl")) or any(self.checkpoints.glob("*/manifest.json"))

    @property
    def taken(self) -> bool:
        """Whether another run may not start here: one did some work, or is at work now."""
        return self.started and (self.worked or self._busy())

    def _busy(self) -> bool:
        try:
            with self.held():
                return False
        except RunDirectoryError:
            return True

    @contextmanager
    def held(self) -> Generator[None]:
        """Keep other processes from working in the folder.

        Raises:
            RunDirectoryError: one does already.
        """
        try:
            file = (self.path / LOCK).open("w")
        except OSError:  # a file system that refuses it says so when the run writes its files
            yield
            return
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunDirectoryError(
                    f"another process is at work on the run in {self.path}. Wait for its end, or choose "
                    "another folder with --out."
                ) from error
            except OSError:  # no locks on this file system
                pass
            yield

    def forget(self) -> None:
        """Remove the folder that this run made, if it did no work and nobody else put anything there."""
        if not self.made or self.worked:
            return
        with suppress(OSError):
            self._clear()
            (self.path / LOCK).unlink(missing_ok=True)
            self.path.rmdir()

    def _clear(self) -> None:
        for name in LEFT_BEHIND:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    def settings(self) -> dict[str, object]:
        """Return the settings that the run was started with."""
        return section(self._card(), "settings")

    def algorithm(self) -> dict[str, object]:
        """Return the description of the algorithm that the run was started with, empty where none was kept.

        TOML has no null: an empty table stands for it.
        """
        return section(self._card(), "algorithm")

    def _card(self) -> dict[str, object]:
        try:
            return tomllib.loads((self.path / "run.toml").read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise RunDirectoryError(
                f"{self._unreadable(error)}, so no run can be read or resumed there. "
                "Give the folder of a run, such as runs/household."
            ) from error

    def _unreadable(self, error: Exception) -> str:
        """Why there is no card, as the beginning of a sentence."""
        if not self.path.exists():
            return f"there is no folder {self.path}"
        if not self.path.is_dir():
            return f"{self.path} is a file and no folder"
        if isinstance(error, FileNotFoundError):
            return f"{self.path} holds no run.toml"
        why = error.strerror if isinstance(error, OSError) else error
        return f"{self.path} holds no readable run.toml ({why})"

    def changes(self, settings: Settings, algorithm: Mapping[str, Description] | None = None) -> list[str]:
        """Return how settings and algorithm differ from those of the run, one sentence each.

        A setting that the run's version did not know had its default there.
        """
        return changes_of(self._card(), settings, algorithm)

    def accept(
        self, settings: Settings, algorithm: Mapping[str, Description] | None, changes: list[str]
    ) -> None:
        """Write changed settings into `run.toml`, with the list of all changes so far."""
        self._write("run.toml", to_toml(accepted(self._card(), settings, algorithm, changes)))

    def add_metrics(self, row: Row) -> None:
        """Append one line to `metrics.jsonl`."""
        self.append("metrics.jsonl", row)

    def metrics(self, phase: str) -> list[dict[str, object]]:
        """Return the rows of a phase in `metrics.jsonl`."""
        lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [row for line in lines if (row := json.loads(line))["phase"] == phase]

    def append(self, name: str, row: Row) -> None:
        """Append one line of JSON to a file of the run."""
        try:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, default=_number) + "\n")
        except OSError as error:
            raise RunDirectoryError(
                f"{self.path / name} cannot be written: {error.strerror}. Free space, then resume the run."
            ) from error

    def size(self, name: str) -> int:
        """Bytes of a file of the run, 0 where there is none."""
        file = self.path / name
        return file.stat().st_size if file.exists() else 0

    def cut(self, name: str, size: int) -> None:
        """Forget what was appended to a file after a checkpoint."""
        file = self.path / name
        if file.exists() and file.stat().st_size > size:
            os.truncate(file, size)

    def write_json(self, name: str, content: Row) -> None:
        """Write a JSON file atomically."""
        self._write(name, json.dumps(content, indent=1, default=_number) + "\n")

    def _write(self, name: str, text: str) -> None:
        aside = self.path / f".{name}.{os.getpid()}"
        try:
            aside.write_text(text, encoding="utf-8")
            aside.replace(self.path / name)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise RunDirectoryError(
                f"{self.path / name} cannot be written: {error.strerror}. Free space, then resume."
            ) from error


def refuse_a_file(path: Path) -> None:
    """Raise `RunDirectoryError` where a folder is to be made and a file stands in its way."""
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise RunDirectoryError(
                f"{path} cannot be written: {'it' if place == path else place} is a file, and a folder is "
                "expected there. Choose another with --out, or move that file away."
            )


def free_directory(path: Path) -> Path:
    """Return `path`, or the first of `path`-2, `path`-3, ... where no other run stands."""
    names = itertools.chain(
        [path], (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    )
    return next(candidate for candidate in names if not RunDirectory(candidate).taken)


def _number(value: object) -> object:
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)
