"""Settings from TOML files and the command line, with errors that name the file, the line and the repair."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from agentrl.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, arbitrary_types_allowed=False)


Loaded = TypeVar("Loaded", bound=Settings)


def read_toml(path: Path) -> dict[str, object]:
    """Read a TOML file.

    Raises:
        ConfigError: the file is missing, unreadable or no TOML; the sentence names file and line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else [])
        raise ConfigError(f"there is no settings file {path}.{near}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the settings file {path}: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}. Mend that line and run again.") from error


def load(model: type[Loaded], path: Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read settings from a TOML file, with `section.name=value` overrides on top.

    Raises:
        ConfigError: an unknown name, a wrong type or a broken file.
    """
    values = read_toml(path)
    for override in overrides:
        apply_override(values, override)
    return validate(model, values, source=path)


def validate(model: type[Loaded], values: Mapping[str, object], source: Path | None = None) -> Loaded:
    """Turn plain values into settings. Raises `ConfigError` listing every wrong value with its line."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = source.read_text(encoding="utf-8").splitlines() if source else []
        problems = [_problem(item, model, source, lines) for item in error.errors()]
        raise ConfigError("\n".join(problems)) from None


def apply_override(values: dict[str, object], override: str) -> None:
    """Apply one `section.name=value`; the value is TOML, or plain text where it is no TOML.

    >>> settings = {}
    >>> apply_override(settings, "rl.steps=3"); apply_override(settings, "name=demo"); settings
    {'rl': {'steps': 3}, 'name': 'demo'}
    """
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"an override has the form section.name=value; got {override!r}.")
    *sections, last = name.strip().split(".")
    place = values
    for section in sections:
        inner = place.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{name!r} cannot be set: {section!r} is a value, not a section.")
        place = inner
    place[last] = _toml_value(text.strip())


def _toml_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _problem(item: ErrorDetails, model: type[BaseModel], source: Path | None, lines: Sequence[str]) -> str:
    path = ".".join(str(part) for part in item["loc"])
    line = _line_of(item["loc"], lines)
    where = f"{source}, line {line}: " if source and line else f"{source}: " if source else ""
    if item["type"] == "extra_forbidden":
        near = did_you_mean(str(item["loc"][-1]), _names_beside(item["loc"], model))
        return f"{where}there is no setting {path!r}.{near}"
    if item["type"] == "missing":
        return f"{where}the setting {path!r} is missing; give it a value."
    return f"{where}{path} = {item['input']!r} does not fit: {item['msg'][0].lower()}{item['msg'][1:]}."


def _names_beside(location: Sequence[int | str], model: type[BaseModel]) -> list[str]:
    current: object = model
    for part in location[:-1]:
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return []
        field = current.model_fields.get(str(part))
        current = field.annotation if field else None
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _line_of(location: Sequence[int | str], lines: Sequence[str]) -> int | None:
    """The line of a setting in the file's text: its section header, then its name."""
    section, *_ = [*(str(part) for part in location[:-1]), ""]
    current = ""
    for number, line in enumerate(lines, start=1):
        text = line.split("#")[0].strip()
        if text.startswith("["):
            current = text.strip("[] ")
            if current == ".".join(str(part) for part in location):
                return number
        elif text.split("=")[0].strip() == str(location[-1]) and current.split(".")[0] == section:
            return number
    return None
