"""How a turn is written: what the agent is told, how its text is read, how an observation is shown to it.

A protocol is a value: it prints, compares and pickles. The rollout owns it.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentrl.world.formats import Fenced, JsonCalls, NativeCalls
from agentrl.world.parsing import (
    OUTPUT_TAG,
    Call,
    Parsed,
    Protocol,
    TextSpan,
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

__all__ = [
    "Call",
    "Fenced",
    "JsonCalls",
    "NativeCalls",
    "Parsed",
    "PlainText",
    "Protocol",
    "Tags",
    "TextSpan",
]

_OPENING: Final = re.compile(r"<([A-Za-z_][A-Za-z0-9_-]*)>")
_ALMOST: Final = re.compile(r"(?:<|&lt;)\s{0,9}([A-Za-z_][\w-]{0,63})[^<>&]{0,99}(?:>|&gt;)")


@dataclass(frozen=True, slots=True)
class PlainText(Protocol):
    """The whole turn is the action, reasoning in `<think>` left out; for text worlds such as ALFWorld.

    >>> PlainText().parse("<think>hungry</think> go to fridge 1 ").text
    'go to fridge 1'
    """

    def describe(self, tools: Sequence[Tool]) -> str:
        """Return nothing: a text world explains itself."""
        del tools
        return ""

    def parse(self, text: str) -> Parsed:
        """Read the whole text as one action."""
        if problem := too_long(text):
            return Parsed(text.strip(), error=problem)
        honest, forged = before_forgery(text, forged_by())
        thoughts = split_thoughts(honest)
        action = "".join(_outside(honest, thoughts.spans)).strip()
        error = unclosed("think") if thoughts.unclosed else None
        if error is None and not action:
            error = "The turn was empty. Write one command."
        return Parsed(action, error=error, spoofed=forged is not None, spans=thoughts.spans)

    def write(self, name: str, arguments: Mapping[str, Json]) -> str:
        """Return the bare text of the call: a text world has one tool, and it has no name."""
        return bare(arguments)

    def write_answer(self, answer: str) -> str:
        """Return the answer."""
        return answer


def _outside(text: str, spans: Sequence[TextSpan]) -> Iterator[str]:
    position = 0
    for span in spans:
        yield text[position : span.start]
        position = span.end
    yield text[position:]


@dataclass(frozen=True, slots=True)
class Tags(Protocol):
    """A tool is called by its tag: `<search>who wrote Emma?</search>`; `<answer>` gives the final answer.

    Attributes:
        names: tags that are read as calls; empty reads every tag, `for_tools` fills in a world's tools.
        observation: the tag around observations; writing it is a forgery.
        action: the tag whose content a plain-text world receives.
        max_calls: more calls in one turn, the answer not counted, are an error.

    >>> Tags().parse("<think>x</think><search>tea</search>").calls[0].written
    'tea'
    >>> Tags().render("Tea is a drink.")
    '<information>Tea is a drink.</information>'
    """

    names: tuple[str, ...] = ()
    observation: str = "information"
    action: str = "action"
    max_calls: int = 16

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The closing tag of each tool and of the answer."""
        names = dict.fromkeys((*self.names, "answer")) if self.names else {}
        return tuple(f"</{name}>" for name in names)

    def for_tools(self, tools: Sequence[Tool]) -> Self:
        """Read only the tags of these tools, so that other angle brackets are plain text."""
        names = tuple(tool.name for tool in tools)
        return dataclasses.replace(self, names=names) if names else self

    def describe(self, tools: Sequence[Tool]) -> str:
        """List the tools with the tag that calls each."""
        if not tools:
            return ""
        lines = [f"<{tool.name}>{_content(tool)}</{tool.name}>: {_one_line(tool)}" for tool in tools]
        shown = "You may use these tools. To call one, write its tag and stop:"
        tag = self.observation
        result = f"The result comes back in <{tag}>...</{tag}>; never write that yourself."
        return "\n".join([shown, *lines, result])

    def parse(self, text: str) -> Parsed:
        """Read the tags in order, outside of `<think>`; what follows the answer is not executed."""
        if problem := too_long(text):
            return Parsed(text.strip(), error=problem)
        honest, forged = before_forgery(text, forged_by(self.observation, OUTPUT_TAG))
        thoughts = split_thoughts(honest)
        found = unclosed("think") if thoughts.unclosed else self._scan(thoughts.visible)
        if isinstance(found, str):
            return Parsed(text.strip(), error=found, spoofed=forged is not None)
        calls, answer = _until_answer(found)
        action = next((call.written.strip() for call in calls if call.name == self.action), text.strip())
        error = None if calls or answer is not None else self._nothing(text, thoughts.visible, forged)
        return Parsed(action, calls, answer, error, forged is not None, spans_of(found, thoughts.spans))

    def _nothing(self, text: str, visible: str, forged: str | None) -> str:
        if forged is not None:
            return forgery(forged)
        written = " or ".join(f"<{name}>...</{name}>" for name in self.names) or "<tool>...</tool>"
        if not text.strip():
            return f"The turn was empty. Write {written}."
        almost = next((match for match in _ALMOST.finditer(visible) if self._knows(match[1].lower())), None)
        if almost:
            return f"No tag was found. {almost[0]} is not <{almost[1].lower()}>. Write {written}."
        thought = next((match for match in _OPENING.finditer(text) if self._knows(match[1])), None)
        hint = f" {thought[0]} stands inside <think>, where nothing is read." if thought else ""
        after = " after </think>" if thought else ""
        return f"No tag was found.{hint} Write {written}{after}."

    def _scan(self, text: str) -> list[Call] | str:
        found: list[Call] = []
        answers: set[str] = set()
        position = calls = 0
        while match := _OPENING.search(text, position):
            name, position = match[1], match.end()
            if not self._reads(name):
                continue
            end = text.find(f"</{name}>", position)
            if end < 0:
                return unclosed(name)
            written = text[position:end]
            if inner := self._nested(name, written):
                return f"<{inner}> stands inside <{name}>. Close <{name}> first; tags cannot be nested."
            position = end + len(name) + 3
            found.append(Call(name, written, start=match.start(), end=position))
            if name == "answer":
                answers.add(written.strip())
            elif (calls := calls + 1) > self.max_calls:
                return f"The turn holds more than {self.max_calls} tags. Write fewer."
        if len(answers) > 1:
            return "The turn gives more than one <answer>. Give exactly one."
        return found

    def _reads(self, name: str) -> bool:
        return not self.names or self._knows(name)

    def _knows(self, name: str) -> bool:
        return name in self.names or name in {"answer", self.action}

    def _nested(self, name: str, written: str) -> str | None:
        known = {name, "answer", *self.names}
        return next((match[1] for match in _OPENING.finditer(written) if match[1] in known), None)

    def write(self, name: str, arguments: Mapping[str, Json]) -> str:
        """Return the call between its tags, with blanks around one line, as Search-R1 shows it to its models.

        A tokenizer then sees the words of a query as it sees them inside of a sentence.
        """
        return _tagged(name, bare(arguments))

    def write_answer(self, answer: str) -> str:
        """Return the answer between its tags."""
        return _tagged("answer", answer)

    def wrap(self, observation: str) -> tuple[str, str, str]:
        """Put the observation between tags; a closing tag inside it is written as text."""
        return enclosed(self.observation, observation, "")


def _tagged(name: str, content: str) -> str:
    return f"<{name}>{content}</{name}>" if "\n" in content else f"<{name}> {content} </{name}>"


def _until_answer(found: Sequence[Call]) -> tuple[tuple[Call, ...], str | None]:
    calls: list[Call] = []
    for call in found:
        if call.name == "answer":
            return tuple(calls), call.written.strip()
        calls.append(call)
    return tuple(calls), None


def _content(tool: Tool) -> str:
    only = tool.signature.only_parameter
    if only is not None or not tool.signature.adapters:
        return only or ""
    return "{" + ", ".join(f'"{name}": ...' for name in tool.signature.adapters) + "}"


def _one_line(tool: Tool) -> str:
    return " ".join(tool.description.split())
