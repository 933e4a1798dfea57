"""Settings from TOML files and the command line, with errors that name the file, the line and the repair."""

from __future__ import annotations

import difflib
import json
import tomllib
from types import UnionType
from typing import TYPE_CHECKING, TypeGuard, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from agentrl.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown name is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, arbitrary_types_allowed=False
    )


Loaded = TypeVar("Loaded", bound=Settings)


def read_toml(path: Path) -> dict[str, object]:
    """Read a TOML file.

    Raises:
        ConfigError: the file is missing, unreadable or no TOML; the sentence names file and line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = path.parent.glob("*.toml") if path.parent.is_dir() else ()
        near = did_you_mean(path.name, [file.name for file in beside])
        raise ConfigError(f"there is no settings file {path}.{near}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"line {line} of the settings file {path} is not UTF-8. Save it as UTF-8."
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {path}: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}. Mend that line and run again.") from error


def load(model: type[Loaded], path: Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read settings from a TOML file, with `section.name=value` overrides on top.

    Raises:
        ConfigError: an unknown name, a wrong type or a broken file.
    """
    return validate(model, read_toml(path), source=path, overrides=overrides)


def validate(
    model: type[Loaded],
    values: dict[str, object],
    source: Path | None = None,
    overrides: Sequence[str] = (),
) -> Loaded:
    """Turn plain values, with overrides on top, into settings.

    Raises:
        ConfigError: lists every wrong value with its line in `source`, or as part of the command line.
    """
    for override in overrides:
        apply_override(values, override)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = source.read_text(encoding="utf-8").splitlines() if source else []
        given = {override.partition("=")[0].strip(): override for override in overrides}
        problems = [
            _problem(item, model, _where(item["loc"], source, lines, given)) for item in error.errors()
        ]
        raise ConfigError("\n".join(dict.fromkeys(problems))) from None


def apply_override(values: dict[str, object], override: str) -> None:
    """Apply one `section.name=value`; the value is TOML, or plain text where it is no TOML.

    Entries of a list are named by their number.

    >>> settings = {}
    >>> for text in ("rl.steps=3", "name=demo"):
    ...     apply_override(settings, text)
    >>> settings
    {'rl': {'steps': 3}, 'name': 'demo'}
    >>> suite = {"scenario": [{"tasks": 512}]}
    >>> apply_override(suite, "scenario.0.tasks=8")
    >>> suite
    {'scenario': [{'tasks': 8}]}
    """
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"an override has the form section.name=value; got {override!r}.")
    *sections, last = name.strip().split(".")
    place: object = values
    for section in sections:
        place = _inside(place, section, name)
    if isinstance(place, list):
        place[_entry(place, last, name)] = _toml_value(text.strip())
    elif isinstance(place, dict):
        place[last] = _toml_value(text.strip())
    else:
        raise ConfigError(f"{name!r} cannot be set: {sections[-1]!r} is a value, not a section.")


def _inside(place: object, section: str, name: str) -> object:
    if isinstance(place, list):
        return place[_entry(place, section, name)]
    if isinstance(place, dict):
        return place.setdefault(section, {})
    raise ConfigError(f"{name!r} cannot be set: what stands before {section!r} is a value, not a section.")


def _entry(place: list[object], section: str, name: str) -> int:
    if section.isdigit() and int(section) < len(place):
        return int(section)
    raise ConfigError(f"{name!r} cannot be set: {section!r} is not one of its entries 0 to {len(place) - 1}.")


def _toml_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _problem(item: ErrorDetails, model: type[BaseModel], where: str) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        name = str(item["loc"][-1])
        elsewhere = [place for place in _places(model) if place.rpartition(".")[2] == name]
        near = f" It stands in {' and '.join(elsewhere)}." if elsewhere else _nearest(item["loc"], model)
        return f"{where}there is no setting {path!r}.{near}"
    if item["type"] == "missing":
        return f"{where}the setting {path!r} is missing; give it a value{_as_in(item['loc'], model)}."
    if item["type"] in TABLES and not isinstance(item["input"], dict):
        return f"{where}{path} = {item['input']!r} does not fit: {_table(path, item['type'])}"
    message = item["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if not path:
        return f"{where}the settings do not fit together: {message}."
    given = "" if isinstance(item["input"], dict) else f" = {item['input']!r}"
    return f"{where}{path}{given} does not fit: {message}."


TABLES = frozenset({"dict_type", "model_type", "model_attributes_type"})
"""How pydantic calls it where a table is expected."""


def _table(path: str, kind: str) -> str:
    if kind == "dict_type":
        return f"it is a table of names and values; give each by its name, as in {path}.NAME=VALUE."
    return f"it is a section; set what stands in it, as in {path}.NAME=VALUE."


def _as_in(location: Sequence[int | str], model: type[BaseModel]) -> str:
    """An example of a missing setting, as a line of the file; empty where none is declared."""
    around = _model_at(location[:-1], model)
    field = around.model_fields.get(str(location[-1])) if around else None
    example = _example(field) if field else ""
    return f", as in {location[-1]} = {example}" if example else ""


def _example(field: FieldInfo) -> str:
    """The example that a field declares; of a section, its required fields that declare one."""
    if field.examples:
        return json.dumps(field.examples[0])
    listed = get_origin(field.annotation) is tuple
    inside = get_args(field.annotation)[0] if listed else _model_in(field.annotation)
    if not _is_model(inside):
        return ""
    parts = {name: _example(one) for name, one in inside.model_fields.items() if one.is_required()}
    table = ", ".join(f"{name} = {text}" for name, text in parts.items() if text)
    return (f"[{{{table}}}]" if listed else f"{{{table}}}") if table else ""


def _nearest(location: Sequence[int | str], model: type[BaseModel]) -> str:
    """Suggest a name beside a wrong one, written out as an override would."""
    head = "".join(f"{part}." for part in location[:-1])
    near = difflib.get_close_matches(str(location[-1]), _names_beside(location, model), n=1)
    return f" Did you mean {head + near[0]!r}?" if near else ""


def _where(
    location: Sequence[int | str], source: Path | None, lines: Sequence[str], overrides: Mapping[str, str]
) -> str:
    """Where a setting was given: on the command line, or in which line of the file.

    A section is about several settings, and so is no location at all: they may stand here and there.
    """
    path = ".".join(str(part) for part in location)
    inside = [text for name, text in overrides.items() if path and name.startswith(f"{path}.")]
    if any(path == name or path.startswith(f"{name}.") for name in overrides):
        return "on the command line: "
    if source and overrides and not location:
        return f"{source}, with the command line: "
    line = _line_of(location, lines)
    file = f"{source}, line {line}" if source and line else str(source) if source else ""
    if inside:
        return f"{file}{' with ' if file else ''}{' '.join(inside)} of the command line: "
    return f"{file}: " if file else ""


def _names_beside(location: Sequence[int | str], model: type[BaseModel]) -> list[str]:
    around = _model_at(location[:-1], model)
    return list(around.model_fields) if around else []


def _model_at(location: Sequence[int | str], model: type[BaseModel]) -> type[BaseModel] | None:
    """The section at a place, or None."""
    current: object = model
    for part in location:
        if isinstance(part, int):
            current = next(iter(get_args(current)), None)
            continue
        field = current.model_fields.get(part) if _is_model(current) else None
        current = _model_in(field.annotation) if field else None
    return current if _is_model(current) else None


def _places(model: type[BaseModel], head: str = "") -> list[str]:
    """The dotted names of all settings, as overrides write them; in a list, those of its first entry."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        found.append(head + name)
        listed = get_origin(field.annotation) is tuple
        inside = get_args(field.annotation)[0] if listed else _model_in(field.annotation)
        if _is_model(inside):
            found += _places(inside, f"{head}{name}.{'0.' if listed else ''}")
    return found


def _model_in(annotation: object) -> object:
    """The settings inside of `Settings | None`; any other annotation as it is."""
    inside = get_args(annotation) if isinstance(annotation, UnionType) else ()
    return next((item for item in inside if _is_model(item)), annotation)


def _is_model(thing: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(thing, type) and issubclass(thing, BaseModel)


def _line_of(location: Sequence[int | str], lines: Sequence[str]) -> int | None:
    """The line of a setting in the file's text, or of the nearest table around it.

    >>> _line_of(("rl", "optimizer", "kind"), ["[rl]", "steps = 3", "[rl.optimizer]", "kind = 1"])
    4
    >>> _line_of(("scenario", 1, "tasks"), ["[[scenario]]", "tasks = 1", "[[scenario]]", "tasks = 'x'"])
    4
    """
    found = _lines_by_path(lines)
    parts = [str(part) for part in location]
    places = (found.get(".".join(parts[:size])) for size in range(len(parts), 0, -1))
    return next((number for number in places if number is not None), None)


def _lines_by_path(lines: Sequence[str]) -> dict[str, int]:
    """The line of every table and every setting by its full dotted path; entries of arrays are numbered."""
    found: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, line in enumerate(lines, start=1):
        text = line.split("#")[0].strip()
        if text.startswith("[[") and text.endswith("]]"):
            name = text.strip("[] ")
            table = f"{name}.{counts.get(name, 0)}"
            counts[name] = counts.get(name, 0) + 1
            found[table] = number
        elif text.startswith("[") and text.endswith("]") and "=" not in text:
            table = text.strip("[] ")
            found[table] = number
        elif "=" in text:
            name = text.split("=")[0].replace('"', "").replace(" ", "")
            found[f"{table}.{name}" if table else name] = number
    return found
