"""Between a conversation of ours and the messages of a server's own tool calls.

In our conversations a call is text, `<tool_call>{"name": ..., "arguments": ...}</tool_call>`, and its result
a user message, which every protocol can read and every trajectory keep. A server with tool calls of its own
wants them as fields; the translation loses nothing in either direction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

from agentrl.world.parsing import results_in

if TYPE_CHECKING:
    from agentrl.policy.base import Message

_CALL: Final = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)


def chat_messages(messages: Sequence[Message], *, native: bool = False) -> list[dict[str, object]]:
    """Return the conversation as a server reads it.

    Args:
        native: write calls and their results as the fields of a server's own tool calls.
    """
    if not native:
        return [{"role": message.role, "content": message.content} for message in messages]
    sent: list[dict[str, object]] = []
    waiting: list[str] = []
    for place, message in enumerate(messages):
        if message.role == "assistant":
            written = _assistant(message.content, place)
            waiting = [
                str(call["id"]) for call in cast("list[dict[str, object]]", written.get("tool_calls", []))
            ]
            sent.append(written)
        elif waiting:
            sent += _results(message.content, waiting)
            waiting = []
        else:
            sent.append({"role": message.role, "content": message.content})
    return sent


def with_calls(text: str, message: Mapping[str, object]) -> str:
    r"""Return a server's message as text, its own tool calls written as ours.

    Arguments that are no JSON object stay as the model wrote them: the protocol says what is wrong with them.

    >>> with_calls("", {"tool_calls": [{"function": {"name": "look", "arguments": '{"shelf": 1}'}}]})
    '<tool_call>\n{"name": "look", "arguments": {"shelf": 1}}\n</tool_call>'
    """
    calls = message.get("tool_calls")
    written = [text] if text else []
    for call in calls if isinstance(calls, Sequence) else ():
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping):
            name = json.dumps(str(function.get("name", "")), ensure_ascii=False)
            arguments = str(function.get("arguments") or "{}")
            written.append(f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>')
    return "\n".join(written)


def _assistant(text: str, place: int) -> dict[str, object]:
    calls: list[dict[str, object]] = []
    for number, match in enumerate(_CALL.finditer(text)):
        function = _function(match[1])
        if function is None:
            # A call that cannot be read has no fields; the model sees its own words again.
            return {"role": "assistant", "content": text}
        calls.append({"id": f"call_{place}_{number}", "type": "function", "function": function})
    message: dict[str, object] = {"role": "assistant", "content": _CALL.sub("", text).strip()}
    return message | ({"tool_calls": calls} if calls else {})


def _function(written: str) -> dict[str, object] | None:
    try:
        value = json.loads(written)
    except ValueError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("arguments", {}), dict):
        return None
    return {"name": str(value.get("name", "")), "arguments": json.dumps(value.get("arguments", {}))}


def _results(observation: str, identifiers: Sequence[str]) -> list[dict[str, object]]:
    """One message for each call; a result that is not split by call goes to the first."""
    found = results_in(observation) or []
    if len(found) != len(identifiers):
        whole = found[0] if len(found) == 1 else observation
        found = [whole, *(["See the first result."] * (len(identifiers) - 1))]
    return [
        {"role": "tool", "tool_call_id": identifier, "content": result}
        for identifier, result in zip(identifiers, found, strict=True)
    ]
