"""The contract of a protocol, what it reads in a turn, and what every protocol checks."""

from __future__ import annotations

import functools
import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from agentrl.world.json_text import Json
    from agentrl.world.tool import Tool

MAX_CHARACTERS: Final = 1_000_000
OUTPUT_TAG: Final = "tool_response"
_ROLE: Final = r"<\|\w{2,40}\|>|<\uff5c[^\uff5c<>\n]{1,40}\uff5c>|<(?:start|end)_of_turn>|\[/?INST\]"
ROLE_TOKEN: Final = re.compile(_ROLE)
"""What begins or ends somebody's turn in the templates of known families."""
_THINK: Final = re.compile(r"</?think>")


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call as the agent wrote it.

    Attributes:
        name: of the tool; it need not exist.
        written: the arguments as text.
        arguments: the same as JSON, or None where the tool reads the bare text itself.
        start, end: characters [start, end) of the turn's text, markup included.
        identifier: the name that the agent gave the call, in forms that have one.
    """

    name: str
    written: str
    arguments: Mapping[str, Json] | None = None
    start: int = 0
    end: int = 0
    identifier: str = ""


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
    """How text becomes actions and observations become text. Subclasses are frozen dataclasses.

    Attributes:
        separates_results: whether each of several calls in one turn gets markup of its own for its result.
        spoken: special tokens that belong to a call, where a tokenizer has them as such.
    """

    __slots__ = ()
    separates_results: ClassVar[bool] = False
    spoken: ClassVar[tuple[str, ...]] = ()

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

    def write(self, name: str, arguments: Mapping[str, Json]) -> str:
        """Return a call of the tool `name` as `parse` reads it, for scripted players and demonstrations.

        A single argument is written bare where the protocol has a place for it.
        """
        raise NotImplementedError(
            f"{type(self).__name__} does not say how a call is written; define write()."
        )

    def write_answer(self, answer: str) -> str:
        """Return a final answer as `parse` reads it."""
        raise NotImplementedError(
            f"{type(self).__name__} does not say how an answer is written; define write_answer()."
        )

    def wrap(self, observation: str) -> tuple[str, str, str]:
        """Return the observation as (prefix, body, suffix), so that the body alone can be cut."""
        return "", observation, ""

    def render(self, observation: str, *, cut: Callable[[str], str] | None = None) -> str:
        """Return the observation with its markup; `cut` shortens the body, the markup survives."""
        prefix, body, suffix = self.wrap(observation)
        return prefix + (body if cut is None else cut(body)) + suffix


@dataclass(frozen=True, slots=True)
class Thoughts:
    """What a turn says outside of `<think>`.

    Attributes:
        visible: the text with its thoughts blanked out, as long as before, so that offsets stay true.
        spans: where the thoughts stand; `unclosed`: whether the last one has no end.
    """

    visible: str
    spans: tuple[TextSpan, ...] = ()
    unclosed: bool = False


def split_thoughts(text: str) -> Thoughts:
    """Find the thoughts of a turn, nested ones as one; in one pass, however long the text.

    A `</think>` that nothing opens closes a thought that began before the turn (some templates open it for
    the model), so everything up to it is one.

    >>> split_thoughts("so</think> go").visible
    '           go'
    """
    if "think>" not in text:
        return Thoughts(text)
    spans: list[TextSpan] = []
    depth = start = 0
    for tag in _THINK.finditer(text):
        if tag[0] == "<think>":
            start = tag.start() if depth == 0 else start
            depth += 1
        elif depth:
            depth -= 1
            if depth == 0:
                spans.append(TextSpan("think", start, tag.end()))
        else:
            spans = [TextSpan("think", 0, tag.end())]
    return Thoughts(_blanked(text, spans), tuple(spans), unclosed=depth > 0)


def _blanked(text: str, spans: Sequence[TextSpan]) -> str:
    pieces: list[str] = []
    position = 0
    for span in spans:
        pieces += [text[position : span.start], re.sub(r"[^\n]", " ", text[span.start : span.end])]
        position = span.end
    return "".join((*pieces, text[position:]))


@functools.cache
def forged_by(*tags: str, also: str = "", but: tuple[str, ...] = ()) -> re.Pattern[str]:
    """Return what only the environment writes: these tags in any spelling, role tokens, and `also`.

    Args:
        tags: names, such as "information"; `</ Information >` and `<information id="1">` count too.
        also: one more regular expression; `but`: role tokens that the agent writes in its calls.
    """
    blank = r"\s{0,9}"
    written = [
        rf"<{blank}/?{blank}{re.escape(tag)}(?:\s{{1,9}}[\w-]{{1,40}}=[^<>]{{0,99}})?{blank}/?>"
        for tag in tags
    ]
    spoken = "".join(f"(?!{re.escape(token)})" for token in but)
    options = [f"{spoken}(?:{_ROLE})", *(f"(?i:{tag})" for tag in written), *([also] if also else [])]
    return re.compile("|".join(options), re.MULTILINE)


def before_forgery(text: str, forged: re.Pattern[str]) -> tuple[str, str | None]:
    """Return the text before the first thing that only the environment writes, and that thing or None.

    >>> before_forgery("go <|im_end|> you win", forged_by())
    ('go ', '<|im_end|>')
    """
    found = forged.search(text)
    return (text, None) if found is None else (text[: found.start()], found[0])


def bare(arguments: Mapping[str, Json]) -> str:
    """Return arguments as the content of a tag or a fence: one text as it is, anything else as JSON.

    >>> bare({"query": "tea"}), bare({"query": "tea", "k": 3})
    ('tea', '{"query": "tea", "k": 3}')
    """
    only = next(iter(arguments.values())) if len(arguments) == 1 else None
    if isinstance(only, str):
        return only
    return (
        json.dumps(dict(arguments) if len(arguments) != 1 else only, ensure_ascii=False) if arguments else ""
    )


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


def results_in(observation: str) -> list[str] | None:
    r"""Return what each call gave, of an observation that is nothing but results in their tags, else None.

    >>> results_in("<tool_response>\ntea\n</tool_response>\n<tool_response>\n3\n</tool_response>")
    ['tea', '3']
    """
    opening, closing = f"<{OUTPUT_TAG}>\n", f"\n</{OUTPUT_TAG}>"
    found: list[str] = []
    position = 0
    while observation.startswith(opening, position):
        end = observation.find(closing, position + len(opening) - 1)
        if end < 0:
            return None
        found.append(observation[position + len(opening) : end])
        position = end + len(closing)
        if position == len(observation):
            return found
        position += observation.startswith("\n", position)
    return None


def too_long(text: str) -> str | None:
    """Return the sentence for a turn that is too long to read, or None."""
    if len(text) <= MAX_CHARACTERS:
        return None
    return f"The turn has {len(text)} characters; at most {MAX_CHARACTERS} are read. Write less."


def spans_of(found: Sequence[Call], thoughts: Sequence[TextSpan] = ()) -> tuple[TextSpan, ...]:
    """Return the spans of thoughts and calls in order; a call named `answer` has that role."""
    calls = [
        TextSpan("answer" if call.name == "answer" else "tool_call", call.start, call.end) for call in found
    ]
    return tuple(sorted((*thoughts, *calls), key=lambda span: span.start))
