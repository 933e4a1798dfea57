"""The tools of one world, and the replies to what a turn called."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from agentrl.errors import ToolArgumentError, ToolDefinitionError, did_you_mean
from agentrl.trajectory.turn import ToolCall, TurnKind
from agentrl.world.ledger import CallLedger
from agentrl.world.protocol import Call
from agentrl.world.tool import Tool, ToolResult, tools_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from agentrl.world.protocol import Parsed
    from agentrl.world.terms import Meter

TurnKey: TypeAlias = tuple[str, int]
"""(trajectory, turn)."""
ANSWERING: Final = ("answer", "finish")
"""Names of the tool that takes a final answer which the protocol writes without naming a tool."""


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
        return found.execute(validated)

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
