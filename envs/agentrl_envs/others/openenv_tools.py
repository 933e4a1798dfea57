"""The tools of an OpenEnv environment that speaks MCP, as ours; each call is a step of the episode."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from agentrl.errors import as_sentence
from agentrl.world.tool import Tool, ToolResult
from agentrl_tools.mcp.schema import signature_of, writable

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentrl_envs.others.openenv_session import Session

    Caller = Callable[[str, Mapping[str, object]], ToolResult]

BROKEN: Final = ("transport_error", "timeout")
"""Errors of a call that are the server's own; the others are the agent's to read."""


def listed(session: Session) -> tuple[Mapping[str, Any], ...]:
    """Return the environment's tools; the list is no step, so the episode does not see it.

    Raises:
        EnvironmentFault: the server has none, or what it lists cannot be read.
    """
    question = {"jsonrpc": "2.0", "method": "tools/list", "params": {}, "id": 1}
    kind, data = session.ask({"type": "mcp", "data": question}, "mcp")
    result = data.get("result")
    found = cast("Mapping[str, Any]", result).get("tools") if isinstance(result, Mapping) else None
    if kind == "error" or not isinstance(found, list) or not found:
        problem = data.get("error")
        known = cast("Mapping[str, Any]", problem) if isinstance(problem, Mapping) else data
        said = as_sentence(known.get("message") or str(data)[:200])
        raise session.fault(
            f"lists no tools: {said} An environment without tools takes `action`, the field of its action, "
            "in place of `tools = true`"
        )
    entries = cast("list[object]", found)
    tools = [cast("Mapping[str, Any]", one) for one in entries if isinstance(one, Mapping)]
    if len(tools) < len(entries) or not all(isinstance(one.get("name"), str) for one in tools):
        raise session.fault(f"lists tools that cannot be read: {str(entries)[:200]}")
    return tuple(tools)


def tool_of(listing: Mapping[str, Any], url: str, call: Caller) -> Tool:
    """Return one listed tool; `call` gets the server's name of it and the arguments.

    Raises:
        ToolDefinitionError: its schema is none.
    """
    name = str(listing["name"])
    schema = listing.get("inputSchema") or listing.get("input_schema") or {"type": "object"}
    signature = signature_of(writable(name), str(listing.get("description") or name), schema, url)

    def called(**arguments: object) -> ToolResult:
        return call(name, arguments)

    return Tool(signature, called)


def action_of(name: str, arguments: Mapping[str, object]) -> dict[str, object]:
    """Return the action that calls a tool."""
    return {"type": "call_tool", "tool_name": name, "arguments": dict(arguments)}


def told_by(observation: Mapping[str, Any]) -> tuple[str, bool]:
    """Return what a call gave as text, and whether it is an error.

    >>> told_by({"result": {"content": [{"type": "text", "text": "tea"}], "data": "tea"}, "error": None})
    ('tea', False)
    >>> told_by({"result": None, "error": {"error_type": "tool_not_found", "message": "Unknown tool: 'x'"}})
    ("Unknown tool: 'x'", True)
    """
    problem = observation.get("error")
    if problem:
        known = cast("Mapping[str, Any]", problem) if isinstance(problem, Mapping) else {}
        return str(known.get("message", problem)), True
    result = observation.get("result")
    known = cast("Mapping[str, Any]", result) if isinstance(result, Mapping) else {}
    content = known.get("content")
    if isinstance(content, list) and content:
        pieces = [_piece(one) for one in cast("list[object]", content)]
        return "\n".join(pieces), known.get("is_error") is True
    value = known.get("data", cast("object", result)) if known else cast("object", result)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text, known.get("is_error") is True


def is_broken(observation: Mapping[str, Any]) -> bool:
    """Return whether a call failed for reasons that are the server's own."""
    problem = observation.get("error")
    return isinstance(problem, Mapping) and cast("Mapping[str, Any]", problem).get("error_type") in BROKEN


def _piece(block: object) -> str:
    known = cast("Mapping[str, Any]", block) if isinstance(block, Mapping) else {}
    text = known.get("text")
    return text if isinstance(text, str) else f"[{known.get('type', 'data')} is not shown]"


def only_text(observation: Mapping[str, Any]) -> str | None:
    """Return the only text among the fields of an observation, or None."""
    texts: Sequence[str] = [value for value in observation.values() if isinstance(value, str)]
    return texts[0] if len(texts) == 1 else None
