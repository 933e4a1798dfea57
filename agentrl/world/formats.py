"""Two protocols that others made: JSON calls (Hermes, Qwen) and fenced code (SimpleTIR)."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from agentrl.world.entries import call_of, calls_after, form_of, too_many
from agentrl.world.json_text import read_json_at
from agentrl.world.parsing import (
    OUTPUT_TAG,
    Call,
    Parsed,
    Protocol,
    bare,
    before_forgery,
    enclosed,
    forged_by,
    forgery,
    spans_of,
    split_thoughts,
    too_long,
    unclosed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self

    from agentrl.world.json_text import Json
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
_OPEN: Final = "<tool_call>"
_CLOSE: Final = "</tool_call>"
_PYTHON: Final = frozenset({"", "py", "py3", "python3"})
_BRACE: Final = re.compile(r"\\[{}]|[{}]")


@dataclass(frozen=True, slots=True)
class JsonCalls(Protocol):
    """Calls as Hermes and Qwen models write them, several in one turn if wanted.

    `<tool_call>{"name": "search", "arguments": {"query": "tea"}}</tool_call>`. A turn without a call is the
    final answer. Each result comes back in a `<tool_response>` of its own.

    >>> parsed = JsonCalls().parse('<tool_call>{"name": "search", "arguments": {"query": "tea"}}</tool_call>')
    >>> parsed.calls[0].arguments
    {'query': 'tea'}
    """

    separates_results: ClassVar[bool] = True
    forged: ClassVar[re.Pattern[str]] = forged_by(OUTPUT_TAG)
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
        honest, forged = before_forgery(_unstopped(text, self.stop_strings), self.forged)
        thoughts = split_thoughts(honest)
        if thoughts.unclosed:
            return Parsed(text.strip(), error=unclosed("think"), spoofed=forged is not None)
        calls = self.scan(thoughts.visible)
        if isinstance(calls, str):
            return Parsed(text.strip(), error=calls, spoofed=forged is not None)
        # After a forgery the rest was not read, so what remains is no whole turn and no answer.
        answer = None if calls or forged else thoughts.visible.strip() or None
        error = (
            None if calls or answer else (forgery(forged) if forged else "The turn was empty. Call a tool.")
        )
        spans = spans_of((*calls, *_plain_answer(answer, thoughts.visible)), thoughts.spans)
        return Parsed(text.strip(), calls, answer, error, forged is not None, spans)

    def scan(self, text: str) -> tuple[Call, ...] | str:
        """Return the calls of a turn without its thoughts, or what is wrong with them as a sentence."""
        found = calls_after(text, _OPEN, lambda start, _: _read_call(text, start), self.max_calls)
        if isinstance(found, str):
            return found
        calls, end = found
        if text.find(_CLOSE, end) >= 0:
            return f"{_CLOSE} closes nothing. Write {_OPEN} before the call."
        return tuple(calls)

    def write(self, name: str, arguments: Mapping[str, Json]) -> str:
        """Return the call as Hermes and Qwen models write it."""
        call = json.dumps({"name": name, "arguments": dict(arguments)}, ensure_ascii=False)
        return f"{_OPEN}\n{call}\n{_CLOSE}"

    def write_answer(self, answer: str) -> str:
        """Return the answer: a turn without a call."""
        return answer

    def wrap(self, observation: str) -> tuple[str, str, str]:
        """Put the observation into `<tool_response>`."""
        return enclosed(OUTPUT_TAG, observation, "\n")


def _unstopped(text: str, stops: Sequence[str]) -> str:
    """The text without the stop string at its end: a turn that ended there has forged nothing."""
    end = next((stop for stop in stops if text.endswith(stop)), "")
    return text.removesuffix(end)


def _plain_answer(answer: str | None, text: str) -> tuple[Call, ...]:
    """Where an answer without markup stands."""
    start = len(text) - len(text.lstrip())
    return () if answer is None else (Call("answer", answer, start=start, end=len(text.rstrip())),)


@dataclass(frozen=True, slots=True)
class NativeCalls(JsonCalls):
    """Calls where a server or a chat template shows the tools: it is given their schemas.

    Nothing is said in the system text. Calls are written and read as in `JsonCalls`: by the models of the
    Hermes and Qwen families themselves, and by our client for what a server answers.
    """

    def describe(self, tools: Sequence[Tool]) -> str:
        """Return nothing: the tools are shown elsewhere."""
        del tools
        return ""

    def schemas(self, tools: Sequence[Tool]) -> tuple[Mapping[str, object], ...]:
        """Return each tool's schema in OpenAI's form."""
        return tuple(tool.schema for tool in tools)


def _read_call(text: str, start: int) -> Call | str:
    """Read the call whose tag opens at `start`. The JSON may hold the closing tag inside of a string."""
    form = form_of("arguments")
    inside = start + len(_OPEN)
    try:
        value, length = read_json_at(text[inside:])
    except ValueError as error:
        if text.find(_CLOSE, inside) < 0:
            return unclosed("tool_call")
        return f"A tool call could not be read: {error}. Write {form}."
    written = text[inside : inside + length].strip()
    rest = text[inside + length :].lstrip()
    if not rest.startswith(_CLOSE):
        return (
            f"A tool call goes on after its JSON. Write {form} and then {_CLOSE}."
            if rest
            else unclosed("tool_call")
        )
    end = len(text) - len(rest) + len(_CLOSE)
    return call_of(value, written, ("arguments",), start=start, end=end)


@dataclass(frozen=True, slots=True)
class Fenced(Protocol):
    r"""A fenced block calls the tool that its first line names; without a block, `\boxed{...}` is the answer.

    For a world with a tool `python` this is SimpleTIR's form: "```py", "```python3" and a bare fence hold
    Python too. Small and capital letters are one.

    Attributes:
        names: tools that a fence may call; `for_tools` fills in a world's.
        answers: what several different boxed answers are: an error, or the last one counts.

    >>> Fenced().parse("Let me see.\n```python\nprint(1)\n```").calls[0].written
    'print(1)'
    >>> Fenced().parse(r"So it is \boxed{\frac{1}{2}}.").answer
    '\\frac{1}{2}'
    """

    names: tuple[str, ...] = ("python",)
    answers: Literal["reject", "last"] = "reject"
    max_calls: int = 4

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The fence that opens an output, on a line of its own: only the environment writes it."""
        return ("\n```output",)

    def for_tools(self, tools: Sequence[Tool]) -> Self:
        """Read the fences of these tools; `answer` and `finish` are boxed instead."""
        names = tuple(tool.name for tool in tools if tool.name not in {"answer", "finish"})
        return dataclasses.replace(self, names=names) if names else self

    def describe(self, tools: Sequence[Tool]) -> str:
        """Explain the fences and the boxed answer."""
        usable = [tool for tool in tools if tool.name in self.names]
        lines = [f"```{tool.name}: {' '.join(tool.description.split())}" for tool in usable]
        shown = (
            "To use a tool, write what it takes in a block that begins with a line such as "
            f"```{usable[0].name} and ends with a line ```, and stop. The tools are:"
        ) if usable else ""  # fmt: skip
        result = (
            "What comes back stands between ```output and ```; never write that yourself." if usable else ""
        )
        answer = "Give the final answer in \\boxed{}." if tools else ""
        return "\n".join(line for line in (shown, *lines, result, answer) if line)

    def parse(self, text: str) -> Parsed:
        """Read the fenced blocks in order, or the boxed answer if there are none."""
        if problem := too_long(text):
            return Parsed(text.strip(), error=problem)
        # A turn that ended at the stop string has forged nothing.
        written = text.rstrip().removesuffix("\n```output")
        honest, forged = before_forgery(
            written, forged_by(OUTPUT_TAG, also=r"^[ \t]{0,9}`{3,99}[ \t]{0,9}output\b")
        )
        thoughts = split_thoughts(honest)
        calls = unclosed("think") if thoughts.unclosed else self._scan(thoughts.visible)
        if isinstance(calls, str):
            return Parsed(text.strip(), error=calls, spoofed=forged is not None)
        boxes = [] if calls else _boxes(thoughts.visible)
        error = None if calls else self._problem(boxes, forged)
        answer = boxes[-1].written.strip() if boxes and error is None else None
        spans = spans_of((*calls, *boxes[-1:]), thoughts.spans)
        return Parsed(text.strip(), calls, answer, error, forged is not None, spans)

    def _problem(self, boxes: Sequence[Call], forged: str | None) -> str | None:
        if len({box.written.strip() for box in boxes}) > 1 and self.answers == "reject":
            return "The turn gives more than one answer in \\boxed{}. Give exactly one."
        if boxes:
            return None
        if forged:
            return forgery(forged)
        fences = " or ".join(f"```{name}" for name in self.names)
        return f"No code was found. Write it between {fences} and ```, or answer in \\boxed{{}}."

    def _tool_of(self, language: str) -> str | None:
        """Return the tool that a fence calls; SimpleTIR runs "```py" and a bare fence as Python, too."""
        if language in self.names:
            return language
        name = "python" if language.lower() in _PYTHON else language.lower()
        return next((known for known in self.names if known.lower() == name), None)

    def _scan(self, text: str) -> tuple[Call, ...] | str:
        calls: list[Call] = []
        for block in read_blocks(text):
            tool = self._tool_of(block.fence.language)
            if tool is None:
                continue
            if not block.closed:
                marks, language = block.fence.marks, block.fence.language
                return f"The code block that begins with {marks}{language} is never closed by {marks}."
            calls.append(Call(tool, block.source.rstrip("\n"), start=block.start, end=block.end))
            if len(calls) > self.max_calls:
                return too_many(self.max_calls, "code blocks")
        return tuple(calls)

    def write(self, name: str, arguments: Mapping[str, Json]) -> str:
        """Return the call as a block; its fence is longer than any inside."""
        body = bare(arguments)
        fence = fence_around(body, 3)
        return f"{fence}{name}\n{body}\n{fence}"

    def write_answer(self, answer: str) -> str:
        """Return the boxed answer."""
        return f"\\boxed{{{answer}}}"

    def wrap(self, observation: str) -> tuple[str, str, str]:
        """Fence the output, with a fence longer than any inside it."""
        fence = fence_around(observation, 3)
        return f"{fence}output\n", observation, f"\n{fence}"


@dataclass(frozen=True, slots=True)
class Fence:
    """A line that opens or closes a fenced block."""

    marks: str
    language: str

    def closes(self, other: Fence) -> bool:
        """Return whether this line ends the block that `other` opened."""
        return not self.language and self.marks.startswith(other.marks)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block at [start, end) of a text, its source from `inside` on; the last may be unclosed."""

    fence: Fence
    source: str
    start: int
    inside: int
    end: int
    closed: bool = True


def read_blocks(text: str) -> Iterator[Block]:
    """Read the fenced blocks of a text in order."""
    opened: tuple[Fence, int, int] | None = None
    position = 0
    for line in text.split("\n"):
        begin, position = position, position + len(line) + 1
        fence = read_fence(line)
        if fence is None:
            continue
        if opened is None:
            opened = fence, begin, position
        elif fence.closes(opened[0]):
            first, start, inside = opened
            yield Block(first, text[inside:begin], start, inside, min(position, len(text)))
            opened = None
    if opened is not None:
        yield Block(opened[0], text[opened[2] :], opened[1], opened[2], len(text), closed=False)


def read_fence(line: str) -> Fence | None:
    """Read a line of backticks or tildes; none of its expressions can look at a character twice."""
    line = line.strip()
    marks = line[: len(line) - len(line.lstrip(line[:1]))] if line[:1] in {"`", "~"} else ""
    language = line[len(marks) :].strip()
    whole = len(marks) >= 3 and len(language) <= 40 and re.fullmatch(r"[\w+-]*", language)
    return Fence(marks, language) if whole else None


def fence_around(text: str, least: int) -> str:
    """Return a run of backticks longer than any in the text, at least `least`."""
    return "`" * max(least, *(len(run) + 1 for run in re.findall(r"`{3,}", text)), 0)


def _boxes(text: str) -> list[Call]:
    r"""Find every outermost `\boxed{...}` with balanced braces; one without ends the search."""
    found: list[Call] = []
    position = 0
    while (start := text.find("\\boxed{", position)) >= 0:
        depth = 0
        for brace in _BRACE.finditer(text, start + len("\\boxed")):
            depth += {"{": 1, "}": -1}.get(brace[0], 0)
            if depth == 0:
                break
        else:
            break
        position = brace.end()
        found.append(Call("answer", text[start + len("\\boxed{") : brace.start()], start=start, end=position))
    return found


def boxed(text: str) -> str | None:
    r"""Return the content of the last outermost `\boxed{...}` with balanced braces, or None."""
    found = _boxes(text)
    return found[-1].written.strip() if found else None
