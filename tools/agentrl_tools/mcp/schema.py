"""A tool's signature from the JSON schema that its server sends."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from agentrl.errors import EnvironmentFault, ToolArgumentError, ToolDefinitionError, did_you_mean
from agentrl.world.signature import Signature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentrl.world.json_text import Json

_UNWRITABLE: Final = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST: Final = 64


def writable(name: str) -> str:
    """Return a server's name of a tool as a model and its API can write it.

    >>> writable("files.read"), writable("2nd")
    ('files_read', '_2nd')
    """
    name = _UNWRITABLE.sub("_", name)[:_LONGEST]
    return name if name[:1].isalpha() or name[:1] == "_" else f"_{name}"[:_LONGEST]


@dataclass(frozen=True, eq=False)
class JsonSignature(Signature):
    """A signature whose arguments are checked against the schema, as it was sent, before a call.

    Attributes:
        validator: of jsonschema; references to other documents are not followed.
        open: whether the tool takes arguments that the schema does not name.
    """

    validator: Any = field(default=None, repr=False)
    open: bool = False

    def validate(self, arguments: Mapping[str, Json]) -> dict[str, object]:
        """Return the arguments as they are.

        Raises:
            ToolArgumentError: one is unknown, missing or does not fit; the message names it.
            EnvironmentFault: the schema cannot be read to its end.
        """
        if not self.open:
            self._check_names(arguments)
        from referencing.exceptions import Unresolvable

        try:
            problem = next(iter(self.validator.iter_errors(dict(arguments))), None)
        except Unresolvable as error:
            raise EnvironmentFault(
                f"the schema of {self.name} points to another document, which is not fetched, "
                f"or to nothing: {error}"
            ) from error
        if problem is None:
            return dict(arguments)
        where = "".join(f"[{part!r}]" for part in list(problem.absolute_path)[1:])
        first = next(iter(problem.absolute_path), None)
        what = "The arguments" if first is None else f"The argument {first!r}{where}"
        raise ToolArgumentError(f"{what} of {self.name}: {problem.message[:300]}.")

    def _check_names(self, arguments: Mapping[str, Json]) -> None:
        for name in arguments:
            if name not in self.properties:
                known = (
                    f"Its arguments are {', '.join(self.properties)}."
                    if self.properties
                    else "It takes none."
                )
                raise ToolArgumentError(
                    f"{self.name} has no argument {name!r}.{did_you_mean(name, self.properties)} {known}"
                )
        for name in self.required:
            if name not in arguments:
                raise ToolArgumentError(f"{self.name} needs the argument {name!r}; it was not given.")


def signature_of(name: str, description: str, schema: Mapping[str, object], server: str) -> JsonSignature:
    """Build a signature.

    Args:
        name: that the model writes.
        schema: of the arguments, an object.

    Raises:
        ToolDefinitionError: the schema is none.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from pydantic import TypeAdapter
    from referencing import Registry

    parameters = cast("dict[str, Json]", copy.deepcopy(dict(schema)))
    kind: Any = validator_for(parameters, default=Draft202012Validator)
    try:
        kind.check_schema(parameters)
    except SchemaError as error:
        raise ToolDefinitionError(
            f"the tool {name!r} of {server} has a schema that is none: {error.message[:200]}."
        ) from error
    properties = parameters.setdefault("properties", {})
    if not isinstance(properties, dict):
        raise ToolDefinitionError(f"the arguments of the tool {name!r} of {server} are no table.")
    # A property may be `true`, which takes anything; what shows schemas expects tables.
    parameters["properties"] = {
        key: value if isinstance(value, dict) else {} for key, value in properties.items()
    }
    anything: TypeAdapter[object] = TypeAdapter(object)
    return JsonSignature(
        name,
        description,
        parameters,
        tuple(str(key) for key in cast("list[Json]", parameters.get("required", []))),
        dict.fromkeys(properties, anything),
        kind(dict(schema), registry=Registry()),
        parameters.get("additionalProperties", False) is not False,
    )
