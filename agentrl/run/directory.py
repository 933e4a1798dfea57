"""The run directory: what a run leaves behind, and what it can be resumed from.

`run.toml` settings, versions, git state · `metrics.jsonl` · `trajectories/` · `checkpoints/` · `summary.json` ·
`samples.jsonl` · `report.html`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from agentrl.errors import RunDirectoryError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentrl.config import Settings

    Row = Mapping[str, object]

PACKAGES = ("agentrl", "torch", "transformers", "tokenizers", "numpy", "gymnasium")
VOLATILE = frozenset({"out", "processes", "samples", "keep_checkpoints"})


@dataclass(frozen=True)
class RunDirectory:
    """A folder of one run."""

    path: Path

    @classmethod
    def create(cls, path: Path, settings: Settings) -> RunDirectory:
        """Make the folder and write `run.toml`. Raises `RunDirectoryError` where it cannot be written."""
        directory = cls(path)
        try:
            for folder in ("trajectories", "checkpoints"):
                (path / folder).mkdir(parents=True, exist_ok=True)
            directory._write("run.toml", to_toml(_card(settings)))
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
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    def settings(self) -> dict[str, object]:
        """Return the settings that the run was started with."""
        try:
            card = tomllib.loads((self.path / "run.toml").read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise RunDirectoryError(
                f"{self.path} holds no readable run.toml, so nothing can be resumed: {error}."
            ) from error
        found = card.get("settings", {})
        return found if isinstance(found, dict) else {}

    def changes(self, settings: Settings) -> list[str]:
        """Return how `settings` differ from those of the run, one sentence each."""
        before, now = flatten(self.settings()), flatten(plain(settings))
        names = sorted(set(before) | set(now))
        return [
            f"{name}: was {before.get(name, 'unset')!r}, now {now.get(name, 'unset')!r}"
            for name in names
            if before.get(name) != now.get(name) and name.split(".")[0] not in VOLATILE
        ]

    def add_metrics(self, row: Row) -> None:
        """Append one line to `metrics.jsonl`."""
        self.append("metrics.jsonl", row)

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


def plain(settings: Settings) -> dict[str, object]:
    """Return settings as plain values without the unset ones."""
    return settings.model_dump(mode="json", exclude_none=True)


def flatten(values: Mapping[str, object], head: str = "") -> dict[str, object]:
    """Return nested settings as one level of dotted names.

    >>> flatten({"rl": {"steps": 3}, "seed": 1})
    {'rl.steps': 3, 'seed': 1}
    """
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{head}{name}."))
        else:
            flat[head + name] = value
    return flat


def to_toml(values: Mapping[str, object]) -> str:
    """Write nested plain values as TOML (strings, numbers, booleans, lists, tables)."""
    simple = [
        f"{_key(k)} = {json.dumps(v, ensure_ascii=False)}"
        for k, v in values.items()
        if not isinstance(v, dict)
    ]
    lines = [*simple, ""]
    _tables(values, "", lines)
    return "\n".join(lines).strip() + "\n"


def _tables(values: Mapping[str, object], head: str, lines: list[str]) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            full = f"{head}{_key(name)}"
            lines.append(f"[{full}]")
            lines += [
                f"{_key(k)} = {json.dumps(v, ensure_ascii=False)}"
                for k, v in value.items()
                if not isinstance(v, dict)
            ]
            lines.append("")
            _tables(value, full + ".", lines)


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() else json.dumps(name)


def _card(settings: Settings) -> dict[str, object]:
    return {**provenance(), "settings": plain(settings)}


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
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=False
        )  # git of the user's path
        changed = subprocess.run(
            ["git", "status", "--porcelain"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )  # likewise
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {"commit": commit.stdout.strip(), "changed": bool(changed.stdout.strip())}


def _number(value: object) -> object:
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)
