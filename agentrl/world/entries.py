"""What families share in reading calls: objects that name a tool, calls behind marks, JSON arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentrl.world.json_text import read_json_at
from agentrl.world.parsing import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentrl.world.json_text import Json

ARGUMENTS: Final = ("arguments", "parameters")


def form_of(key: str) -> str:
    """Return what such a call looks like, for a sentence.

    >>> form_of("arguments")
    '{"name": ..., "arguments": {...}}'
    """
    return f'{{"name": ..., "{key}": {{...}}}}'


def call_of(
    value: Json, written: str, keys: Sequence[str] = ARGUMENTS, *, start: int = 0, end: int = 0
) -> Call | str:
    """Return the call that an object names, or what is wrong with it as a sentence for the agent.

    Args:
        written: the object as text; start, end: where it stands in the turn.
        keys: under which the arguments may stand; the first is the one that is named.
    """
    form = form_of(keys[0])
    if not isinstance(value, dict) or not isinstance(name := value.get("name"), str):
        return f"A tool call needs a name. Write {form}."
    arguments = next((value[key] for key in keys if key in value), {})
    if not isinstance(arguments, dict):
        return f"The arguments of {name!r} must be a JSON object. Write {form}."
    return Call(name, written, arguments, start, end, str(value.get("id", "")))


def too_many(most: int, what: str = "tool calls") -> str:
    """Return the sentence for a turn with more calls than are read."""
    return f"The turn holds more than {most} {what}. Write fewer."


def calls_after(
    text: str, mark: str, read: Callable[[int, int], Call | str], most: int
) -> tuple[list[Call], int] | str:
    """Read a call behind each `mark`; return the calls and where the last ends, or a sentence for the agent.

    Args:
        read: gets where the mark stands and where the call before it ends; its call ends behind the mark.
    """
    calls: list[Call] = []
    end = 0
    while (start := text.find(mark, end)) >= 0:
        if len(calls) == most:
            return too_many(most)
        call = read(start, end)
        if isinstance(call, str):
            return call
        calls.append(call)
        end = call.end
    return calls, end


def arguments_at(text: str, name: str, start: int) -> tuple[dict[str, Json], int] | str:
    """Read the JSON object of a call's arguments; return it and its end, or what is wrong as a sentence."""
    try:
        arguments, length = read_json_at(text[start:])
    except ValueError as error:
        return f"The arguments of {name!r} could not be read: {error}."
    if not isinstance(arguments, dict):
        return f"The arguments of {name!r} must be a JSON object."
    return arguments, start + length
