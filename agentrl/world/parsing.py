"""The contract of a protocol, what it reads in a turn, and what every protocol checks."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from agentrl.world.json_text import Json
    from agentrl.world.tool import Tool

MAX_CHARACTERS: Final = 1_000_000
OUTPUTS: Final = ("<tool_response>", "</tool_response>")
_ROLE_TOKEN: Final = re.compile(r"<\|[A-Za-z_]{2,40}\|>")
THINK: Final = re.compile(r"<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call as the agent wrote it.

    Attributes:
        name: of the tool; it need not exist.
        written: the arguments as text.
        arguments: the same as JSON, or None where the tool reads the bare text itself.
        start, end: characters [start, end) of the turn's text, markup included.
    """

    name: str
    written: str
    arguments: Mapping[str, Json] | None = None
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class TextSpan:
    """Characters [start, end) of a turn's text that play a role: `think`, `tool_call`, `answer`."""

    role: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a protocol read in one turn.

    Attributes:
        text: what `step` of a plain-text world receives.
        calls: the tool calls in order; `answer`: the final answer, if one was given.
        error: why the turn cannot be executed, as a sentence for the agent; then there are no calls.
        spoofed: whether the text forged tool output or role tokens; what follows the forgery was not read.
        spans: where reasoning, calls and the answer stand.
    """

    text: str
    calls: tuple[Call, ...] = ()
    answer: str | None = None
    error: str | None = None
    spoofed: bool = False
    spans: tuple[TextSpan, ...] = ()


class Protocol(ABC):
    """How text becomes actions and observations become text. Subclasses are frozen dataclasses."""

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end a turn when the agent writes them."""
        return ()

    def for_tools(self, tools: Sequence[Tool]) -> Self:
        """Return this protocol made to measure for a world's tools."""
        del tools
        return self

    @abstractmethod
    def describe(self, tools: Sequence[Tool]) -> str:
        """Return the system text: the tools and how to call them."""

    def schemas(self, tools: Sequence[Tool]) -> tuple[Mapping[str, object], ...]:
        """Return the tools' JSON schemas where the policy's server is to make the calls; none by default."""
        del tools
        return ()

    @abstractmethod
    def parse(self, text: str) -> Parsed:
        """Read what the agent wrote. Never raises: what is wrong becomes `Parsed.error`."""

    def wrap(self, observation: str) -> tuple[str, str, str]:
        """Return the observation as (prefix, body, suffix), so that the body alone can be cut."""
        return "", observation, ""

    def render(self, observation: str, *, cut: Callable[[str], str] | None = None) -> str:
        """Return the observation with its markup; `cut` shortens the body, the markup survives."""
        prefix, body, suffix = self.wrap(observation)
        return prefix + (body if cut is None else cut(body)) + suffix


def before_forgery(text: str, markers: Sequence[str]) -> tuple[str, str | None]:
    """Return the text before the first marker that only the environment writes, and that marker or None.

    Role tokens such as `<|im_start|>` always count.

    >>> before_forgery("go <|im_end|> you win", ())
    ('go ', '<|im_end|>')
    """
    places = [(text.find(marker), marker) for marker in markers if marker in text]
    if role := _ROLE_TOKEN.search(text):
        places.append((role.start(), role[0]))
    if not places:
        return text, None
    start, marker = min(places)
    return text[:start], marker


def forgery(marker: str) -> str:
    """Return the sentence for a turn that held nothing but a forgery."""
    return f"The turn contains {marker}, which only the environment writes. Write an action instead."


def unclosed(name: str) -> str:
    """Return the sentence for a tag that is never closed."""
    return f"The tag <{name}> is never closed. End it with </{name}>."


def enclosed(tag: str, observation: str, space: str) -> tuple[str, str, str]:
    """Return (prefix, body, suffix) with the tag; the body cannot close it."""
    body = observation.replace(f"</{tag}>", f"&lt;/{tag}>")
    return f"<{tag}>{space}", body, f"{space}</{tag}>"


def too_long(text: str) -> str | None:
    """Return the sentence for a turn that is too long to read, or None."""
    if len(text) <= MAX_CHARACTERS:
        return None
    return f"The turn has {len(text)} characters; at most {MAX_CHARACTERS} are read. Write less."


def spans_of(found: Sequence[Call]) -> tuple[TextSpan, ...]:
    """Return the spans of calls, of which `think` and `answer` are roles of their own."""
    roles = {"think": "think", "answer": "answer"}
    return tuple(TextSpan(roles.get(call.name, "tool_call"), call.start, call.end) for call in found)
