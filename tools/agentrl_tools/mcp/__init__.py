"""`mcp:`: the tools of any server that speaks the Model Context Protocol, as ours."""

from agentrl_tools.mcp.source import McpTools

__all__ = ["McpTools"]
