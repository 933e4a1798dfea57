"""What a tool's caller may write: its JSON schema, and arguments validated and coerced against its types."""

from __future__ import annotations

import inspect
import re
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agentrl.errors import ToolArgumentError, ToolDefinitionError, did_you_mean
from agentrl.world.json_text import Json, read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pydantic import TypeAdapter
    from typing_extensions import TypeForm

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}\Z")
_RECEIVERS = ("self", "cls")


@dataclass(frozen=True, eq=False)
class Signature:
    """The name, description and parameters of a tool.

    Attributes:
        parameters: the JSON schema of the arguments (an object).
        required: names of the arguments without a default.
        adapters: one pydantic adapter for each argument.
    """

    name: str
    description: str
    parameters: dict[str, Json]
    required: tuple[str, ...]
    adapters: Mapping[str, TypeAdapter[object]]

    @property
    def schema(self) -> dict[str, Json]:
        """The OpenAI function form, as `transformers.utils.get_json_schema` writes it."""
        function: dict[str, Json] = {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
        }
        return {"type": "function", "function": function}

    @property
    def properties(self) -> dict[str, dict[str, Json]]:
        """The schema of each argument by name."""
        return typing.cast("dict[str, dict[str, Json]]", self.parameters["properties"])

    def validate(self, arguments: Mapping[str, Json]) -> dict[str, object]:
        """Return the arguments coerced to their declared types.

        Raises:
            ToolArgumentError: an argument is unknown, missing or of a wrong type; the message names it.
        """
        self._check_names(arguments)
        return {name: self._coerce(name, value) for name, value in arguments.items()}

    def _check_names(self, arguments: Mapping[str, Json]) -> None:
        for name in arguments:
            if name not in self.adapters:
                known = f"Its arguments are {_listed(self.adapters)}." if self.adapters else "It takes none."
                raise ToolArgumentError(
                    f"{self.name} has no argument {name!r}.{did_you_mean(name, self.adapters)} {known}"
                )
        for name in self.required:
            if name not in arguments:
                schema = self.properties[name]
                raise ToolArgumentError(
                    f"{self.name} needs the argument {name!r} ({schema.get('description')}); "
                    f"it was not given."
                )

    def _coerce(self, name: str, value: Json) -> object:
        from pydantic import ValidationError  # importing agentrl stays light

        try:
            return self.adapters[name].validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = "".join(f"[{part!r}]" for part in first["loc"])
            raise ToolArgumentError(
                f"The argument {name!r}{where} of {self.name} is wrong: {first['msg']}; got {_short(value)}."
            ) from error

    def read(self, text: str) -> dict[str, Json]:
        """Read arguments that were written as the bare content of a tag or a fence.

        One parameter takes the whole text; several are written as a JSON object.

        Raises:
            ToolArgumentError: several arguments are needed and the text is no JSON object.
        """
        if not self.adapters:
            return self._read_nothing(text)
        name = self.only_parameter
        if name is not None:
            return {name: self._read_one(name, text)}
        example = ", ".join(f'"{key}": ...' for key in self.adapters)
        try:
            value = read_json(text)
        except ValueError as error:
            raise ToolArgumentError(
                f"{self.name} takes a JSON object, {{{example}}}, but what was written is no JSON: {error}."
            ) from error
        if not isinstance(value, dict):
            raise ToolArgumentError(f"{self.name} takes a JSON object, {{{example}}}; got {_short(value)}.")
        return value

    def _read_nothing(self, text: str) -> dict[str, Json]:
        if text.strip() in {"", "{}"}:
            return {}
        raise ToolArgumentError(f"{self.name} takes no arguments; got {_short(text.strip())}.")

    def _read_one(self, name: str, text: str) -> Json:
        if self.properties[name].get("type") == "string":
            return text.strip("\n") if "\n" in text.strip() else text.strip()
        try:
            return read_json(text)
        except ValueError:
            return text.strip()

    @property
    def only_parameter(self) -> str | None:
        """The parameter that takes the whole text of a tag: the only one, or the only required one."""
        if len(self.adapters) == 1:
            return next(iter(self.adapters))
        return self.required[0] if len(self.required) == 1 else None


def read_signature(function: Callable[..., object], name: str | None = None) -> Signature:
    """Build a tool's signature from the types and the Google docstring of a function.

    Raises:
        ToolDefinitionError: a type, the docstring or the description of an argument is missing, or a type
            has no JSON form; the message shows the line to add.
    """
    label = name or function.__name__
    if not _NAME.match(label):
        raise ToolDefinitionError(
            f"a tool's name must be letters, digits, '_' and '-', at most 64; got {label!r}. Pass name=..."
        )
    _check_plain(function, label)
    parameters = _parameters(function, label)
    hints = _hints(function, parameters, label)
    description, documented = _documentation(function, label, parameters)
    adapters = {key: _adapter(label, key, hint) for key, hint in hints.items()}
    properties: dict[str, Json] = {}
    for key, hint in hints.items():
        text = documented.get(key) or _annotated_text(hint)
        if not text:
            raise ToolDefinitionError(_undescribed(label, key, bool(documented)))
        properties[key] = {**_schema(label, key, adapters[key]), "description": text}
    required = tuple(key for key, value in parameters.items() if value.default is inspect.Parameter.empty)
    schema: dict[str, Json] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    return Signature(label, description, schema, required, types.MappingProxyType(adapters))


def _check_plain(function: Callable[..., object], label: str) -> None:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ToolDefinitionError(
            f"the tool {label!r} is async, which tools cannot be yet. Make it a plain function; "
            f"if it waits for something, @tool(timeout=seconds) runs it in a thread with a deadline."
        )


def _parameters(function: Callable[..., object], label: str) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(function).parameters)
    first = next(iter(found), "")
    if first in _RECEIVERS:
        del found[first]
    for key, parameter in found.items():
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise ToolDefinitionError(
                f"the parameter {_starred(parameter)!r} of the tool {label!r} has no name that a model could "
                f"write. Replace it by named parameters."
            )
        if parameter.annotation is inspect.Parameter.empty:
            raise ToolDefinitionError(
                f"the parameter {key!r} of the tool {label!r} has no type. Write, for example, {key}: str"
            )
    return found


def _starred(parameter: inspect.Parameter) -> str:
    if parameter.kind is parameter.VAR_KEYWORD:
        return f"**{parameter.name}"
    return f"*{parameter.name}" if parameter.kind is parameter.VAR_POSITIONAL else parameter.name


def _hints(
    function: Callable[..., object], parameters: Mapping[str, inspect.Parameter], label: str
) -> dict[str, object]:
    holder = types.SimpleNamespace(__annotations__={key: p.annotation for key, p in parameters.items()})
    try:
        hints = typing.get_type_hints(
            holder, globalns=getattr(function, "__globals__", {}), include_extras=True
        )
    except NameError as error:
        raise ToolDefinitionError(
            f"a type of the tool {label!r} cannot be read: {error}. Import it at the top of the module, "
            f"not under TYPE_CHECKING and not inside a function."
        ) from error
    return dict(hints)


def _documentation(
    function: Callable[..., object], label: str, parameters: Mapping[str, inspect.Parameter]
) -> tuple[str, dict[str, str]]:
    import docstring_parser  # only needed where a tool is defined

    parsed = docstring_parser.parse(inspect.getdoc(function) or "", style=docstring_parser.Style.GOOGLE)
    if not parsed.description:
        raise ToolDefinitionError(
            f"the tool {label!r} has no docstring, and a model learns what a tool does from it. Add as "
            f'the first line of its body: """Say in one sentence what {label} does."""'
        )
    documented = {
        item.arg_name: re.sub(r"\s*\n+\s*", " ", (item.description or "").strip()) for item in parsed.params
    }
    for key in documented:
        if key not in parameters:
            raise ToolDefinitionError(
                f"the docstring of the tool {label!r} describes {key!r}, which is no parameter."
                f"{did_you_mean(key, parameters)} Remove the line or rename it."
            )
    return parsed.description.strip(), documented


def _annotated_text(hint: object) -> str:
    if typing.get_origin(hint) is not typing.Annotated:
        return ""
    return next((item for item in typing.get_args(hint)[1:] if isinstance(item, str)), "")


def _undescribed(label: str, key: str, has_section: bool) -> str:  # private, one caller
    line = f"        {key}: what it is"
    lines = line if has_section else f"    Args:\n{line}"
    return f"the tool {label!r} does not describe its argument {key!r}. Add to its docstring:\n{lines}"


def _adapter(label: str, key: str, hint: object) -> TypeAdapter[object]:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter  # see _coerce

    form = typing.cast("TypeForm[object]", hint)
    try:
        return TypeAdapter(form, config=ConfigDict(allow_inf_nan=False))
    except PydanticUserError as error:
        # Models, dataclasses and typed dictionaries carry a configuration of their own.
        if error.code == "type-adapter-config-unused":
            return TypeAdapter(form)
        raise ToolDefinitionError(_no_json(label, key, hint)) from error


def _schema(label: str, key: str, adapter: TypeAdapter[object]) -> dict[str, Json]:
    from pydantic import PydanticUserError  # see _coerce

    try:
        whole: dict[str, Json] = adapter.json_schema()
    except PydanticUserError as error:
        raise ToolDefinitionError(_no_json(label, key, "its type")) from error
    definitions = typing.cast("dict[str, Json]", whole.pop("$defs", {}))
    try:
        plain = _plain(whole, definitions)
    except RecursionError as error:
        raise ToolDefinitionError(f"the type of {key!r} of the tool {label!r} contains itself.") from error
    return typing.cast("dict[str, Json]", plain)


def _no_json(label: str, key: str, hint: object) -> str:
    return (
        f"the parameter {key!r} of the tool {label!r} has a type without a JSON form: {hint}. "
        f"Use str, int, float, bool, list, dict, Literal, an Enum, a dataclass or a pydantic model."
    )


def _plain(schema: Json, definitions: Mapping[str, Json]) -> Json:
    """Write pydantic's schema as transformers does: no references, no titles, `nullable`, joined types."""
    if isinstance(schema, list):
        return [_plain(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _plain(definitions[str(schema["$ref"]).rsplit("/", 1)[-1]], definitions)
    dropped = {"title", "minItems", "maxItems"} if "prefixItems" in schema else {"title"}
    if schema.get("additionalProperties") is True:
        dropped.add("additionalProperties")
    if "properties" in schema:
        dropped.discard("additionalProperties")
    kept = {key: value for key, value in schema.items() if key not in dropped or isinstance(value, dict)}
    return _joined({key: _plain(value, definitions) for key, value in kept.items()})


def _joined(schema: dict[str, Json]) -> dict[str, Json]:
    options = schema.get("anyOf")
    if not isinstance(options, list):
        if schema.get("const") is not None:
            schema["enum"] = [schema.pop("const")]
        return schema
    others = [option for option in options if option != {"type": "null"}]
    joined = {key: value for key, value in schema.items() if key != "anyOf"}
    names = [option.get("type") for option in others if isinstance(option, dict) and set(option) == {"type"}]
    if len(others) == 1 and isinstance(others[0], dict):
        joined.update(others[0])
    elif len(names) == len(others):
        joined["type"] = [*sorted({str(name) for name in names})]
    else:
        joined["anyOf"] = others
    if len(others) < len(options):
        joined["nullable"] = True
    return joined


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
