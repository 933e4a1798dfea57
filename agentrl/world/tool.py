"""Tools: typed functions that a model may call."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar, overload

from agentrl.errors import (
    EnvironmentFault,
    ToolArgumentError,
    ToolDefinitionError,
)
from agentrl.world.deadline import within
from agentrl.world.signature import Signature, read_signature
from agentrl.world.source import ToolSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agentrl.world.json_text import Json

F = TypeVar("F", bound="Callable[..., object]")
_MARK: Final = "__agentrl_tool__"
ORDINARY_ERRORS: Final[tuple[type[Exception], ...]] = (
    ToolArgumentError,
    ValueError,
    LookupError,
    ArithmeticError,
)
"""What a tool raises for what the agent asked; other exceptions mean that the tool or its host is broken."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gives back when a text is not enough.

    Attributes:
        text: what the agent reads.
        reward: added to the turn's reward; `done` ends the episode.
        error: set when the call failed and the agent should know; the turn becomes a `tool_error`.
        cost: of the call, besides what the terms of the tool say.
    """

    text: str = ""
    reward: float = 0.0
    done: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    cost: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.reward) or not math.isfinite(self.cost):
            raise EnvironmentFault(
                f"a tool's reward and cost must be finite numbers; got {self.reward!r} and {self.cost!r}."
            )


@dataclass(frozen=True, eq=False)
class Tool:
    """A function with its signature and its limits; `tools_of` makes them.

    Attributes:
        timeout: seconds; a call that takes longer is an `EnvironmentFault`. None waits.
        max_characters: longer results are cut.
        errors: exceptions that are the agent's to read, besides `ORDINARY_ERRORS`.
    """

    signature: Signature
    function: Callable[..., object]
    timeout: float | None = None
    max_characters: int | None = None
    errors: tuple[type[Exception], ...] = ()

    @property
    def name(self) -> str:
        """The name that the model writes."""
        return self.signature.name

    @property
    def description(self) -> str:
        """What the model is told about the tool."""
        return self.signature.description

    @property
    def schema(self) -> dict[str, Json]:
        """The OpenAI function form of the JSON schema."""
        return self.signature.schema

    def call(self, arguments: Mapping[str, Json]) -> ToolResult:
        """Validate the arguments and execute the function.

        Raises:
            ToolArgumentError: the arguments do not fit the schema.
            EnvironmentFault: the tool's infrastructure failed, or its time was up.
            Exception: what the function raised, if that is neither declared nor ordinary.
        """
        return self.execute(self.signature.validate(arguments))

    def execute(self, arguments: Mapping[str, object]) -> ToolResult:
        """Execute the function with arguments that are valid already. Raises as `call` does."""
        call = functools.partial(self.function, **arguments)
        try:
            value = call() if self.timeout is None else within(call, self.timeout, f"the tool {self.name!r}")
        except (*ORDINARY_ERRORS, *self.errors) as error:
            message = f"{self.name} failed: {_message(error)}"
            return ToolResult(text=message, error=message)
        return self._result(value)

    def _result(self, value: object) -> ToolResult:
        result = value if isinstance(value, ToolResult) else ToolResult(_as_text(value, self.name))
        text = result.text or result.error or ""
        if self.max_characters is not None and len(text) > self.max_characters:
            left_out = len(text) - self.max_characters
            text = f"{text[: self.max_characters]}\n[{left_out} more characters were cut]"
        return result if text == result.text else dataclasses.replace(result, text=text)


@dataclass(frozen=True, eq=False)
class _Mark:
    signature: Signature
    timeout: float | None
    max_characters: int | None
    errors: tuple[type[Exception], ...]

    def bind(self, function: Callable[..., object]) -> Tool:
        return Tool(self.signature, function, self.timeout, self.max_characters, self.errors)


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    *,
    name: str | None = None,
    timeout: float | None = None,
    max_characters: int | None = None,
    errors: tuple[type[Exception], ...] = (),
) -> Callable[[F], F]: ...
def tool(
    function: F | None = None,
    /,
    *,
    name: str | None = None,
    timeout: float | None = None,
    max_characters: int | None = None,
    errors: tuple[type[Exception], ...] = (),
) -> F | Callable[[F], F]:
    """Mark a typed function or method as a tool; it stays callable as it was.

    Args:
        function: given when used without parentheses.
        name: what the model writes; the function's name by default.
        timeout: seconds that a call may take; it then runs in a thread.
        max_characters: longer results are cut.
        errors: exceptions that are the agent's to read, besides ValueError, LookupError, ArithmeticError and
            ToolArgumentError. Anything else means that the tool is broken and stops the rollout.

    Raises:
        ToolDefinitionError: at once, when a type, the docstring or an argument's description is missing.

    >>> @tool
    ... def add(first: int, second: int) -> str:
    ...     '''Add two numbers.
    ...
    ...     Args:
    ...         first: one number
    ...         second: the other number
    ...     '''
    ...     return str(first + second)
    >>> tools_of(add)[0].call({"first": "1", "second": 2}).text
    '3'
    """

    def mark(marked: F) -> F:
        _check_limits(marked.__name__, timeout, max_characters)
        setattr(marked, _MARK, _Mark(read_signature(marked, name), timeout, max_characters, errors))
        return marked

    return mark if function is None else mark(function)


def _check_limits(name: str, timeout: float | None, max_characters: int | None) -> None:
    if timeout is not None and not timeout > 0:
        raise ToolDefinitionError(
            f"timeout of the tool {name!r} must be a number of seconds > 0; got {timeout!r}."
        )
    if max_characters is not None and max_characters < 1:
        raise ToolDefinitionError(
            f"max_characters of the tool {name!r} must be >= 1; got {max_characters!r}."
        )


def tools_of(thing: object) -> tuple[Tool, ...]:
    """Return the tools of a `Tool`, a `ToolSource`, a function marked with `@tool`, or an instance with such.

    Only what is marked counts; an override of a marked method must be marked again.
    """
    if isinstance(thing, Tool):
        return (thing,)
    if isinstance(thing, ToolSource):
        return thing.tools
    mark = getattr(thing, _MARK, None)
    if isinstance(mark, _Mark) and callable(thing):
        return (mark.bind(thing),)
    return tuple(_bound(thing, name) for name in _marked_names(type(thing)))


def _bound(instance: object, name: str) -> Tool:
    method = getattr(instance, name)
    mark: _Mark = getattr(method, _MARK)
    return mark.bind(method)


def _marked_names(cls: type) -> Iterator[str]:
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    for name in names:
        value = next(vars(base)[name] for base in cls.__mro__ if name in vars(base))
        if isinstance(getattr(getattr(value, "__func__", value), _MARK, None), _Mark):
            yield name


def _as_text(value: object, name: str) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise EnvironmentFault(
            f"the tool {name!r} returned {type(value).__name__}; return a str, a ToolResult or a JSON value."
        ) from error


def _message(error: Exception) -> str:
    if isinstance(error, KeyError) and error.args:
        return f"unknown key {error.args[0]!r}"
    return str(error) or type(error).__name__
