"""What `run.toml` says of a run: settings, versions, git state, and how a later run differs from them."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

if TYPE_CHECKING:
    from agentrl.config import Settings
    from agentrl.credit.part import Description

PACKAGES = ("agentrl", "torch", "transformers", "tokenizers", "numpy", "gymnasium")
VOLATILE = frozenset({"out", "processes", "samples", "keep_checkpoints"})


def new_card(settings: Settings, algorithm: Mapping[str, Description] | None) -> dict[str, object]:
    """Return the card of a run that begins now."""
    card = {**provenance(), "settings": plain(settings)}
    return card if algorithm is None else {**card, "algorithm": _without_null(algorithm)}


def section(card: Mapping[str, object], name: str) -> dict[str, object]:
    """Return a table of a card, empty where it has none."""
    found = card.get(name, {})
    return found if isinstance(found, dict) else {}


def changes_of(
    card: Mapping[str, object], settings: Settings, algorithm: Mapping[str, Description] | None
) -> list[str]:
    """Return how settings and algorithm differ from those of a card, one sentence each.

    A setting that the card's version did not know had its default there.
    """
    changes = _differences(_completed(section(card, "settings"), settings), plain(settings))
    before = section(card, "algorithm")
    if algorithm is not None and before:
        changes += _differences({"algorithm": before}, {"algorithm": _without_null(algorithm)})
    return changes


def accepted(
    card: Mapping[str, object],
    settings: Settings,
    algorithm: Mapping[str, Description] | None,
    changes: list[str],
) -> dict[str, object]:
    """Return a card with changed settings, and the list of all changes so far."""
    when = datetime.now(tz=UTC).isoformat(timespec="seconds")
    earlier = card.get("changes")
    listed = [*(earlier if isinstance(earlier, list) else []), *(f"{when}: {item}" for item in changes)]
    new = {**card, "changes": listed, "settings": plain(settings)}
    return new if algorithm is None else {**new, "algorithm": _without_null(algorithm)}


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
