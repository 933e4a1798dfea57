"""`check_tool`: whether a tool can be described, called, refused and trusted."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from agentrl.errors import CheckError, ToolArgumentError
from agentrl.testing.probe import global_randomness
from agentrl.testing.report import CheckReport, Finding, run_checks
from agentrl.world.tool import Tool, tools_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from agentrl.testing.report import Check
    from agentrl.world.json_text import Json

_OPENAI_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def check_tool(
    tool: object, *, arguments: Sequence[Mapping[str, Json]] = (), skip: Collection[str] = ()
) -> CheckReport:
    """Check one tool and return what was found.

    Args:
        tool: a `Tool`, a function marked with `@tool`, or an instance with exactly one such method.
        arguments: calls to try; a tool without parameters is called once. Without calls nothing is executed.
        skip: names of checks to leave out.

    Raises:
        CheckError: what was given is not exactly one tool.
    """
    found = tools_of(tool)
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise CheckError(
            f"check_tool takes one tool; {tool!r} has {len(found)} ({names}). Pass one of tools_of(it)."
        )
    calls = tuple(arguments) or (() if found[0].signature.adapters else ({},))
    checks = _ToolChecks(found[0], calls)
    return run_checks(f"tool {found[0].name!r}", checks.checks(), skip)


class _ToolChecks:
    """The checks by name."""

    def __init__(self, tool: Tool, calls: Sequence[Mapping[str, Json]]) -> None:
        self.tool = tool
        self.calls = calls

    def checks(self) -> dict[str, Check]:
        return {
            "schema": self.schema,
            "refusal": self.refusal,
            "calls": self.results,
            "global_random": self.global_random,
        }

    def schema(self) -> Iterator[Finding]:
        """The schema is JSON, has a name that servers accept and describes every argument."""
        text = json.dumps(self.tool.schema)
        if json.loads(text) != self.tool.schema:
            yield Finding("error", "schema", "the schema changes when it is written as JSON and read again")
        if not _OPENAI_NAME.match(self.tool.name):
            yield Finding(
                "error", "schema", f"the name {self.tool.name!r} is not letters, digits, '_' and '-'"
            )
        for name, schema in self.tool.signature.properties.items():
            if not {"type", "anyOf", "enum"} & set(schema):
                yield Finding(
                    "warning", "schema", f"the argument {name!r} has no type; a model may write anything"
                )

    def refusal(self) -> Iterator[Finding]:
        """Unknown and missing arguments are refused by name, before anything is executed."""
        if not self._refused({"no_such_argument": 1}, "no_such_argument"):
            yield Finding("error", "refusal", "an unknown argument was not refused by its name")
        required = self.tool.signature.required
        if required and not self._refused({}, required[0]):
            yield Finding(
                "error", "refusal", f"the missing argument {required[0]!r} was not refused by its name"
            )

    def _refused(self, arguments: Mapping[str, Json], name: str) -> bool:
        try:
            self.tool.signature.validate(arguments)
        except ToolArgumentError as error:
            return name in str(error)
        return False

    def results(self) -> Iterator[Finding]:
        """The calls succeed, and give the same text twice."""
        if not self.calls:
            yield Finding("note", "calls", "nothing was executed; give arguments=[{...}]")
        for arguments in self.calls:
            first, second = self.tool.call(arguments), self.tool.call(arguments)
            if first.error is not None:
                yield Finding("error", "calls", f"{dict(arguments)} failed: {first.error}")
            elif first.text != second.text:
                text = f"{dict(arguments)} gave two texts; it depends on more than its arguments"
                yield Finding("warning", "calls", text)

    def global_random(self) -> Iterator[Finding]:
        """The global generators of `random` and `numpy` are left alone."""
        before = global_randomness()
        for arguments in self.calls:
            self.tool.call(arguments)
        if before != global_randomness():
            yield Finding(
                "error", "global_random", "uses a global random generator; give the tool one of its own"
            )
