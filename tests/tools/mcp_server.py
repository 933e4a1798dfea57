"""A real MCP server, made with the SDK; run as a program it speaks over its pipes."""

from __future__ import annotations

import os
import time

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("tests", log_level="ERROR")
calls = [0]


@server.tool()
def add(first: int, second: int = 1) -> str:
    """Add two numbers."""
    return str(first + second)


@server.tool()
def count() -> str:
    """Count the calls of this process."""
    calls[0] += 1
    return f"call {calls[0]} of {os.getpid()}"


@server.tool(name="files.read")
def read(path: str) -> str:
    """Fail, as tools do."""
    raise ToolError(f"there is no file {path}")


@server.tool()
def variable(name: str) -> str:
    """Return an environment variable."""
    return os.environ.get(name, "unset")


@server.tool(structured_output=False)
def picture() -> list[str | Image]:
    """Return text and an image."""
    return ["before", Image(data=b"123456789", format="png")]


@server.tool()
def long(characters: int) -> str:
    """Return a long text."""
    return "x" * characters


@server.tool()
def wait(seconds: float) -> str:
    """Wait."""
    time.sleep(seconds)
    return "late"


if __name__ == "__main__":
    server.run("stdio")
