"""Two protocols that others made: JSON calls (Hermes, Qwen) and fenced code (SimpleTIR)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentrl.world.json_text import read_json
from agentrl.world.parsing import (
    OUTPUTS,
    THINK,
    Call,
    Parsed,
    Protocol,
    TextSpan,
    before_forgery,
    enclosed,
    forgery,
    spans_of,
    too_long,
    unclosed,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentrl.world.tool import Tool

_HERMES: Final = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{schemas}
</tools>

For each function call, return a json object with function name and arguments \
within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


@dataclass(frozen=True, slots=True)
class JsonCalls(Protocol):
    """Calls as Hermes and Qwen models write them, several in one turn if wanted.

    `<tool_call>{"name": "search", "arguments": {"query": "tea"}}</tool_call>`. A turn without a call is the
    final answer.

    >>> parsed = JsonCalls().parse('<tool_call>{"name": "search", "arguments": {"query": "tea"}}</tool_call>')
    >>> parsed.calls[0].arguments
    {'query': 'tea'}
    """

    max_calls: int = 16

    def describe(self, tools: Sequence[Tool]) -> str:
        """Write the system text of the Qwen chat templates."""
        if not tools:
            return ""
        schemas = "\n".join(json.dumps(tool.schema, ensure_ascii=False) for tool in tools)
        return _HERMES.format(schemas=schemas)

    def parse(self, text: str) -> Parsed:
        """Read every `<tool_call>` in order, outside of `<think>`."""
        if problem := too_long(text):
            return Parsed(text.strip(), error=problem)
        honest, forged = before_forgery(text, OUTPUTS)
        # The same length as before, so that offsets stay true.
        visible = THINK.sub(lambda match: " " * len(match[0]), honest)
        if "<think>" in visible:
            return Parsed(text.strip(), error=unclosed("think"), spoofed=forged is not None)
        calls = self._scan(visible)
        if isinstance(calls, str):
            return Parsed(text.strip(), error=calls, spoofed=forged is not None)
        answer = None if calls else visible.strip() or None
        error = (
            None if calls or answer else (forgery(forged) if forged else "The turn was empty. Call a tool.")
        )
        thoughts = [TextSpan("think", *match.span()) for match in THINK.finditer(honest)]
        return Parsed(text.strip(), calls, answer, error, forged is not None, (*thoughts, *spans_of(calls)))

    def _scan(self, text: str) -> tuple[Call, ...] | str:
        calls: list[Call] = []
        position = 0
        while (start := text.find("<tool_call>", position)) >= 0:
            inside = start + len("<tool_call>")
            end = text.find("</tool_call>", inside)
            if end < 0:
                return unclosed("tool_call")
            position = end + len("</tool_call>")
            call = _read_call(text[inside:end], start, position)
            if isinstance(call, str):
                return call
            calls.append(call)
            if len(calls) > self.max_calls:
                return f"The turn holds more than {self.max_calls} tool calls. Write fewer."
        return tuple(calls)

    def wrap(self, observation: str) -> tuple[str, str, str]:
        """Put the observation into `<tool_response>`."""
        return enclosed("tool_response", observation, "\n")


@dataclass(frozen=True, slots=True)
class NativeCalls(JsonCalls):
    """Calls that a server makes of its own: it is given the schemas, and nothing is said in the system text.

    What the server answers is written as in `JsonCalls`, and read in the same way.
    """

    def describe(self, tools: Sequence[Tool]) -> str:
        """Return nothing: the server shows the tools to its model."""
        del tools
        return ""

    def schemas(self, tools: Sequence[Tool]) -> tuple[Mapping[str, object], ...]:
        """Return each tool's schema in OpenAI's form."""
        return tuple(tool.schema for tool in tools)


def _read_call(written: str, start: int, end: int) -> Call | str:
    form = '{"name": ..., "arguments": {...}}'
    try:
        value = read_json(written)
    except ValueError as error:
        return f"A tool call could not be read: {error}. Write {form}."
    if not isinstance(value, dict) or not isinstance(name := value.get("name"), str):
        return f"A tool call needs a name. Write {form}."
    arguments = value.get("arguments", {})
    if not isinstance(arguments, dict):
        return f"The arguments of {name!r} must be a JSON object. Write {form}."
    return Call(name, written.strip(), arguments, start, end)


@dataclass(frozen=True, slots=True)
class Fenced(Protocol):
    r"""Code between fences is executed, as in SimpleTIR; without code, `\boxed{...}` is the final answer.

    Attributes:
        language: written after the opening fence.
        tool: name of the tool that runs the code.

    >>> Fenced().parse("Let me see.\n```python\nprint(1)\n```").calls[0].written
    'print(1)'
    >>> Fenced().parse(r"So it is \boxed{\frac{1}{2}}.").answer
    '\\frac{1}{2}'
    """

    language: str = "python"
    tool: str = "python"
    max_calls: int = 4

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The fence that opens an output, which only the environment writes."""
        return ("```output",)

    def describe(self, tools: Sequence[Tool]) -> str:
        """Explain the fence and the boxed answer."""
        if not tools:
            return ""
        return (
            f"To run code, write it between ```{self.language} and ``` and stop; what it prints comes back "
            "between ```output and ```. Give the final answer in \\boxed{}."
        )

    def parse(self, text: str) -> Parsed:
        """Read the fenced blocks in order, or the last boxed answer if there are none."""
        if problem := too_long(text):
            return Parsed(text.strip(), error=problem)
        # A turn that ended at the stop string has forged nothing.
        written = text.rstrip().removesuffix("```output")
        honest, forged = before_forgery(written, ("```output", *OUTPUTS))
        visible = THINK.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), honest)
        calls = self._scan(visible)
        if isinstance(calls, str):
            return Parsed(text.strip(), error=calls, spoofed=forged is not None)
        answer = None if calls else boxed(visible)
        missing = f"No code was found. Write it between ```{self.language} and ```, or answer in \\boxed{{}}."
        error = None if calls or answer is not None else (forgery(forged) if forged else missing)
        return Parsed(text.strip(), calls, answer, error, forged is not None, spans_of(calls))

    def _scan(self, text: str) -> tuple[Call, ...] | str:
        calls: list[Call] = []
        opened: tuple[str, str, int, int] | None = None
        position = 0
        for line in text.splitlines(keepends=True):
            start, position = position, position + len(line)
            fence = re.match(r"\s*(`{3,}|~{3,})[ \t]*([\w+-]*)[ \t]*$", line.rstrip("\n"))
            if fence is None:
                continue
            if opened is None:
                opened = (fence[1], fence[2], start, position)
            elif not fence[2] and fence[1].startswith(opened[0]):
                if opened[1] == self.language:
                    code = text[opened[3] : start].rstrip("\n")
                    calls.append(Call(self.tool, code, start=opened[2], end=position))
                opened = None
        if opened is not None and opened[1] == self.language:
            return (
                f"The code block that begins with {opened[0]}{self.language} is never closed by {opened[0]}."
            )
        if len(calls) > self.max_calls:
            return f"The turn holds more than {self.max_calls} code blocks. Write fewer."
        return tuple(calls)

    def wrap(self, observation: str) -> tuple[str, str, str]:
        """Fence the output, with a fence longer than any inside it."""
        longest = max((len(run) for run in re.findall(r"`{3,}", observation)), default=2)
        fence = "`" * (longest + 1)
        return f"{fence}output\n", observation, f"\n{fence}"


def boxed(text: str) -> str | None:
    r"""Return the content of the last `\boxed{...}` with balanced braces, or None."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, inside = 0, start + len("\\boxed")
    for index in range(inside, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[inside + 1 : index].strip()
    return None
