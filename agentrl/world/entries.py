"""The object that names a tool and its arguments, as most families write a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentrl.world.parsing import Call

if TYPE_CHECKING:
    from collections.abc import Sequence

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
