"""Tools: typed functions that a model may call, and the box that runs what it called."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, overload

from agentrl.errors import (
    EnvironmentFault,
    ToolArgumentError,
    ToolDefinitionError,
    did_you_mean,
)
from agentrl.trajectory.turn import ToolCall, TurnKind
from agentrl.world.deadline import within
from agentrl.world.ledger import CallLedger
from agentrl.world.protocol import Call
from agentrl.world.signature import Signature, read_signature
from agentrl.world.source import ToolSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from agentrl.world.json_text import Json
    from agentrl.world.protocol import Parsed
    from agentrl.world.terms import Meter

F = TypeVar("F", bound="Callable[..., object]")
TurnKey: TypeAlias = tuple[str, int]
"""(trajectory, turn)."""

_MARK: Final = "__agentrl_tool__"
ANSWERING: Final = ("answer", "finish")
"""Names of the tool that takes a final answer which the protocol writes without naming a tool."""
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
        return self._execute(self.signature.validate(arguments))

    def _execute(self, arguments: Mapping[str, object]) -> ToolResult:
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


@dataclass(frozen=True, slots=True)
class Reply:
    """What the tools made of one turn.

    Attributes:
        text: what the agent reads; reward is the sum over the calls.
        kind: `parse_error` if there was no call to run, `tool_error` if a call failed.
        valid: False if any call was refused or failed; such a text never makes an anchor key.
        calls: every call that was tried, in order.
        seconds: time spent in the tools.
    """

    text: str
    reward: float = 0.0
    done: bool = False
    kind: TurnKind = TurnKind.OK
    valid: bool = True
    calls: tuple[ToolCall, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0


class Toolbox:
    """The tools of one world. Runs a parsed turn, and turns the model's mistakes into replies it can repair.

    Args:
        tools: `Tool`s, functions marked with `@tool`, or instances with marked methods.

    Raises:
        ToolDefinitionError: something is no tool, or two tools share a name.
    """

    def __init__(self, tools: Iterable[object]) -> None:
        self._by_name: dict[str, Tool] = {}
        self._ledger: CallLedger[ToolResult] = CallLedger()
        for thing in tools:
            found = tools_of(thing)
            if not found:
                raise ToolDefinitionError(
                    f"{thing!r} has no tools. Mark its functions or methods with @tool."
                )
            for each in found:
                self._add(each)

    def _add(self, each: Tool) -> None:
        if each.name in self._by_name:
            raise ToolDefinitionError(f"two tools are named {each.name!r}. Rename one with @tool(name=...).")
        self._by_name[each.name] = each

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools, in order."""
        return tuple(self._by_name.values())

    def run(
        self,
        parsed: Parsed,
        *,
        key: TurnKey | None = None,
        finished: Callable[[], bool] | None = None,
        meter: Meter | None = None,
        seconds: float = math.inf,
    ) -> Reply:
        """Execute the calls of a turn in order; those after the end of the episode are left out.

        Args:
            parsed: what the protocol read.
            key: (trajectory, turn). With it each call is executed once, however often the turn is run.
            finished: whether the world ended its episode by other means than `ToolResult.done`.
            meter: counts the calls of the trajectory; those beyond a tool's budget are refused.
            seconds: after which no further call of the turn begins; those that are left are refused.

        Raises:
            EnvironmentFault: a tool's infrastructure failed or its time was up.
            Exception: a tool is broken: it raised what is neither ordinary nor declared.
        """
        if parsed.error is not None:
            return Reply(parsed.error, kind=TurnKind.PARSE_ERROR, valid=False)
        calls = parsed.calls
        answering = next((name for name in ANSWERING if name in self._by_name), None)
        if parsed.answer is not None and answering is not None:
            calls += (Call(answering, parsed.answer),)
        if not calls:
            return Reply(self._nothing_called(parsed), kind=TurnKind.PARSE_ERROR, valid=False)
        began = time.perf_counter()
        results: list[ToolResult] = []
        for index, call in enumerate(calls):
            if index and time.perf_counter() - began > seconds:
                results += [_too_late(left, seconds) for left in calls[index:]]
                break
            results.append(self._metered(call, None if key is None else (*key, index), meter))
            if results[-1].done or (finished is not None and finished()):
                break
        return _reply(calls, results, time.perf_counter() - began)

    def forget(self, trajectory: str) -> None:
        """Forget the recorded calls of a trajectory that has ended."""
        self._ledger.forget(trajectory)

    def _metered(self, call: Call, key: tuple[str, int, int] | None, meter: Meter | None) -> ToolResult:
        if meter is None or call.name not in self._by_name:
            return self._once(call, key)
        if refused := meter.admit(call.name):
            return ToolResult(refused, error=refused)
        result, cost = self._once(call, key), meter.of(call.name).cost
        return dataclasses.replace(result, cost=result.cost + cost) if cost else result

    def _once(self, call: Call, key: tuple[str, int, int] | None) -> ToolResult:
        if key is None:
            return self._execute(call)
        return self._ledger.once(key, (call.name, call.written), lambda: self._execute(call))

    def _execute(self, call: Call) -> ToolResult:
        found = self._by_name.get(call.name)
        if found is None:
            message = (
                f"There is no tool {call.name!r}.{did_you_mean(call.name, self._by_name)} {self._listed()}"
            )
            return ToolResult(message, error=message)
        try:
            arguments = found.signature.read(call.written) if call.arguments is None else call.arguments
            validated = found.signature.validate(arguments)
        except ToolArgumentError as error:
            return ToolResult(str(error), error=str(error))
        return found._execute(validated)  # noqa: SLF001  # one module, one room

    def _listed(self) -> str:
        return f"The tools are: {', '.join(self._by_name)}." if self._by_name else "There are no tools here."

    def _nothing_called(self, parsed: Parsed) -> str:
        what = "No tool call was found." if parsed.answer is None else "This world takes no answer as text."
        return f"{what} {self._listed()}"


def _too_late(call: Call, seconds: float) -> ToolResult:
    message = f"{call.name} was not called: the calls before it took {seconds:g} s. Call it in another turn."
    return ToolResult(message, error=message)


def _reply(calls: Sequence[Call], results: Sequence[ToolResult], seconds: float) -> Reply:
    failed = any(result.error is not None for result in results)
    metrics: dict[str, float] = {}
    for result in results:
        for name, value in result.metrics.items():
            metrics[name] = metrics.get(name, 0.0) + value
    return Reply(
        text=_joined(calls, results),
        reward=float(sum(result.reward for result in results)),
        done=any(result.done for result in results),
        kind=TurnKind.TOOL_ERROR if failed else TurnKind.OK,
        valid=not failed,
        calls=tuple(
            ToolCall(call.name, call.written, result.text, result.error, cost=result.cost)
            for call, result in zip(calls, results, strict=False)
        ),
        metrics=metrics,
        seconds=seconds,
    )


def _joined(calls: Sequence[Call], results: Sequence[ToolResult]) -> str:
    if len(results) == 1:
        return results[0].text
    parts = zip(calls, results, strict=False)
    return "\n".join(f"[{index}] {call.name}: {result.text}" for index, (call, result) in enumerate(parts, 1))


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
