"""What a server answers, as text for an agent that reads nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from agentrl.world.tool import ToolResult

if TYPE_CHECKING:
    from mcp_types import CallToolResult, ContentBlock


def result_of(answer: CallToolResult) -> ToolResult:
    """Return the result of a call; one that the tool calls an error is the agent's to read."""
    text = "\n".join(_text(block) for block in answer.content)
    if not answer.content and answer.structured_content is not None:
        text = json.dumps(answer.structured_content, ensure_ascii=False)
    if answer.is_error:
        told = text or "The tool failed and says nothing."
        return ToolResult(told, error=told)
    return ToolResult(text)


def _text(block: ContentBlock) -> str:
    """Return a piece of content, or a note of what it was."""
    if block.type == "text":
        return block.text
    if block.type == "resource_link":
        return f"[a link: {block.uri}]"
    if block.type == "resource":
        text = getattr(block.resource, "text", None)
        return text if isinstance(text, str) else f"[{block.resource.mime_type or 'data'} is not shown]"
    return f"[{block.mime_type}, {len(block.data) * 3 // 4} bytes, is not shown]"
