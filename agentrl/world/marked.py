"""Calls between marks of their own, as DeepSeek and Qwen3-Coder write them in their chat templates."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from agentrl.world.calls import FamilyCalls
from agentrl.world.entries import arguments_at, calls_after
from agentrl.world.json_text import read_json
from agentrl.world.parsing import OUTPUT_TAG, Call, forged_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from agentrl.world.json_text import Json
    from agentrl.world.tool import Tool

CALLS: Final = ("<\uff5ctool\u2581calls\u2581begin\uff5c>", "<\uff5ctool\u2581calls\u2581end\uff5c>")
CALL: Final = ("<\uff5ctool\u2581call\u2581begin\uff5c>", "<\uff5ctool\u2581call\u2581end\uff5c>")
SEPARATOR: Final = "<\uff5ctool\u2581sep\uff5c>"
_FENCED: Final = re.compile(
    rf"\s{{0,9}}\w{{0,40}}{re.escape(SEPARATOR)}\s{{0,9}}([\w.-]{{1,99}})\s{{0,9}}(```)(?:json)?"
)
_PLAIN: Final = re.compile(rf"\s{{0,9}}([\w.-]{{1,99}})\s{{0,9}}{re.escape(SEPARATOR)}()")

OPEN: Final = "<tool_call>"
CLOSE: Final = "</tool_call>"
_FUNCTION: Final = re.compile(r"\s{0,40}<function=([\w.-]{1,99})>")
_PARAMETER: Final = re.compile(
    r"\s{0,40}<parameter=([^<>\n]{1,99})>\n?(.*?)\n?</parameter>(?=\s{0,40}(?:<parameter=|</function>))",
    re.DOTALL,
)
_WORDS: Final[Mapping[str, Json]] = {"True": True, "False": False, "None": None}


@dataclass(frozen=True, slots=True)
class DeepSeekCalls(FamilyCalls):
    r"""Calls as DeepSeek writes them, between tokens of their own.

    V3 and R1 write the word `function`, the tool and a fence of JSON; V3.1 writes the tool and its JSON. Both
    are read, one is written.

    Attributes:
        fenced: whether `write` writes the older form.

    >>> call = DeepSeekCalls(fenced=False).write("search", {"query": "tea"})
    >>> DeepSeekCalls().parse(call).calls[0].arguments
    {'query': 'tea'}
    """

    spoken: ClassVar[tuple[str, ...]] = (*CALLS, *CALL, SEPARATOR)
    forged: ClassVar[re.Pattern[str]] = forged_by(OUTPUT_TAG, but=(*CALLS, *CALL, SEPARATOR))
    fenced: bool = True

    def scan(self, text: str) -> tuple[Call, ...] | str:
        """Read what stands between the marks."""
        found = calls_after(text, CALL[0], lambda start, _: self._at(text, start), self.max_calls)
        if isinstance(found, str):
            return found
        calls, _ = found
        opening = text.find(CALLS[0])
        if opening >= 0 and not calls:
            return f"{CALLS[0]} is followed by no call. Write {self.write('tool', {'key': 'value'})}."
        return _within(calls, text, opening)

    def _at(self, text: str, start: int) -> Call | str:
        inside = start + len(CALL[0])
        named = _FENCED.match(text, inside) or _PLAIN.match(text, inside)
        if named is None:
            return f"{CALL[0]} is followed by no call. Write {self.write('tool', {'key': 'value'})}."
        name, fence = named[1], named[2]
        given = arguments_at(text, name, named.end())
        if isinstance(given, str):
            return given
        arguments, end = given
        rest = text[end:].lstrip().removeprefix(fence).lstrip()
        if not rest.startswith(CALL[1]):
            return f"The call of {name!r} is never closed. Write {CALL[1]} after its arguments."
        written = text[named.end() : end].strip()
        return Call(name, written, arguments, start, len(text) - len(rest) + len(CALL[1]))

    def write(self, name: str, arguments: Mapping[str, Json]) -> str:
        """Return the call in this version's form."""
        written = json.dumps(dict(arguments), ensure_ascii=False)
        said = (
            f"function{SEPARATOR}{name}\n```json\n{written}\n```"
            if self.fenced
            else f"{name}{SEPARATOR}{written}"
        )
        return f"{CALLS[0]}{CALL[0]}{said}{CALL[1]}{CALLS[1]}"


def _within(calls: list[Call], text: str, opening: int) -> tuple[Call, ...]:
    """The calls, the marks around all of them counted to the first and the last."""
    if not calls:
        return ()
    if 0 <= opening < calls[0].start and not text[opening + len(CALLS[0]) : calls[0].start].strip():
        calls[0] = dataclasses.replace(calls[0], start=opening)
    rest = text[calls[-1].end :].lstrip()
    if rest.startswith(CALLS[1]):
        calls[-1] = dataclasses.replace(calls[-1], end=len(text) - len(rest) + len(CALLS[1]))
    return tuple(calls)


@dataclass(frozen=True, slots=True)
class CoderCalls(FamilyCalls):
    r"""Calls as Qwen3-Coder writes them: each argument in a tag, a text as it is, anything else as JSON.

    Attributes:
        texts: (tool, names of its parameters that take a text), filled in by `for_tools`; an argument of a
            tool that is not known is a text.

    >>> print(CoderCalls().write("search", {"query": "tea"}))
    <tool_call>
    <function=search>
    <parameter=query>
    tea
    </parameter>
    </function>
    </tool_call>
    """

    texts: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def for_tools(self, tools: Sequence[Tool]) -> Self:
        """Know the tools' names, and which of their parameters are texts."""
        known = tuple(
            (tool.name, tuple(key for key, value in tool.signature.properties.items() if _is_text(value)))
            for tool in tools
        )
        known_by_name = FamilyCalls.for_tools(self, tools)
        return dataclasses.replace(known_by_name, texts=known)  # pyright: ignore[reportReturnType]  # it is Self

    def scan(self, text: str) -> tuple[Call, ...] | str:
        """Read every `<tool_call>`, or a `<function=...>` without one, which these models write, too."""
        found = calls_after(text, "<function=", functools.partial(self._at, text), self.max_calls)
        if isinstance(found, str):
            return found
        calls, end = found
        if text.find(OPEN, end) >= 0:
            return f"{OPEN} is followed by no call. Write {self.write('tool', {'key': 'value'})}."
        return tuple(calls)

    def _at(self, text: str, start: int, before: int) -> Call | str:
        named = _FUNCTION.match(text, start)
        if named is None:
            return f"<function= is followed by no name. Write {self.write('tool', {'key': 'value'})}."
        name, position = named[1], named.end()
        arguments: dict[str, Json] = {}
        while found := _PARAMETER.match(text, position):
            if found[1] in arguments:
                return f"The argument {found[1]!r} of {name!r} is given twice."
            arguments[found[1]] = self._value(name, found[1], found[2])
            position = found.end()
        rest = text[position:].lstrip()
        if not rest.startswith("</function>"):
            return (
                f"The call of {name!r} could not be read after its {len(arguments)} arguments. "
                f"Write {self.write('tool', {'key': 'value'})}."
            )
        written = text[named.end() : position].strip()
        opened = text.rfind(OPEN, before, start)
        if opened >= 0 and not text[opened + len(OPEN) : start].strip():
            start = opened
            after = rest.removeprefix("</function>").lstrip()
            if not after.startswith(CLOSE):
                return f"The tag {OPEN} is never closed. End it with {CLOSE}."
            return Call(name, written, arguments, start, len(text) - len(after) + len(CLOSE))
        return Call(name, written, arguments, start, len(text) - len(rest) + len("</function>"))

    def _value(self, tool: str, key: str, written: str) -> Json:
        known = dict(self.texts)
        if tool not in known or key in known[tool]:
            return written
        word = written.strip()
        if word in _WORDS:
            return _WORDS[word]
        try:
            return read_json(word)
        except ValueError:
            return written

    def write(self, name: str, arguments: Mapping[str, Json]) -> str:
        """Return the call as the models write it."""
        given = "".join(
            f"<parameter={key}>\n{_shown(value)}\n</parameter>\n" for key, value in arguments.items()
        )
        return f"{OPEN}\n<function={name}>\n{given}</function>\n{CLOSE}"


def _is_text(schema: Json) -> bool:
    """Whether a parameter takes any text."""
    if not isinstance(schema, dict):
        return False
    options = schema.get("anyOf")
    choices = options if isinstance(options, list) else [schema]
    return any(isinstance(one, dict) and one.get("type") == "string" for one in choices)


def _shown(value: Json) -> str:
    """A value as these templates write it, which is Python's way for what is neither text nor container."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
