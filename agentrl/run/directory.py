"""The run directory: what a run leaves behind, and what it can be resumed from.

`run.toml` settings, versions, git state · `metrics.jsonl` · `trajectories/` · `checkpoints/` ·
`summary.json` · `samples.jsonl` · `report.html`.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from agentrl.errors import RunDirectoryError

if TYPE_CHECKING:
    from collections.abc import Generator

    from agentrl.config import Settings
    from agentrl.credit.part import Description

    Row = Mapping[str, object]

PACKAGES = ("agentrl", "torch", "transformers", "tokenizers", "numpy", "gymnasium")
VOLATILE = frozenset({"out", "processes", "samples", "keep_checkpoints"})
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
            directory._write("run.toml", to_toml(_card(settings, algorithm)))
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
        return _table(self._card(), "settings")

    def algorithm(self) -> dict[str, object]:
        """Return the description of the algorithm that the run was started with, empty where none was kept.

        TOML has no null: an empty table stands for it.
        """
        return _table(self._card(), "algorithm")

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
        changes = _differences(_completed(self.settings(), settings), plain(settings))
        if algorithm is not None and self.algorithm():
            changes += _differences({"algorithm": self.algorithm()}, {"algorithm": _without_null(algorithm)})
        return changes

    def accept(
        self, settings: Settings, algorithm: Mapping[str, Description] | None, changes: list[str]
    ) -> None:
        """Write changed settings into `run.toml`, with the list of all changes so far."""
        when = datetime.now(tz=UTC).isoformat(timespec="seconds")
        card = self._card()
        earlier = card.get("changes")
        card["changes"] = [
            *(earlier if isinstance(earlier, list) else []),
            *(f"{when}: {item}" for item in changes),
        ]
        card["settings"] = plain(settings)
        if algorithm is not None:
            card["algorithm"] = _without_null(algorithm)
        self._write("run.toml", to_toml(card))

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


def _table(card: Mapping[str, object], name: str) -> dict[str, object]:
    found = card.get(name, {})
    return found if isinstance(found, dict) else {}


def _differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    old, new = flatten(before), flatten(now)
    return [
        f"{name}: was {old.get(name, 'unset')!r}, now {new.get(name, 'unset')!r}"
        for name in sorted(set(old) | set(new))
        if old.get(name) != new.get(name) and name.split(".")[0] not in VOLATILE
    ]


def _completed(old: dict[str, object], like: Settings) -> dict[str, object]:
    """Settings as a run card has them, with the defaults of those that it does not name."""
    try:
        return plain(type(like).model_validate(old))
    except ValidationError:  # of another version, or changed by hand: as they stand
        return old


def _without_null(value: Description | Mapping[str, Description]) -> object:
    """A description as TOML can hold it: an empty table in place of None."""
    if value is None:
        return {}
    if isinstance(value, list):
        return [_without_null(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _without_null(item) for name, item in value.items()}
    return value


def plain(settings: Settings) -> dict[str, object]:
    """Return settings as plain values without the unset ones."""
    return settings.model_dump(mode="json", exclude_none=True)


def flatten(values: Mapping[str, object], head: str = "") -> dict[str, object]:
    """Return nested settings as one level of dotted names.

    >>> flatten({"rl": {"steps": 3}, "seed": 1})
    {'rl.steps': 3, 'seed': 1}
    >>> flatten({"terms": [{"weight": 1.0}, {"weight": 0.5}]})
    {'terms.0.weight': 1.0, 'terms.1.weight': 0.5}
    """
    flat: dict[str, object] = {}
    for name, given in values.items():
        value = given
        if isinstance(given, list) and any(isinstance(item, dict) for item in given):
            value = {str(place): item for place, item in enumerate(given)}
        if isinstance(value, dict):
            flat.update(flatten(value, f"{head}{name}."))
        else:
            flat[head + name] = value
    return flat


def to_toml(values: Mapping[str, object]) -> str:
    """Write nested plain values as TOML (strings, numbers, booleans, lists, tables)."""
    simple = [f"{_key(k)} = {_value(v)}" for k, v in values.items() if not isinstance(v, dict)]
    lines = [*simple, ""]
    _tables(values, "", lines)
    return "\n".join(lines).strip() + "\n"


def _tables(values: Mapping[str, object], head: str, lines: list[str]) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            full = f"{head}{_key(name)}"
            lines.append(f"[{full}]")
            lines += [f"{_key(k)} = {_value(v)}" for k, v in value.items() if not isinstance(v, dict)]
            lines.append("")
            _tables(value, full + ".", lines)


def _value(value: object) -> str:
    """One value on one line; a table inside of a list is written in line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() else json.dumps(name)


def _card(settings: Settings, algorithm: Mapping[str, Description] | None) -> dict[str, object]:
    card = {**provenance(), "settings": plain(settings)}
    return card if algorithm is None else {**card, "algorithm": _without_null(algorithm)}


def provenance() -> dict[str, object]:
    """Return when, with which versions and by which command something was made."""
    return {
        "started": datetime.now(tz=UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "git": _git_state(),
        "command": {"argv": list(sys.argv[1:])},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git_state() -> dict[str, object]:
    """Commit and whether files differ from it, of the checkout that this package stands in."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return {}
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git(here, "status", "--porcelain"))}
    except (OSError, subprocess.TimeoutExpired):
        return {}


def _git(here: Path, *arguments: str) -> str:
    ended = subprocess.run(  # noqa: S603  # fixed arguments, no shell
        ["git", *arguments],  # noqa: S607  # the git of the user's PATH
        cwd=here,
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return ended.stdout.strip()


def _number(value: object) -> object:
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)
