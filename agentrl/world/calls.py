"""Calls as model families write them in their own chat templates: Llama 3, Mistral, Gemma.

Those between marks of their own (DeepSeek, Qwen3-Coder) are in `agentrl.world.marked`.
The Hermes and Qwen form is `agentrl.world.formats.JsonCalls`. Results come back between `<tool_response>`
tags, which a chat template's renderer turns into messages of the family's own role.
"""

from __future__ import annotations

import dataclasses
import json
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from agentrl.world.entries import arguments_at, call_of, form_of, too_many
from agentrl.world.formats import JsonCalls, fence_around, read_blocks
from agentrl.world.json_text import read_json_at
from agentrl.world.parsing import OUTPUT_TAG, Call, forged_by
from agentrl.world.python_call import read_python_calls, write_python_call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from agentrl.world.json_text import Json
    from agentrl.world.tool import Tool

PYTHON_TAG: Final = "<|python_tag|>"
TOOL_CALLS: Final = "[TOOL_CALLS]"
CALL_ID: Final = "[CALL_ID]"
ARGUMENTS: Final = "[ARGS]"
CODE_TOOLS: Final = ("python", "code_interpreter")
"""Names of the tool that takes bare code after Llama's `<|python_tag|>`."""

_LLAMA_OBJECT: Final = re.compile(
    r'(?:^|(?<=;))[ \t]{0,40}(\{\s{0,40}"(?:type"\s{0,9}:\s{0,9}"function"\s{0,9},\s{0,9}")?name"\s{0,9}:)',
    re.MULTILINE,
)
_BUILT_IN: Final = re.compile(r"\s*([A-Za-z_][\w.]{0,99})\.call\(", re.DOTALL)
_MISTRAL_NAME: Final = re.compile(
    r"\s{0,9}([\w.-]{1,99})\s{0,9}(?:\[CALL_ID\]\s{0,9}(\w{0,99}))?\s{0,9}(?:\[ARGS\])?"
)


@dataclass(frozen=True, slots=True)
class FamilyCalls(JsonCalls):
    """What the families' forms have in common; a subclass says how calls are found and written.

    Attributes:
        listed: whether the chat template lists the tools; otherwise the system text does.
        parameters: (tool, names of its parameters) of a world, filled in by `for_tools`.
    """

    listed: bool = True
    parameters: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def for_tools(self, tools: Sequence[Tool]) -> Self:
        """Know the tools' names and parameters."""
        known = tuple((tool.name, tuple(tool.signature.adapters)) for tool in tools)
        return dataclasses.replace(self, parameters=known)

    def describe(self, tools: Sequence[Tool]) -> str:
        """List the tools and show a call, where the chat template does not."""
        if self.listed or not tools:
            return ""
        schemas = "\n".join(json.dumps(tool.schema, ensure_ascii=False) for tool in tools)
        first = tools[0]
        shown = self.write(first.name, dict.fromkeys(first.signature.adapters, "..."))
        return (
            f"You may call these tools:\n{schemas}\n\nTo call one, write it like this and stop:\n{shown}\n"
            "Its result comes in the next message. A turn without a call is your final answer."
        )

    def schemas(self, tools: Sequence[Tool]) -> tuple[Mapping[str, object], ...]:
        """Return each tool's schema, where the chat template lists the tools."""
        return tuple(tool.schema for tool in tools) if self.listed else ()


@dataclass(frozen=True, slots=True)
class LlamaCalls(FamilyCalls):
    """Calls as Llama 3 writes them: a JSON object on a line, with or without `<|python_tag|>` before it.

    Also read, after that tag: `brave_search.call(query="tea")`, and bare code for a tool called `python` or
    `code_interpreter`.

    >>> LlamaCalls().parse('{"name": "search", "parameters": {"query": "tea"}}').calls[0].arguments
    {'query': 'tea'}
    """

    spoken: ClassVar[tuple[str, ...]] = (PYTHON_TAG,)
    forged: ClassVar[re.Pattern[str]] = forged_by(OUTPUT_TAG, but=(PYTHON_TAG,))

    def scan(self, text: str) -> tuple[Call, ...] | str:
        """Find objects that begin a line or follow the tag."""
        tag = text.find(PYTHON_TAG)
        rest = text[tag + len(PYTHON_TAG) :] if tag >= 0 else ""
        if rest.strip() and not rest.lstrip().startswith("{"):
            return self._after_tag(rest.strip(), tag, len(text))
        # A line break in place of each character of the tag: what follows it begins a line.
        plain = text.replace(PYTHON_TAG, "\n" * len(PYTHON_TAG))
        calls: list[Call] = []
        position = 0
        while match := _LLAMA_OBJECT.search(plain, position):
            call = _json_call(plain, match.start(1), ("parameters", "arguments"))
            if isinstance(call, str):
                return call
            calls.append(call)
            position = call.end
            if len(calls) > self.max_calls:
                return too_many(self.max_calls)
        if not calls and tag >= 0:
            return f"{PYTHON_TAG} is followed by no call. Write {self.write('tool', {'key': 'value'})}."
        return tuple(calls)

    def _after_tag(self, rest: str, start: int, end: int) -> tuple[Call, ...] | str:
        signatures = dict(self.parameters)
        if built_in := _BUILT_IN.match(rest):
            try:
                ((name, arguments),) = read_python_calls(rest, {f"{built_in[1]}.call": ()})
            except ValueError as error:
                return f"The call after {PYTHON_TAG} could not be read: {error}."
            return (Call(name.removesuffix(".call"), rest, arguments, start, end),)
        tool = next((name for name in CODE_TOOLS if name in signatures), None)
        if tool is None:
            return f"There is no tool for code. Write {self.write('tool', {'key': 'value'})}."
        return (Call(tool, rest, start=start, end=end),)

    def write(self, name: str, arguments: Mapping[str, Json]) -> str:
        """Return the call as one JSON object."""
        return json.dumps({"name": name, "parameters": dict(arguments)}, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class MistralCalls(FamilyCalls):
    """Calls as Mistral writes them; all versions are read, one is written.

    Versions 3 and 7 write a list, `[TOOL_CALLS] [{"name": ..., "arguments": {...}, "id": ...}]`; version 11
    writes `[TOOL_CALLS]name[CALL_ID]id[ARGS]{...}` for each call, version 13 leaves out the id.

    Attributes:
        version: 3, 7, 11 or 13, of `write`.

    >>> MistralCalls().parse('[TOOL_CALLS] [{"name": "search", "arguments": {"query": "tea"}}]').calls[0].name
    'search'
    >>> MistralCalls(version=13).write("search", {"query": "tea"})
    '[TOOL_CALLS]search[ARGS]{"query": "tea"}'
    """

    spoken: ClassVar[tuple[str, ...]] = (TOOL_CALLS, CALL_ID, ARGUMENTS)
    forged: ClassVar[re.Pattern[str]] = forged_by(
        OUTPUT_TAG, also=r"\[/?(?:TOOL_RESULTS|AVAILABLE_TOOLS|SYSTEM_PROMPT)\]"
    )
    version: int = 3

    def scan(self, text: str) -> tuple[Call, ...] | str:
        """Read what follows each marker."""
        calls: list[Call] = []
        position = 0
        while (start := text.find(TOOL_CALLS, position)) >= 0:
            found = self._after(text, start)
            if isinstance(found, str):
                return found
            calls += found
            position = max(found[-1].end, start + len(TOOL_CALLS)) if found else start + len(TOOL_CALLS)
            if len(calls) > self.max_calls:
                return too_many(self.max_calls)
        return tuple(calls)

    def _after(self, text: str, start: int) -> list[Call] | str:
        inside = start + len(TOOL_CALLS)
        if text[inside:].lstrip().startswith("["):
            return _json_list(text, inside)
        named = _MISTRAL_NAME.match(text, inside)
        if named is None:
            return f"{TOOL_CALLS} is followed by no call. Write {self.write('tool', {'key': 'value'})}."
        given = arguments_at(text, named[1], named.end())
        if isinstance(given, str):
            return given
        arguments, end = given
        return [Call(named[1], text[named.end() : end].strip(), arguments, start, end, named[2] or "")]

    def write(self, name: str, arguments: Mapping[str, Json]) -> str:
        """Return the call in this version's form; its id is made from what it says."""
        written = json.dumps(dict(arguments), ensure_ascii=False)
        identifier = f"{zlib.crc32(f'{name}{written}'.encode()) % 10**9:09d}"
        if self.version >= 11:
            told = f"{CALL_ID}{identifier}" if self.version < 13 else ""
            return f"{TOOL_CALLS}{name}{told}{ARGUMENTS}{written}"
        space = " " if self.version < 7 else ""
        call = {"name": name, "arguments": dict(arguments), "id": identifier}
        return f"{TOOL_CALLS}{space}{json.dumps([call], ensure_ascii=False)}"


@dataclass(frozen=True, slots=True)
class GemmaCalls(FamilyCalls):
    r"""Calls as Gemma writes them: Python in a `tool_code` fence, or a JSON object in a fence or alone.

    Gemma's templates list no tools and have no role for results, so both stand in ordinary messages.

    >>> call = GemmaCalls().write("search", {"query": "tea"})
    >>> call
    "```tool_code\nsearch(query='tea')\n```"
    >>> GemmaCalls().parse(call).calls[0].arguments
    {'query': 'tea'}
    """

    forged: ClassVar[re.Pattern[str]] = forged_by(
        OUTPUT_TAG, also=r"^[ \t]{0,9}`{3,99}[ \t]{0,9}tool_output\b"
    )
    listed: bool = False

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The fence that opens an output: only the environment writes it."""
        return ("\n```tool_output",)

    def scan(self, text: str) -> tuple[Call, ...] | str:
        """Read the fences, or a JSON object that is the whole turn."""
        calls: list[Call] = []
        for block in read_blocks(text):
            if not block.closed:
                if block.fence.language == "tool_code":
                    return "The block that begins with ```tool_code is never closed by ```."
                continue
            found = self._in_fence(block.fence.language, block.source, block.inside)
            if isinstance(found, str):
                return found
            calls += [dataclasses.replace(call, start=block.start, end=block.end) for call in found]
            if len(calls) > self.max_calls:
                return too_many(self.max_calls)
        return tuple(calls) or self._bare(text)

    def _in_fence(self, language: str, source: str, offset: int) -> list[Call] | str:
        if language != "tool_code":
            return self._json(source, offset) if language in {"json", ""} else []
        try:
            found = read_python_calls(source, dict(self.parameters))
        except ValueError as error:
            return f"The call could not be read: {error}. Write {self.write('tool', {'key': 'value'})}."
        return [Call(name, source.strip(), given) for name, given in found]

    def _bare(self, text: str) -> tuple[Call, ...] | str:
        found = self._json(text, 0)
        return found if isinstance(found, str) else tuple(found)

    def _json(self, source: str, offset: int) -> list[Call] | str:
        """JSON that names a tool of this world is a call; other JSON is text, an answer perhaps."""
        if source.lstrip()[:1] not in {"{", "["}:
            return []
        try:
            value, _ = read_json_at(source)
        except ValueError:
            return []
        entries = value if isinstance(value, list) else [value]
        names = dict(self.parameters)
        if not all(isinstance(one, dict) and one.get("name") in names for one in entries):
            return []
        found = [call_of(one, json.dumps(one), ("parameters", "arguments")) for one in entries]
        wrong = next((one for one in found if isinstance(one, str)), None)
        if wrong is not None:
            return wrong
        end = offset + len(source.rstrip())
        return [dataclasses.replace(one, start=offset, end=end) for one in found if isinstance(one, Call)]

    def write(self, name: str, arguments: Mapping[str, Json]) -> str:
        """Return the call in a fence."""
        return f"```tool_code\n{write_python_call(name, arguments)}\n```"

    def wrap(self, observation: str) -> tuple[str, str, str]:
        """Fence the output, with a fence longer than any inside it."""
        fence = fence_around(observation, 3)
        return f"{fence}tool_output\n", observation, f"\n{fence}"


def _json_list(text: str, inside: int) -> list[Call] | str:
    """Read the list of calls that begins at `inside`; all of them share its place."""
    try:
        value, length = read_json_at(text[inside:])
    except ValueError as error:
        return f"The calls could not be read: {error}. Write [{form_of('arguments')}]."
    if not isinstance(value, list) or not value:
        return "The list of calls is empty."
    found: list[Call] = []
    for one in value:
        written, start = json.dumps(one, ensure_ascii=False), inside - len(TOOL_CALLS)
        call = call_of(one, written, start=start, end=inside + length)
        if isinstance(call, str):
            return call
        found.append(call)
    return found


def _json_call(text: str, start: int, keys: Sequence[str]) -> Call | str:
    """Read the call whose object opens at `start`."""
    try:
        value, length = read_json_at(text[start:])
    except ValueError as error:
        return f"A tool call could not be read: {error}. Write {form_of(keys[0])}."
    return call_of(value, text[start : start + length], keys, start=start, end=start + length)
